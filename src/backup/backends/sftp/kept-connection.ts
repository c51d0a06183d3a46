import { setTimeout as pause } from 'node:timers/promises';
import type { Transport } from '../../../transport/transport.ts';
import { onClose } from '../remote/open-connections.ts';
import { SftpClient } from './sftp-client.ts';

/** How often an operation begins again on a new connection, and the first pause before it; the pause doubles. */
const ATTEMPTS = 5;
const FIRST_PAUSE_MS = 500;

/** How long a connection stays open without an operation. */
const IDLE_MS = 5000;

/** A connection to an SFTP server, made when it is needed, and made again when it is lost. */
export class KeptConnection {
  readonly #connect: () => Promise<Transport>;
  #client: Promise<SftpClient> | undefined;
  #hasConnected = false;
  #underWay = 0;
  #idle: NodeJS.Timeout | undefined;
  #unregister: (() => void) | undefined;

  /** @param connect - logs in and starts the server. */
  constructor(connect: () => Promise<Transport>) {
    this.#connect = connect;
  }

  /** Runs an operation; begins it again on another connection if it lost its own. Throws what it throws last. */
  async run<T>(work: (client: SftpClient, attempt: number) => Promise<T>): Promise<T> {
    this.#underWay++;
    clearTimeout(this.#idle);
    try {
      return await this.#runNow(work);
    } finally {
      this.#underWay--;
      // An open connection would keep the program from ending.
      if (this.#underWay === 0) this.#idle = setTimeout(() => this.close(), IDLE_MS);
    }
  }

  close(): void {
    clearTimeout(this.#idle);
    this.#unregister?.();
    this.#unregister = undefined;
    void this.#client?.then((client) => client.close()).catch(() => {});
    this.#client = undefined;
  }

  async #runNow<T>(work: (client: SftpClient, attempt: number) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      let client: SftpClient | undefined;
      const opening = (this.#client ??= this.#open());
      try {
        client = await opening;
        return await work(client, attempt);
      } catch (error) {
        const isLost = client?.isLost ?? true;
        // Another operation may have connected again meanwhile.
        if (isLost && this.#client === opening) this.#client = undefined;
        // A login that fails at first is probably a wrong one.
        const isFirst = client === undefined && !this.#hasConnected;
        if (!isLost || isFirst || attempt === ATTEMPTS) throw error;
        await pause(FIRST_PAUSE_MS * 2 ** (attempt - 1) * (0.5 + Math.random()));
      }
    }
  }

  async #open(): Promise<SftpClient> {
    const client = await SftpClient.open(await this.#connect());
    this.#hasConnected = true;
    this.#unregister ??= onClose(() => this.close());
    return client;
  }
}
