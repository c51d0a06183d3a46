import { read, writeSync } from 'node:fs';
import { readFully } from '../files/read-fully.ts';
import { misread } from './copy-pages.ts';
import { RUN_BYTES } from './file-pages.ts';
import type { CopyPagesOptions, PageSource } from './page-source.ts';
import type { PageNumber } from './page-types.ts';
import { pageNumber } from './page-types.ts';

/** Runs of pages of the clone that are read ahead: its blocks are not in memory, although the source's are. */
const RUNS_AHEAD = 4;

/**
 * As `copyPages`, for a file that shares the blocks of the source's file already (`PageSource.cloneTo`): reads every
 * page of both, and writes those in which they differ, as the pages in a WAL do. Throws what the source throws, the
 * system's errors on the file, and SqlsyncError ROOT_MISMATCH. In any case no read is under way afterwards.
 */
export async function mendClone(
  source: PageSource,
  descriptor: number,
  { first, onRun }: CopyPagesOptions & { readonly first: PageNumber },
): Promise<void> {
  const runs = runsFrom(first, source);
  const ahead = Array.from(
    { length: RUNS_AHEAD },
    (_, i) => new CloneRun(descriptor, source.pageSize, runs[i]),
  );
  const wanted = Buffer.allocUnsafeSlow(RUN_BYTES);
  try {
    for (const [i, { page, count }] of runs.entries()) {
      const clone = ahead[i % RUNS_AHEAD] as CloneRun;
      const pages = wanted.subarray(0, count * source.pageSize);
      source.readInto(page, pages);
      await clone.mend(pages);
      onRun?.(page, pages);
      clone.begin(runs[i + RUNS_AHEAD]);
    }
  } finally {
    await Promise.all(ahead.map((clone) => clone.idle()));
  }
}

/** Consecutive pages, at most `RUN_BYTES`. */
interface Run {
  readonly page: PageNumber;
  readonly count: number;
}

function runsFrom(first: PageNumber, { pageSize, pageCount }: PageSource): Run[] {
  const most = RUN_BYTES / pageSize;
  const runs: Run[] = [];
  for (let page: number = first; page <= pageCount; page += most)
    runs.push({ page: pageNumber(page), count: Math.min(most, pageCount - page + 1) });
  return runs;
}

/** A run of the clone in a buffer that is used again. */
class CloneRun {
  readonly #descriptor: number;
  readonly #pageSize: number;
  readonly #buffer = Buffer.allocUnsafeSlow(RUN_BYTES);
  #run: Run | undefined;
  #reading: Promise<Error | undefined> = Promise.resolve(undefined);

  constructor(descriptor: number, pageSize: number, run: Run | undefined) {
    this.#descriptor = descriptor;
    this.#pageSize = pageSize;
    this.begin(run);
  }

  /** Begins to read a run. */
  begin(run: Run | undefined): void {
    this.#run = run;
    if (run !== undefined) this.#reading = this.#read(this.#bytes(run), this.#offset(run.page));
  }

  /** Writes the pages of the run that are not as `wanted`, and compares them once more. */
  async mend(wanted: Buffer): Promise<void> {
    const run = this.#run as Run;
    const failure = await this.#reading;
    if (failure !== undefined) throw failure;
    const held = this.#bytes(run);
    if (held.equals(wanted)) return;
    for (let i = 0; i < run.count; i++) {
      const [from, to] = [i * this.#pageSize, (i + 1) * this.#pageSize];
      if (held.compare(wanted, from, to, from, to) === 0) continue;
      this.#write(pageNumber(run.page + i), wanted.subarray(from, to), held.subarray(from, to));
    }
  }

  async idle(): Promise<void> {
    await this.#reading;
  }

  #write(page: PageNumber, bytes: Buffer, scratch: Buffer): void {
    const offset = this.#offset(page);
    for (let written = 0; written < bytes.length;)
      written += writeSync(this.#descriptor, bytes, written, bytes.length - written, offset + written);
    const length = readFully(this.#descriptor, scratch, offset);
    if (length < bytes.length || !scratch.equals(bytes)) throw misread(page);
  }

  /** Resolves to the error, so that nothing rejects while nobody waits. The end of the file reads as zeros. */
  async #read(bytes: Buffer, offset: number): Promise<Error | undefined> {
    for (let filled = 0; filled < bytes.length;) {
      const got = await this.#readSome(bytes, filled, offset + filled);
      if (typeof got !== 'number') return got;
      if (got === 0) {
        bytes.fill(0, filled);
        return undefined;
      }
      filled += got;
    }
    return undefined;
  }

  #readSome(bytes: Buffer, from: number, offset: number): Promise<number | Error> {
    return new Promise((resolve) => {
      read(this.#descriptor, bytes, from, bytes.length - from, offset, (error, count) =>
        resolve(error ?? count),
      );
    });
  }

  #bytes({ count }: Run): Buffer {
    return this.#buffer.subarray(0, count * this.#pageSize);
  }

  #offset(page: number): number {
    return (page - 1) * this.#pageSize;
  }
}
