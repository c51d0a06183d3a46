import type { Transport } from '../../../transport/transport.ts';
import type { Login } from '../remote/kept-connection.ts';
import { SftpClient } from './sftp-client.ts';

/** The most channels of a login. An sshd allows 10 by default (MaxSessions), and each is a process there. */
export const MAX_CHANNELS = 8;

/** A server takes so many bytes ahead in a channel, so more operations in it only share its speed. */
const CHANNEL_BYTES: number = 2 * 1024 * 1024;

/** A server that does not say for so long whether it opens a channel opens none. */
const OPEN_TIMEOUT_MS = 10_000;

/** A channel, with what is under way in it. */
interface Channel {
  readonly client: SftpClient;
  bytes: number;
  operations: number;
}

/**
 * One login to an SFTP server. A channel has at most one window of bytes on its way to the server: 2 MiB, so 20 MB/s
 * over a round trip of 100 ms. So operations with many bytes get channels of their own, as far as the server allows it.
 */
export class SftpChannels implements Login<SftpClient> {
  readonly #transport: Transport;
  /** The first one lives as long as the login. */
  readonly #first: Channel;
  #channels: Channel[];
  #opening = 0;
  #most: number;

  /** @param most - how many channels to open at most. */
  static async open(transport: Transport, most: number = MAX_CHANNELS): Promise<SftpChannels> {
    return new SftpChannels(transport, await SftpClient.open(transport), most);
  }

  private constructor(transport: Transport, client: SftpClient, most: number) {
    this.#transport = transport;
    this.#first = { client, bytes: 0, operations: 0 };
    this.#channels = [this.#first];
    this.#most = most;
  }

  /** True once no operation can succeed any more. */
  get isLost(): boolean {
    return this.#first.client.isLost;
  }

  /** How many channels the server has shown to allow. */
  get most(): number {
    return this.#most;
  }

  /** Runs an operation that sends or receives about so many bytes. Throws what it throws. */
  async run<T>(bytes: number, work: (client: SftpClient) => Promise<T>): Promise<T> {
    let channel = this.#leastBusy();
    if (channel.bytes > 0 && channel.bytes + bytes > CHANNEL_BYTES) {
      await this.#openAnother();
      channel = this.#leastBusy();
    }
    channel.bytes += bytes;
    channel.operations++;
    try {
      return await work(channel.client);
    } finally {
      channel.bytes -= bytes;
      channel.operations--;
    }
  }

  close(): void {
    for (const { client } of this.#channels) client.close();
  }

  #leastBusy(): Channel {
    const alive = this.#channels.filter(({ client }) => !client.isLost);
    // A server that ends channels may do so again, and each time an operation has to begin anew.
    if (!this.isLost && alive.length < this.#channels.length) this.#most = alive.length;
    this.#channels = this.isLost ? [this.#first] : alive;
    return this.#channels.reduce((least, channel) =>
      (channel.bytes - least.bytes || channel.operations - least.operations) < 0 ? channel : least,
    );
  }

  /** Opens another channel, unless there are enough. A refusal is no error: what is open then has to do. */
  async #openAnother(): Promise<void> {
    const { another } = this.#transport;
    if (another === undefined || this.#channels.length + this.#opening >= this.#most) return;
    this.#opening++;
    try {
      const client = await openWithin(another);
      this.#channels.push({ client, bytes: 0, operations: 0 });
      this.#most = Math.max(this.#most, this.#channels.length);
    } catch {
      if (!this.isLost) this.#most = Math.min(this.#most, this.#channels.length);
    } finally {
      this.#opening--;
    }
  }
}

/** Throws if the server refuses it, or does not answer in time. */
async function openWithin(another: () => Promise<Transport>): Promise<SftpClient> {
  let isLate = false;
  let timer: NodeJS.Timeout | undefined;
  const opening = another().then((transport) => SftpClient.open(transport));
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('no answer')), OPEN_TIMEOUT_MS);
  });
  try {
    return await Promise.race([opening, late]);
  } catch (error) {
    isLate = true;
    throw error;
  } finally {
    clearTimeout(timer);
    opening.then(
      (client) => isLate && client.close(),
      () => {},
    );
  }
}
