import { SqlsyncError } from '../errors.ts';
import { DatabaseReader } from '../sqlite/database-reader.ts';
import { retryLocked } from '../sqlite/locks/holder-watch.ts';
import { beginStamped } from './database-stamp.ts';
import type { StampTaker } from './database-stamp.ts';
import { FilePages } from './file-pages.ts';
import type { PageReader, ReadPage } from './file-pages.ts';
import type { PageSource } from './page-source.ts';
import type { PageCount, PageNumber, PageSize } from './page-types.ts';
import { lockBytePage, pageCount, pageSize } from './page-types.ts';
import type { WalIndex } from './wal-index.ts';
import type { WalLook } from './wal-changes.ts';

export interface ReadOptions {
  /** How pages are read; default 'file'. */
  readonly reader?: PageReader | undefined;
  /** How long to wait for locks that other programs hold, in milliseconds. */
  readonly busyTimeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** See `StampTaker`. */
  readonly stampMinAgeMs?: number | undefined;
}

/** The database that a transaction reads, as its owner knows it. */
export interface ReadDatabase {
  /** Absolute. The file must exist. */
  readonly path: string;
  /** The database in messages, such as 'Origin /srv/app.db'. */
  readonly name: string;
  /** Reads without locks and without -wal and -shm files. */
  readonly immutable?: boolean;
  /** Runs a read; turns what it throws into an error for the user. */
  readonly guard: <T>(read: () => T) => T;
  /** The error if another file took the path. */
  readonly replaced: () => Error;
  /** Takes a page that neither the file nor the WAL holds; by default SQLite reads it. */
  readonly absent?: ReadPage;
}

/**
 * One state of a database, held by a read transaction on a read-only connection, with most pages read straight from the
 * file.
 *
 *     open ──► read … ──► begin (a newer state) ──► read … ──► end ──► close ──► closeFile
 */
export class ReadTransaction implements PageSource {
  readonly reader: DatabaseReader;
  /** When the transaction began, by `performance.now()`. */
  beganAtMs = 0;
  /** Equal for two transactions of this connection if no other connection committed between them. */
  dataVersion = 0;
  /**
   * The stamp of the first state: another state of this database with the same stamp has the same content. Undefined if
   * nothing can prove that, and for every later state.
   */
  stamp: Uint8Array | undefined;
  #pageSize: PageSize = pageSize(512) as PageSize;
  #pageCount: PageCount = pageCount(0);
  readonly #database: ReadDatabase;
  readonly #options: ReadOptions;
  readonly #files: FilePages | undefined;
  #isFirst = true;
  #isClosed = false;
  #isFileClosed = false;

  /** Throws SqlsyncError BUSY, what `replaced` returns, and the errors of the system and of SQLite. */
  static async open(database: ReadDatabase, options: ReadOptions): Promise<ReadTransaction> {
    // The descriptor comes before the connection: closing it drops the locks of all connections of this process.
    const files =
      options.reader === 'dbpage' ? undefined : new FilePages(database.path, options.stampMinAgeMs);
    let transaction: ReadTransaction | undefined;
    try {
      transaction = new ReadTransaction(database, options, files);
      const taker = database.immutable === true ? undefined : files?.stamp;
      await taker?.settle();
      await transaction.#begin(taker);
      transaction.stamp = taker?.take();
      return transaction;
    } catch (error) {
      transaction?.close();
      files?.close();
      throw error;
    }
  }

  private constructor(database: ReadDatabase, options: ReadOptions, files: FilePages | undefined) {
    this.#database = database;
    this.#options = options;
    this.#files = files;
    this.reader = new DatabaseReader(database.path, { immutable: database.immutable === true });
  }

  get pageSize(): PageSize {
    return this.#pageSize;
  }

  get pageCount(): PageCount {
    return this.#pageCount;
  }

  /** What `changedSince` of a later transaction needs of the first state; undefined if nothing can prove that then. */
  get look(): WalLook | undefined {
    return this.#isFirst ? this.#files?.stamp.look : undefined;
  }

  /** See `StampTaker`; of the first state. */
  get walHeader(): Buffer | undefined {
    return this.#files?.stamp.walHeader;
  }

  get walIndex(): WalIndex | undefined {
    return this.#files?.stamp.walIndex;
  }

  get isUntouched(): boolean {
    return this.#files?.stamp.isUntouched === true;
  }

  /** As `StampTaker.changedSince`, for the first state. */
  changedSince(look: WalLook): number[] | undefined {
    return this.#isFirst ? this.#files?.stamp.changedSince(look, this) : undefined;
  }

  /** Begins a transaction on the newest state, after `end`. Throws as `open` does. */
  begin(): Promise<void> {
    this.stamp = undefined;
    this.#isFirst = false;
    return this.#begin(undefined);
  }

  async #begin(taker: StampTaker | undefined): Promise<void> {
    const { name } = this.#database;
    const { busyTimeoutMs: timeoutMs, signal } = this.#options;
    const shape = await retryLocked(this.reader.path, name, () => beginStamped(this.reader, taker), {
      timeoutMs,
      signal,
    });
    this.beganAtMs = performance.now();
    this.dataVersion = this.reader.dataVersion();
    this.#pageSize = pageSize(shape.pageSize) as PageSize;
    this.#pageCount = pageCount(shape.pageCount);
    const read = (page: PageNumber): Uint8Array => this.#readByDbpage(page);
    const absent = this.#database.absent ?? read;
    if (this.#files?.begin(this.#pageSize, this.#pageCount, read, absent) === false) {
      throw this.#database.replaced();
    }
  }

  readPage(page: PageNumber): Uint8Array {
    const bytes = new Uint8Array(this.#pageSize);
    this.readInto(page, bytes);
    return bytes;
  }

  readPages(first: PageNumber, count: number): Uint8Array {
    const files = this.#files;
    if (files !== undefined) return this.#database.guard(() => files.readPages(first, count));
    const run = new Uint8Array(count * this.#pageSize);
    this.readInto(first, run);
    return run;
  }

  readInto(first: PageNumber, into: Uint8Array): void {
    this.#database.guard(() => {
      if (this.#files !== undefined) return this.#files.readInto(first, into);
      for (let at = 0; at < into.length; at += this.#pageSize) {
        into.set(this.#readByDbpage((first + at / this.#pageSize) as PageNumber), at);
      }
    });
  }

  /** See `PageSource.cloneTo`. */
  cloneTo(descriptor: number): void {
    const files = this.#files;
    if (files === undefined)
      throw new SqlsyncError('USAGE', '--reflink and --reader dbpage exclude each other');
    files.cloneTo(descriptor);
  }

  /** Ends the transaction; nothing can be read until `begin`. */
  end(): void {
    this.reader.end();
  }

  /** Closes the connection. Call `closeFile` later, when no other connection of this process is open. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.reader.close();
  }

  /** Closes our own descriptor of the file, which drops every lock that this process still holds on it. */
  closeFile(): void {
    if (this.#isFileClosed) return;
    this.#isFileClosed = true;
    this.#files?.close();
  }

  #readByDbpage(page: PageNumber): Uint8Array {
    if (page === lockBytePage(this.#pageSize)) return new Uint8Array(this.#pageSize);
    return this.reader.readPage(page);
  }
}
