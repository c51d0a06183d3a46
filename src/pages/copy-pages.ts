import { randomBytes } from 'node:crypto';
import { DEFAULT_HASH } from '../../protocol/messages.ts';
import { SqlsyncError } from '../errors.ts';
import { BackgroundFile } from '../files/background-file.ts';
import { readFully } from '../files/read-fully.ts';
import { RUN_BYTES } from './file-pages.ts';
import { createPageHasher, HASH_KEY_BYTES } from './hash.ts';
import type { PageHasher } from './hash.ts';
import type { CopyPagesOptions, PageSource } from './page-source.ts';
import type { PageNumber } from './page-types.ts';
import { pageNumber } from './page-types.ts';

/** Runs of pages between the source and the file: one is read, one written, and two wait for either. */
const RUNS = 4;

/**
 * Copies the pages of a source of this process, from `first` on, to their places in an open file. It is not on disk until
 * an fsync. When it returns, each page has been read back from the file and has the hash, under a new random key, of
 * the page that the source gave: so nothing is left of a write to a wrong place, of a short write, or of a buffer that
 * changed under its write.
 *
 *     this thread   read, hash run 3 │ read back, hash, compare run 1 │ read, hash run 4 │ …
 *     thread pool   write run 2            │ write run 3                │ …     fdatasync
 *
 * A run is 1 MiB, in a buffer that is used again. Throws what the source throws, the system's errors on the file, and
 * SqlsyncError ROOT_MISMATCH. In any case no write is under way afterwards.
 */
export async function copyPages(
  source: PageSource,
  descriptor: number,
  {
    first = pageNumber(1),
    hash = DEFAULT_HASH,
    onRun,
  }: CopyPagesOptions & { readonly first?: PageNumber } = {},
): Promise<void> {
  const { pageSize, pageCount } = source;
  const file = new BackgroundFile(descriptor);
  const hasher = createPageHasher(hash, randomBytes(HASH_KEY_BYTES), pageSize);
  const scratch = new Run(file, hasher);
  const runs = Array.from({ length: RUNS }, () => new Run(file, hasher));
  const pagesPerRun = RUN_BYTES / pageSize;
  try {
    for (let page: number = first, turn = 0; page <= pageCount; turn++) {
      const run = runs[turn % RUNS] as Run;
      await run.compare(scratch);
      // A run ends at a multiple of its size, so that the system writes whole blocks of the file.
      const end = Math.min(Math.ceil(page / pagesPerRun) * pagesPerRun, pageCount);
      const bytes = run.fill(source, pageNumber(page), end - page + 1);
      source.readAhead?.(numbers(end + 1, Math.min(end + pagesPerRun, pageCount)));
      run.write();
      onRun?.(pageNumber(page), bytes);
      page = end + 1;
    }
    for (const run of runs) await run.compare(scratch);
  } catch (error) {
    await file.idle().catch(() => {}); // the first error is the one to report
    throw error;
  }
  await file.idle();
}

function numbers(first: number, last: number): number[] {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i);
}

/** Consecutive pages in a buffer, with their hashes. */
class Run {
  readonly #file: BackgroundFile;
  readonly #hasher: PageHasher;
  readonly #buffer = Buffer.allocUnsafeSlow(RUN_BYTES);
  readonly #hashes: Buffer;
  #first = 0 as PageNumber;
  #length = 0;
  #writing: Promise<void> | undefined;

  constructor(file: BackgroundFile, hasher: PageHasher) {
    this.#file = file;
    this.#hasher = hasher;
    this.#hashes = Buffer.alloc((RUN_BYTES / hasher.pageSize) * hasher.hashBytes);
  }

  /** Reads and hashes pages; returns their bytes. */
  fill(source: PageSource, first: PageNumber, count: number): Uint8Array {
    const bytes = this.#hold(first, count * source.pageSize);
    source.readInto(first, bytes);
    this.#hasher.hashPages(first, bytes, this.#hashes, 0);
    return bytes;
  }

  write(): void {
    this.#writing = this.#file.write(this.#bytes, this.#offset);
  }

  /** Waits for the write, and compares what the file has; `scratch` is overwritten. Does nothing without a write. */
  async compare(scratch: Run): Promise<void> {
    if (this.#writing === undefined) return;
    await this.#writing;
    this.#writing = undefined;
    this.#file.throwIfFailed();
    scratch.#readBack(this.#first, this.#length);
    if (this.#hashes.equals(scratch.#hashes)) return;
    throw this.#mismatch(scratch);
  }

  get #bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }

  get #offset(): number {
    return (this.#first - 1) * this.#hasher.pageSize;
  }

  #hold(first: PageNumber, length: number): Uint8Array {
    // A shorter run leaves hashes of the one before it behind its own.
    if (length !== this.#length) this.#hashes.fill(0);
    this.#first = first;
    this.#length = length;
    return this.#bytes;
  }

  #readBack(first: PageNumber, length: number): void {
    const bytes = this.#hold(first, length);
    const read = readFully(this.#file.descriptor, bytes, this.#offset);
    bytes.fill(0, read);
    this.#hasher.hashPages(first, bytes, this.#hashes, 0);
  }

  #mismatch(read: Run): SqlsyncError {
    const differs = this.#hashes.findIndex((byte, i) => byte !== read.#hashes[i]);
    const page = this.#first + Math.floor(differs / this.#hasher.hashBytes);
    return misread(page);
  }
}

/** The error for a page that the copy does not hold as it was written. */
export function misread(page: number): SqlsyncError {
  return new SqlsyncError(
    'ROOT_MISMATCH',
    `Page ${page} was read back from the copy with another content than written`,
    {
      hint: 'Nothing was changed. Run sqlsync again. If it happens again, check the memory and disks of this machine.',
    },
  );
}
