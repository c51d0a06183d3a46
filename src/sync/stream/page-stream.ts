import { createWriteStream, fstatSync, fsync, WriteStream } from 'node:fs';
import { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { promisify } from 'node:util';
import { SqlsyncError, shortageError, systemErrorCode } from '../../errors.ts';
import { RUN_BYTES } from '../../pages/file-pages.ts';

const STDOUT = 1;

/**
 * A stream of our own on stdout. `process.stdout` cannot be destroyed, so a pipe that is not read would keep the process
 * from ending; and of a write to a file that the system cut short, it drops the rest.
 */
export function standardOutput(): Writable {
  const stats = fstatSync(STDOUT);
  const isPipe = stats.isFIFO() || stats.isSocket();
  const stream = isPipe
    ? new Socket({ fd: STDOUT, readable: false, writable: true })
    : createWriteStream('', { fd: STDOUT, autoClose: false });
  // Each write has a callback that gets its error.
  return stream.on('error', () => {});
}

/**
 * Writes the pages of a database to a stream, from the first to the last. Collects 1 MiB while the last one is written,
 * so the reader of the stream sets the pace and the memory stays small.
 */
export class PageStream {
  /** Bytes that were written or wait to be. */
  bytes = 0;
  readonly #out: Writable;
  readonly #signal: AbortSignal | undefined;
  #filling = Buffer.allocUnsafe(RUN_BYTES);
  #spare = Buffer.allocUnsafe(RUN_BYTES);
  #filled = 0;
  #writing: Promise<void> | undefined;

  constructor(out: Writable, signal: AbortSignal | undefined) {
    this.#out = out;
    this.#signal = signal;
  }

  /** Adds bytes, which are copied; at most 1 MiB between two calls of `ready`. */
  add(bytes: Uint8Array): void {
    if (this.#filled + bytes.length > this.#filling.length) {
      const larger = Buffer.allocUnsafe(this.#filled + bytes.length + RUN_BYTES);
      this.#filling.copy(larger, 0, 0, this.#filled);
      this.#filling = larger;
    }
    this.#filling.set(bytes, this.#filled);
    this.#filled += bytes.length;
    this.bytes += bytes.length;
  }

  /** Resolves when more bytes may come. Throws SqlsyncError REPLICA_UNWRITABLE, SYSTEM_ERROR and INTERRUPTED. */
  async ready(): Promise<void> {
    if (this.#filled >= RUN_BYTES) await this.#flush();
  }

  /** Resolves when the stream has taken everything. Throws as `ready` does. */
  async end(): Promise<void> {
    await this.#flush();
    await this.#writing;
    if (this.#out instanceof WriteStream) await sync(this.#out);
  }

  async #flush(): Promise<void> {
    await this.#writing;
    if (this.#filled === 0) return;
    const bytes = this.#filling.subarray(0, this.#filled);
    [this.#filling, this.#spare] = [this.#spare, this.#filling];
    this.#filled = 0;
    this.#writing = this.#write(bytes);
    // The error is thrown where the write is waited for.
    this.#writing.catch(() => {});
  }

  #write(bytes: Uint8Array): Promise<void> {
    const signal = this.#signal;
    return new Promise((resolve, reject) => {
      // A reader that never reads must not keep an interrupted run from ending.
      const interrupt = (): void => {
        reject(interrupted());
        this.#out.destroy();
      };
      if (signal?.aborted === true) return interrupt();
      signal?.addEventListener('abort', interrupt, { once: true });
      this.#out.write(bytes, (error) => {
        signal?.removeEventListener('abort', interrupt);
        if (error === null || error === undefined) resolve();
        else reject(unwritable(error));
      });
    });
  }
}

/** Some file systems say only now that there is no space. What is no file has nothing to make durable. */
async function sync(file: WriteStream): Promise<void> {
  const { fd } = file as unknown as { readonly fd: number | null };
  if (fd === null) return;
  try {
    await promisify(fsync)(fd);
  } catch (error) {
    if (!['EINVAL', 'ENOTSUP', 'EROFS'].includes(systemErrorCode(error) ?? ''))
      throw unwritable(error as Error);
  }
}

function interrupted(): SqlsyncError {
  return new SqlsyncError('INTERRUPTED', 'Interrupted', {
    hint: 'What was written is not a whole database: throw it away.',
  });
}

function unwritable(error: Error): SqlsyncError {
  const shortage = shortageError('Standard output cannot be written', error);
  if (shortage !== undefined) return shortage;
  const hint = 'What was written is not a whole database: throw it away.';
  const isClosed = systemErrorCode(error) === 'EPIPE';
  const why = isClosed ? 'its reader ended before the database did' : error.message;
  return new SqlsyncError('REPLICA_UNWRITABLE', `Standard output cannot be written: ${why}`, {
    hint,
    cause: error,
  });
}
