import { BackgroundFile } from '../../files/background-file.ts';

/** Collects neighbouring bytes up to this size into one write. */
const BUFFER_BYTES = 1024 * 1024;

/** Joins neighbouring pieces into large writes in the thread pool. Keeps the first error; `written` throws it. */
export class BackgroundWriter {
  readonly #file: BackgroundFile;
  readonly #spare: Uint8Array[] = [];
  /** The writes under way, the oldest first. */
  readonly #writes = new Set<Promise<void>>();
  #buffer: Uint8Array = new Uint8Array(BUFFER_BYTES);
  #start = 0;
  #length = 0;

  constructor(descriptor: number) {
    this.#file = new BackgroundFile(descriptor);
  }

  /** Takes a copy of `bytes`, at most `BUFFER_BYTES`, to be written at `offset`. */
  write(offset: number, bytes: Uint8Array): void {
    if (offset !== this.#start + this.#length || this.#length + bytes.length > BUFFER_BYTES) {
      this.#hand();
      this.#start = offset;
    }
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** Resolves when at most `waitingBytes` remain to be written; 0 waits for all. Throws the system's errors. */
  async written(waitingBytes: number): Promise<void> {
    if (waitingBytes === 0) {
      this.#hand();
      return this.#file.idle();
    }
    for (const write of this.#writes) {
      if (this.#writes.size * BUFFER_BYTES <= waitingBytes) break;
      await write;
    }
    return this.#file.throwIfFailed();
  }

  /** Gives the collected bytes to the thread pool. */
  #hand(): void {
    if (this.#length === 0) return;
    const write = this.#write(this.#buffer, this.#length, this.#start);
    this.#writes.add(write);
    void write.finally(() => this.#writes.delete(write));
    this.#buffer = this.#spare.pop() ?? new Uint8Array(BUFFER_BYTES);
    this.#start += this.#length;
    this.#length = 0;
  }

  async #write(buffer: Uint8Array, length: number, offset: number): Promise<void> {
    await this.#file.write(buffer.subarray(0, length), offset);
    this.#spare.push(buffer);
  }
}
