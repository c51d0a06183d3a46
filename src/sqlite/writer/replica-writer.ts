import { accessSync, constants } from 'node:fs';
import type { Statement } from 'better-sqlite3';
import type { RawDatabase } from '../binding.ts';
import { openRaw } from '../binding.ts';
import { databaseUri } from '../database-uri.ts';

/** Measured: as fast as SQLite's default of 16 MB here, where every page is written once. */
const WAL_CACHE_KIB = 2000;

export interface WriterOptions {
  /** The replica's text encoding; SQLite refuses to attach a database of another encoding. */
  readonly textEncoding: 'UTF-8' | 'UTF-16le' | 'UTF-16be';
  /** For a file of 0 bytes, which has no page size yet. */
  readonly initialPageSize?: number;
  /** A WAL takes pages at any time, so no large cache has to hold them back until the commit. */
  readonly wal: boolean;
}

/**
 * The connection that changes an existing replica, page by page in one transaction.
 *
 * Each line of the constructor prevents a failure that was seen without it. As `main` instead of attached, writing page
 * 1 makes the next statement fail. Without `writable_schema` before ATTACH a corrupt schema makes the ATTACH fail, so
 * that such a replica could not be repaired. Plain `PRAGMA synchronous` does not reach an attached database.
 */
export class ReplicaWriter {
  readonly #database: RawDatabase;
  #writePage: Statement<[number, Uint8Array]> | undefined;
  #selectPage: Statement<[number]> | undefined;

  /** @param path Absolute. The file must exist. */
  constructor(path: string, options: WriterOptions) {
    // Without write permission SQLite attaches the file for reading only, and the first page fails as a plain
    // SQLITE_ERROR.
    accessSync(path, constants.W_OK);
    const database = openRaw(':memory:', { timeout: 0 });
    this.#database = database;
    try {
      database.pragma(`encoding = '${options.textEncoding}'`);
      database.unsafeMode(true);
      database.pragma('writable_schema = ON');
      database.prepare('ATTACH ? AS replica').run(databaseUri(path, { mode: 'rw' }));
      // With FULL, SQLite does not make the removal of the journal, which is the commit, durable before it cuts the
      // file: a power cut can bring the journal back without the pages that were cut off. In WAL mode EXTRA is the same
      // as FULL.
      database.pragma('replica.synchronous = EXTRA');
      if (options.wal) database.pragma(`replica.cache_size = -${WAL_CACHE_KIB}`);
      if (options.initialPageSize !== undefined) {
        database.pragma(`replica.page_size = ${options.initialPageSize}`);
      }
    } catch (error) {
      database.close();
      throw error;
    }
  }

  /** Takes the write lock ('exclusive' also locks out readers of a rollback-mode replica). May be busy. */
  begin(mode: 'immediate' | 'exclusive'): void {
    this.#database.exec(mode === 'immediate' ? 'BEGIN IMMEDIATE' : 'BEGIN EXCLUSIVE');
  }

  /**
   * Prepares the open transaction for pages up to `pageCount`. Without the change of auto_vacuum a replica in mode FULL
   * would run its own vacuum during COMMIT, and destroy the copy after it was checked.
   */
  prepareForPages(pageCount: number): void {
    this.#database.pragma('replica.auto_vacuum = incremental');
    this.#database.pragma(`replica.max_page_count = ${Math.max(pageCount, this.pageCount())}`);
  }

  pageCount(): number {
    return this.#database.pragma('replica.page_count', { simple: true }) as number;
  }

  dataVersion(): number {
    return this.#database.pragma('replica.data_version', { simple: true }) as number;
  }

  writePage(page: number, bytes: Uint8Array): void {
    this.#writePage ??= this.#database.prepare<[number, Uint8Array]>(
      "INSERT INTO sqlite_dbpage (pgno, data, schema) VALUES (?, ?, 'replica')",
    );
    this.#writePage.run(page, bytes);
  }

  /** Cuts the database after `pageCount` pages. Must follow all pages: a later page write cancels it silently. */
  truncateTo(pageCount: number): void {
    this.#database
      .prepare("INSERT INTO sqlite_dbpage (pgno, data, schema) VALUES (?, NULL, 'replica')")
      .run(pageCount + 1);
  }

  /**
   * Sets the schema cookie. It must change after all pages: at the first statement after its change SQLite reloads the
   * schema, with page 1 of the new state and page count, encoding and reserved bytes of the old one, and would find it
   * corrupt.
   */
  setSchemaCookie(cookie: number): void {
    // The pragma takes a signed number.
    this.#database.pragma(`replica.schema_version = ${cookie | 0}`);
  }

  readPage(page: number): Buffer {
    this.#selectPage ??= this.#database
      .prepare<[number]>("SELECT data FROM sqlite_dbpage('replica') WHERE pgno = ?")
      .pluck();
    const data: unknown = this.#selectPage.get(page);
    if (!(data instanceof Uint8Array)) throw new Error(`page ${page} does not exist`);
    return data as Buffer;
  }

  /** May be busy; the transaction then stays open, to be committed again or rolled back. */
  commit(): void {
    this.#database.exec('COMMIT');
  }

  /**
   * While locks are kept, the end of a transaction releases none: the next one begins with the same locks. Does nothing
   * in WAL mode (into which a -wal left beside a rollback-mode file puts SQLite): readers keep a lock between
   * transactions there, so an exclusive lock would wait for our own reader.
   */
  keepLocks(areKept: boolean): void {
    if (this.#database.pragma('replica.journal_mode', { simple: true }) === 'wal') return;
    this.#database.pragma(`replica.locking_mode = ${areKept ? 'EXCLUSIVE' : 'NORMAL'}`);
  }

  rollback(): void {
    if (this.#database.inTransaction) this.#database.exec('ROLLBACK');
  }

  /** Moves what it can from the WAL into the file, without waiting. Does nothing in rollback mode. */
  checkpoint(): void {
    this.#database.pragma('replica.wal_checkpoint(PASSIVE)');
  }

  close(): void {
    this.#database.close();
  }
}
