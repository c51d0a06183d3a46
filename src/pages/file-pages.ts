import { closeSync, fstatSync, openSync, readdirSync, statSync } from 'node:fs';
import type { Reader } from '../../protocol/messages.ts';
import type { PageNumber, PageSize } from './page-types.ts';
import { lockBytePage } from './page-types.ts';
import { readWalPages } from './wal-pages.ts';
import { readFully } from '../files/read-fully.ts';

/** Pages that are read at once. */
export const RUN_BYTES: number = 1024 * 1024;

export type ReadPage = (page: PageNumber) => Uint8Array;

/**
 * How the pages of a database are read: 'file' takes every page that has no frame in the WAL straight from the file, in
 * large reads; 'dbpage' asks SQLite for each page, and is the reference that the other one is tested against.
 */
export type PageReader = Reader;

/**
 * Reads the pages of one snapshot, most of them past SQLite.
 *
 * Under a read transaction, a page that has no frame in the WAL is in the file, and its bytes there cannot change: a
 * checkpoint never copies a frame beyond the mark of a reader, and a rollback-mode writer cannot commit beside its
 * SHARED lock. Pages with a frame are read by SQLite. One without, for which the file is too short, was cut off by somebody
 * else than SQLite, which would read it as zeros.
 *
 *     new FilePages ──► connection opened ──► snapshot begins ──► use ──► connection closed ──► close
 *
 * The descriptor must live longer than every connection of this process to the database: closing any descriptor of a
 * file drops all POSIX locks that the process has on it.
 */
export class FilePages {
  readonly #path: string;
  readonly #descriptor: number;
  #pageSize: PageSize = 512 as PageSize;
  #locked = 0 as PageNumber;
  #walPages: Uint8Array | undefined;
  /** True where the file that SQLite has open may be another one, so that only SQLite may read. */
  #unsure = false;
  #readPage: ReadPage = () => new Uint8Array(0);
  #readAbsent: ReadPage = this.#readPage;
  #buffer: Uint8Array = new Uint8Array(0);

  constructor(path: string) {
    this.#path = path;
    this.#descriptor = openSync(path, 'r');
  }

  /**
   * To be called when a snapshot has begun, and again for each later one of the same connection. `readPage` asks
   * SQLite for a page of that snapshot, `readAbsent` is asked for a page that is nowhere. False where the name was given to another file between our opening and
   * SQLite's, so that nothing may be read.
   */
  begin(pageSize: PageSize, pageCount: number, readPage: ReadPage, readAbsent: ReadPage = readPage): boolean {
    this.#pageSize = pageSize;
    this.#locked = lockBytePage(pageSize);
    this.#readPage = readPage;
    this.#readAbsent = readAbsent;
    this.#walPages = readWalPages(this.#path, pageSize, pageCount);
    return this.#isSameFile();
  }

  /** `count` consecutive pages, at most `RUN_BYTES` or one page; the bytes are valid until the next call. */
  readPages(first: PageNumber, count: number): Uint8Array {
    const length = count * this.#pageSize;
    if (this.#buffer.length < length) this.#buffer = new Uint8Array(Math.max(length, RUN_BYTES));
    const run = this.#buffer.subarray(0, length);
    this.readInto(first, run);
    return run;
  }

  /** Fills `run` with consecutive pages. */
  readInto(first: PageNumber, run: Uint8Array): void {
    const size = this.#pageSize;
    const count = run.length / size;
    const wholePages = this.#hasOnlyWalPages(first, count)
      ? 0
      : Math.floor(this.#readFile(run, first) / size);
    for (let i = 0; i < count; i++) {
      const page = (first + i) as PageNumber;
      if (page === this.#locked) run.fill(0, i * size, (i + 1) * size);
      else if (this.#isInWal(page)) run.set(this.#readPage(page), i * size);
      else if (i >= wholePages) run.set(this.#readAbsent(page), i * size);
    }
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  /** Bytes that the file has for this run. */
  #readFile(run: Uint8Array, first: PageNumber): number {
    return readFully(this.#descriptor, run, (first - 1) * this.#pageSize);
  }

  #isInWal(page: number): boolean {
    if (this.#unsure) return true;
    return this.#walPages !== undefined && ((this.#walPages[page >>> 3] ?? 0) & (1 << (page & 7))) !== 0;
  }

  #hasOnlyWalPages(first: number, count: number): boolean {
    if (this.#unsure) return true;
    if (this.#walPages === undefined) return false;
    for (let page = first; page < first + count; page++) if (!this.#isInWal(page)) return false;
    return true;
  }

  /**
   * The root hash could not notice that we read another file than SQLite: one of its descriptors, which Linux lists,
   * must be of the file that ours is of. Where they are not listed (no /proc), SQLite reads every page.
   */
  #isSameFile(): boolean {
    if (process.platform !== 'linux') return true;
    const own = fstatSync(this.#descriptor);
    const descriptors = ownDescriptors();
    this.#unsure = descriptors === undefined;
    if (descriptors === undefined) return true;
    return descriptors.some((name) => {
      if (Number(name) === this.#descriptor) return false;
      const other = statSync(`/proc/self/fd/${name}`, { throwIfNoEntry: false });
      return other?.dev === own.dev && other.ino === own.ino;
    });
  }
}

function ownDescriptors(): string[] | undefined {
  try {
    return readdirSync('/proc/self/fd');
  } catch {
    return undefined;
  }
}
