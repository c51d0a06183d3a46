import { fdatasync, write } from 'node:fs';

/**
 * After this many written bytes, asks the disk to take them, so that the last fsync need not wait for all. Each time
 * costs a commit of the file system, which waits for what others write.
 */
const SYNC_BYTES = 256 * 1024 * 1024;

/** Writes to an open file in the thread pool, so that this thread can prepare the next bytes meanwhile. */
export class BackgroundFile {
  readonly descriptor: number;
  #underWay = 0;
  #unsyncedBytes = 0;
  #isSyncing = false;
  #failure: Error | undefined;
  #onIdle: (() => void) | undefined;

  constructor(descriptor: number) {
    this.descriptor = descriptor;
  }

  /** Writes `bytes` at `offset`; do not change them until it resolves. Never rejects: see `throwIfFailed`. */
  async write(bytes: Uint8Array, offset: number): Promise<void> {
    this.#underWay++;
    for (let written = 0; written < bytes.length && this.#failure === undefined;) {
      written += await this.#writeSome(bytes.subarray(written), offset + written);
    }
    this.#unsyncedBytes += bytes.length;
    this.#startSync();
    this.#end();
  }

  /** Throws the first error of any earlier write or sync. */
  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Resolves when nothing is under way, so that the file may be closed. Throws as `throwIfFailed` does. */
  async idle(): Promise<void> {
    if (this.#underWay > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
    this.throwIfFailed();
  }

  #writeSome(bytes: Uint8Array, offset: number): Promise<number> {
    return new Promise((resolve) => {
      write(this.descriptor, bytes, 0, bytes.length, offset, (error, written) => {
        if (error !== null) this.#failure ??= error;
        resolve(error === null ? written : 0);
      });
    });
  }

  /** Keeps an error: Linux reports a failed write-back once, and the final fsync might no longer see it. */
  #startSync(): void {
    if (this.#isSyncing || this.#unsyncedBytes < SYNC_BYTES) return;
    this.#isSyncing = true;
    this.#unsyncedBytes = 0;
    this.#underWay++;
    fdatasync(this.descriptor, (error) => {
      if (error !== null) this.#failure ??= error;
      this.#isSyncing = false;
      this.#end();
    });
  }

  #end(): void {
    this.#underWay--;
    if (this.#underWay === 0) this.#onIdle?.();
  }
}
