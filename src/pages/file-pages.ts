import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { getSystemErrorName } from 'node:util';
import type { Reader } from '../../protocol/messages.ts';
import { SqlsyncError } from '../errors.ts';
import { loadBinding } from '../sqlite/binding.ts';
import { StampTaker } from './database-stamp.ts';
import type { PageNumber, PageSize } from './page-types.ts';
import { lockBytePage } from './page-types.ts';
import { readWalPages } from './wal-pages.ts';
import { ownDescriptors } from '../files/descriptors.ts';
import { readFully } from '../files/read-fully.ts';

/** The most bytes of pages that one read takes. */
export const RUN_BYTES: number = 1024 * 1024;

export type ReadPage = (page: PageNumber) => Uint8Array;

/**
 * How to read the pages of a database. 'file' reads every page without a frame in the WAL straight from the file, in
 * large reads. 'dbpage' asks SQLite for each page; tests compare 'file' with it.
 */
export type PageReader = Reader;

/** The pages that have a frame in the WAL, one bit each; see `readWalPages`. */
interface WalPages {
  readonly bits: Uint8Array | undefined;
}

/**
 * Reads the pages of one snapshot, most of them without SQLite.
 *
 * Under a read transaction, the file holds every page that has no frame in the WAL, and those bytes cannot change: a
 * checkpoint never copies a frame beyond the mark of a reader, and a rollback-mode writer cannot commit beside its
 * SHARED lock. SQLite reads the pages that have a frame. If a page has no frame and the file is too short for it,
 * another program than SQLite cut the file off; SQLite would read zeros.
 *
 *     new FilePages ──► connection opened ──► snapshot begins ──► use ──► connection closed ──► close
 *
 * The descriptor must live longer than every connection of this process to the database: closing any descriptor of a
 * file drops all POSIX locks that the process holds on it.
 */
export class FilePages {
  /** Takes the stamp of the first snapshot. */
  readonly stamp: StampTaker;
  readonly #path: string;
  readonly #descriptor: number;
  #pageSize: PageSize = 512 as PageSize;
  #pageCount = 0;
  #locked = 0 as PageNumber;
  /** Read with the first page. */
  #walPages: WalPages | undefined;
  /** True if SQLite may have another file open than we do, so that only SQLite may read. */
  #unsure = false;
  #readPage: ReadPage = () => new Uint8Array(0);
  #readAbsent: ReadPage = this.#readPage;
  #buffer: Uint8Array = new Uint8Array(0);

  /** @param stampMinAgeMs See `StampTaker`. */
  constructor(path: string, stampMinAgeMs?: number) {
    this.#path = path;
    this.#descriptor = openSync(path, 'r');
    this.stamp = new StampTaker(path, this.#descriptor, stampMinAgeMs);
  }

  /**
   * Call it when a snapshot has begun, and again for each later snapshot of the same connection. `readPage` asks SQLite
   * for a page of that snapshot; `readAbsent` gets the pages that neither the file nor the WAL holds. Returns false if
   * another file took the name between our opening and SQLite's: then read nothing.
   */
  begin(pageSize: PageSize, pageCount: number, readPage: ReadPage, readAbsent: ReadPage = readPage): boolean {
    this.#pageSize = pageSize;
    this.#locked = lockBytePage(pageSize);
    this.#readPage = readPage;
    this.#readAbsent = readAbsent;
    this.#pageCount = pageCount;
    this.#walPages = undefined;
    return this.#isSameFile();
  }

  /** Reads `count` consecutive pages, at most `RUN_BYTES` or one page. The bytes are valid until the next call. */
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

  /** See `PageSource.cloneTo`. */
  cloneTo(descriptor: number): void {
    const error = loadBinding().native.cloneFile(descriptor, this.#descriptor);
    if (error === 0) return;
    const code = getSystemErrorName(-error);
    const isFull = code === 'ENOSPC' || code === 'EDQUOT';
    if (isFull) throw Object.assign(new Error(`${code}: no room for a reflink`), { code });
    throw new SqlsyncError(
      'USAGE',
      `--reflink: no file can share the blocks of ${this.#path} there (${code})`,
      {
        hint: 'Both files must be on one file system that has reflinks, such as btrfs or XFS. Leave --reflink out to copy the blocks.',
      },
    );
  }

  close(): void {
    this.stamp.close();
    closeSync(this.#descriptor);
  }

  /** Reads what the file holds of this run; returns the number of bytes. */
  #readFile(run: Uint8Array, first: PageNumber): number {
    return readFully(this.#descriptor, run, (first - 1) * this.#pageSize);
  }

  #isInWal(page: number): boolean {
    if (this.#unsure) return true;
    const { bits } = this.#inWal();
    return bits !== undefined && ((bits[page >>> 3] ?? 0) & (1 << (page & 7))) !== 0;
  }

  #hasOnlyWalPages(first: number, count: number): boolean {
    if (this.#unsure) return true;
    if (this.#inWal().bits === undefined) return false;
    for (let page = first; page < first + count; page++) if (!this.#isInWal(page)) return false;
    return true;
  }

  /** Reading a long WAL takes a while, so this waits until somebody asks for a page. */
  #inWal(): WalPages {
    return (this.#walPages ??= { bits: readWalPages(this.#path, this.#pageSize, this.#pageCount) });
  }

  /**
   * The root hash cannot notice that we read another file than SQLite. So one of SQLite's descriptors, which Linux
   * lists, must be open on the same file as ours. Without /proc, SQLite reads every page.
   */
  #isSameFile(): boolean {
    if (process.platform !== 'linux') return true;
    const own = fstatSync(this.#descriptor);
    const descriptors = ownDescriptors();
    this.#unsure = descriptors === undefined;
    if (descriptors === undefined) return true;
    return descriptors.some((path) => {
      if (Number(basename(path)) === this.#descriptor) return false;
      const other = statSync(path, { throwIfNoEntry: false });
      return other?.dev === own.dev && other.ino === own.ino;
    });
  }
}
