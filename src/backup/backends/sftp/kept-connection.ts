import { setTimeout as pause } from 'node:timers/promises';
import type { Transport } from '../../../transport/transport.ts';
import { onClose } from '../remote/open-connections.ts';
import { MAX_CHANNELS, SftpChannels } from './sftp-channels.ts';
import type { SftpClient } from './sftp-client.ts';

/** How often an operation begins again on a new connection, and the first pause before it; the pause doubles. */
const ATTEMPTS = 5;
const FIRST_PAUSE_MS = 500;

/** How long a connection stays open without an operation. */
const IDLE_MS = 5000;

/** A connection to an SFTP server, made when it is needed, and made again when it is lost. */
export class KeptConnection {
  readonly #connect: () => Promise<Transport>;
  #login: Promise<SftpChannels> | undefined;
  #hasConnected = false;
  /** As many channels as the server has shown to allow. */
  #most: number = MAX_CHANNELS;
  #underWay = 0;
  #idle: NodeJS.Timeout | undefined;
  #unregister: (() => void) | undefined;

  /** @param connect - logs in and starts the server. */
  constructor(connect: () => Promise<Transport>) {
    this.#connect = connect;
  }

  /**
   * Runs an operation that sends or receives about so many bytes; begins it again, in another channel or on another
   * connection, if it lost its own. Throws what it throws last.
   */
  async run<T>(bytes: number, work: (client: SftpClient, attempt: number) => Promise<T>): Promise<T> {
    this.#underWay++;
    clearTimeout(this.#idle);
    try {
      return await this.#runNow(bytes, work);
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
    void this.#login?.then((login) => login.close()).catch(() => {});
    this.#login = undefined;
  }

  async #runNow<T>(bytes: number, work: (client: SftpClient, attempt: number) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      let login: SftpChannels | undefined;
      let client: SftpClient | undefined;
      const opening = (this.#login ??= this.#open());
      try {
        login = await opening;
        return await login.run(bytes, (channel) => work((client = channel), attempt));
      } catch (error) {
        const isLost = client?.isLost ?? true;
        if (login !== undefined) this.#most = login.most;
        // Another operation may have connected again meanwhile.
        if (login?.isLost !== false && this.#login === opening) this.#login = undefined;
        // A login that fails at first is probably a wrong one.
        const isFirst = login === undefined && !this.#hasConnected;
        if (!isLost || isFirst || attempt === ATTEMPTS) throw error;
        await pause(FIRST_PAUSE_MS * 2 ** (attempt - 1) * (0.5 + Math.random()));
      }
    }
  }

  async #open(): Promise<SftpChannels> {
    const login = await SftpChannels.open(await this.#connect(), this.#most);
    this.#hasConnected = true;
    this.#unregister ??= onClose(() => this.close());
    return login;
  }
}
