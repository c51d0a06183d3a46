import { setTimeout as pause } from 'node:timers/promises';
import { SqlsyncError } from '../../../errors.ts';
import { onClose } from './open-connections.ts';

/** How often an operation begins again on a new connection, and the first pause before it; the pause doubles. */
const ATTEMPTS = 5;
const FIRST_PAUSE_MS = 500;

/** How long a connection stays open without an operation. */
const IDLE_MS = 5000;

/** True if another connection would come to the same. */
function isFinal(error: unknown): boolean {
  return error instanceof SqlsyncError && ['PROTOCOL', 'PROTOCOL_VERSION', 'RESTRICTED'].includes(error.code);
}

/** Serves operations, and may be lost with its connection. */
export interface Client {
  /** True once no operation can succeed any more. */
  readonly isLost: boolean;
}

/** A connection to the host of a store, with one client or several. */
export interface Login<C extends Client> extends Client {
  /** Runs an operation that sends or receives about so many bytes. Throws what it throws. */
  run<T>(bytes: number, work: (client: C) => Promise<T>): Promise<T>;
  close(): void;
}

/** A connection to the host of a store, made when it is needed, and made again when it is lost. */
export class KeptConnection<C extends Client, L extends Login<C>> {
  readonly #connect: (last: L | undefined) => Promise<L>;
  #login: Promise<L> | undefined;
  /** The connection that was lost last. */
  #last: L | undefined;
  #hasConnected = false;
  #underWay = 0;
  #idle: NodeJS.Timeout | undefined;
  #unregister: (() => void) | undefined;

  /** @param connect - logs in; gets the connection that was lost before, which may have taught something. */
  constructor(connect: (last: L | undefined) => Promise<L>) {
    this.#connect = connect;
  }

  /**
   * Runs an operation that sends or receives about so many bytes; begins it again, with another client or on another
   * connection, if it lost its own. Throws what it throws last.
   */
  async run<T>(bytes: number, work: (client: C, attempt: number) => Promise<T>): Promise<T> {
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

  async #runNow<T>(bytes: number, work: (client: C, attempt: number) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      let login: L | undefined;
      let client: C | undefined;
      const opening = (this.#login ??= this.#open());
      try {
        login = await opening;
        return await login.run(bytes, (chosen) => work((client = chosen), attempt));
      } catch (error) {
        const isLost = client?.isLost ?? true;
        if (login !== undefined) this.#last = login;
        // Another operation may have connected again meanwhile.
        if (login?.isLost !== false && this.#login === opening) this.#login = undefined;
        // A login that fails at first is probably a wrong one.
        const isFirst = login === undefined && !this.#hasConnected;
        if (!isLost || isFirst || isFinal(error) || attempt === ATTEMPTS) throw error;
        await pause(FIRST_PAUSE_MS * 2 ** (attempt - 1) * (0.5 + Math.random()));
      }
    }
  }

  async #open(): Promise<L> {
    const login = await this.#connect(this.#last);
    this.#hasConnected = true;
    this.#unregister ??= onClose(() => this.close());
    return login;
  }
}
