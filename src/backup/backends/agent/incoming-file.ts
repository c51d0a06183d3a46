import { createHash } from 'node:crypto';
import { MAX_FILE_PART_BYTES, MAX_STORE_FILE_BYTES } from '../../../../protocol/limits.ts';
import { SqlsyncError } from '../../../errors.ts';
import type { Connection } from '../../../sync/link/connection.ts';

/** The bytes of a file that the peer puts. Whatever becomes of the file, all of its parts have to be taken. */
export class IncomingFile {
  readonly #connection: Connection;
  readonly #id: number;
  readonly #maxBytes: number;
  #bytes = 0;
  #isOver = false;
  #failure: SqlsyncError | undefined;

  constructor(connection: Connection, id: number, maxBytes: number = MAX_STORE_FILE_BYTES) {
    this.#connection = connection;
    this.#id = id;
    this.#maxBytes = maxBytes;
    connection.state = 'takingFile';
  }

  /**
   * The parts that have not been taken yet; each is valid until the next.
   *
   * @param name - if given, throws at the end unless the name ends with the SHA-256 of the bytes.
   */
  async *pieces(name?: string): AsyncGenerator<Uint8Array> {
    const hash = createHash('sha256');
    while (!this.#isOver) {
      const data = await this.#next();
      if (name !== undefined) hash.update(data);
      yield data;
    }
    if (name !== undefined && !hasHash(name, hash.digest('hex')))
      throw new Error('the name is not that of its bytes; they may be damaged');
  }

  /** Takes the rest. Throws SqlsyncError PROTOCOL, also again, and CONNECTION_LOST. */
  async drop(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    while (!this.#isOver) await this.#next();
  }

  async #next(): Promise<Uint8Array> {
    const { id, isLast, data } = await this.#connection.receiveOnly('filePart');
    this.#bytes += data.length;
    if (id !== this.#id || data.length > MAX_FILE_PART_BYTES || this.#bytes > this.#maxBytes) {
      this.#failure = new SqlsyncError('PROTOCOL', 'The other side sent a part of a file that is not due');
      throw this.#failure;
    }
    this.#isOver = isLast;
    return data;
  }
}

/** `FOLDER/HASH`, or `steps/…-HASH`. */
function hasHash(name: string, hash: string): boolean {
  return name.endsWith(`/${hash}`) || (name.startsWith('steps/') && name.endsWith(`-${hash}`));
}
