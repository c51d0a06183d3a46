import { fdatasync, write } from 'node:fs';

/** Collects neighbouring bytes up to this size into one write. */
const BUFFER_BYTES = 1024 * 1024;

/** After this many written bytes, asks the disk to take them, so that the last fsync need not wait for all. */
const SYNC_BYTES = 64 * 1024 * 1024;

/**
 * Writes to a file in the thread pool, so that this thread can check the next pages meanwhile. Joins neighbouring
 * pieces into large writes. Keeps the first error; `written` throws it.
 */
export class BackgroundWriter {
  readonly #descriptor: number;
  readonly #spare: Uint8Array[] = [];
  #buffer: Uint8Array = new Uint8Array(BUFFER_BYTES);
  #start = 0;
  #length = 0;
  #waitingBytes = 0;
  #unsyncedBytes = 0;
  #syncing = false;
  #failure: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
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
    if (waitingBytes === 0) this.#hand();
    while (!this.#hasWritten(waitingBytes)) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  #hasWritten(waitingBytes: number): boolean {
    return this.#waitingBytes <= waitingBytes && (waitingBytes > 0 || !this.#syncing);
  }

  /** Gives the collected bytes to the thread pool. */
  #hand(): void {
    if (this.#length === 0) return;
    const buffer = this.#buffer;
    this.#waitingBytes += this.#length;
    this.#writeRest(buffer, 0, this.#length, this.#start);
    this.#buffer = this.#spare.pop() ?? new Uint8Array(BUFFER_BYTES);
    this.#start += this.#length;
    this.#length = 0;
  }

  #writeRest(buffer: Uint8Array, from: number, end: number, offset: number): void {
    write(this.#descriptor, buffer, from, end - from, offset, (error, written) => {
      if (error === null && from + written < end) {
        this.#waitingBytes -= written;
        return this.#writeRest(buffer, from + written, end, offset + written);
      }
      if (error !== null) this.#failure ??= error;
      this.#waitingBytes -= end - from;
      this.#unsyncedBytes += end - from;
      this.#spare.push(buffer);
      this.#startSync();
      this.#awake();
    });
  }

  /** Keeps an error: Linux reports a failed write-back once, and the final fsync might no longer see it. */
  #startSync(): void {
    if (this.#syncing || this.#unsyncedBytes < SYNC_BYTES) return;
    this.#syncing = true;
    this.#unsyncedBytes = 0;
    fdatasync(this.#descriptor, (error) => {
      if (error !== null) this.#failure ??= error;
      this.#syncing = false;
      this.#awake();
    });
  }

  #awake(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}
