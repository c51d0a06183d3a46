import type { RawDatabase } from './binding.ts';
import { openRaw } from './binding.ts';
import { databaseUri } from './database-uri.ts';

/** A table or index in the schema of a database. */
export interface SchemaObject {
  readonly name: string;
  readonly type: 'table' | 'index';
  /** The table of an index; a table's own name. */
  readonly table: string;
  readonly rootPage: number;
}

export interface ReaderOptions {
  /** Reads without locks and without -wal and -shm files; only for a file that no program changes. */
  readonly immutable?: boolean;
}

/**
 * A read-only connection that reads a database page by page.
 *
 * It cannot write: the connection is read-only, has no temp tables and runs only SELECT and reading PRAGMAs (`INSERT
 * INTO temp_table SELECT … FROM sqlite_dbpage` would take the write lock). Its lock never makes a writer of a WAL
 * database wait. It throws better-sqlite3's errors, with SQLite's codes.
 */
export class DatabaseReader {
  readonly path: string;
  readonly #database: RawDatabase;
  #selectPage: ReturnType<RawDatabase['prepare']> | undefined;

  /** @param path Absolute. The file must exist. */
  constructor(path: string, options: ReaderOptions = {}) {
    this.path = path;
    const uri = databaseUri(path, { mode: 'ro', immutable: options.immutable === true });
    this.#database = openRaw(uri, { readonly: true, fileMustExist: true, timeout: 0 });
    // Pages are copied as they are, so they must be readable even if SQLite cannot parse the schema.
    this.#database.unsafeMode(true);
    this.#database.pragma('writable_schema = ON');
  }

  /** Reads once, outside of a transaction, so that a wal-index is in use from here on. May be busy. */
  attach(): void {
    try {
      this.#number('schema_version');
    } catch (error) {
      if (!isMalformedSchema(error)) throw error;
    }
  }

  /**
   * Begins a read transaction and fixes its snapshot; returns page size and page count of that snapshot. May be busy.
   */
  begin(): { pageSize: number; pageCount: number } {
    this.#database.exec('BEGIN');
    try {
      // The first read decides the snapshot. `page_count` alone could be answered from a cached value.
      this.#database.prepare('SELECT count(*) FROM sqlite_schema').pluck().get();
    } catch (error) {
      if (!isMalformedSchema(error)) {
        this.end();
        throw error;
      }
    }
    try {
      const pageCount = this.#number('page_count');
      return { pageSize: this.#number('page_size'), pageCount };
    } catch (error) {
      this.end();
      throw error;
    }
  }

  end(): void {
    if (this.#database.inTransaction) this.#database.exec('ROLLBACK');
  }

  /** A number that changes whenever another connection commits. Only compare values of one connection. */
  dataVersion(): number {
    return this.#number('data_version');
  }

  /** The bytes of a page of the current transaction, in a new buffer. */
  readPage(page: number): Buffer {
    this.#selectPage ??= this.#database.prepare('SELECT data FROM sqlite_dbpage WHERE pgno = ?').pluck();
    const data: unknown = this.#selectPage.get(page);
    if (!(data instanceof Uint8Array)) throw new Error(`page ${page} does not exist`);
    return data as Buffer;
  }

  /** The number of tables, indexes, views and triggers in the schema. */
  schemaSize(): number {
    return this.#database.prepare('SELECT count(*) FROM sqlite_schema').pluck().get() as number;
  }

  /** The tables and indexes that have a b-tree. */
  schemaObjects(): SchemaObject[] {
    return this.#database
      .prepare(
        `SELECT name, type, tbl_name AS "table", rootpage AS rootPage FROM sqlite_schema
         WHERE type IN ('table', 'index') AND rootpage > 0`,
      )
      .all() as SchemaObject[];
  }

  /** The table or index that owns each page, for all pages that a b-tree reaches, by `dbstat`. */
  *pageOwners(): IterableIterator<{ page: number; name: string }> {
    const rows = this.#database.prepare('SELECT pageno AS page, name FROM dbstat').iterate();
    for (const row of rows) yield row as { page: number; name: string };
  }

  close(): void {
    this.#database.close();
  }

  #number(pragma: string): number {
    return this.#database.pragma(pragma, { simple: true }) as number;
  }
}

function isMalformedSchema(error: unknown): boolean {
  return (
    error instanceof Error &&
    'code' in error &&
    (error.code === 'SQLITE_ERROR' || error.code === 'SQLITE_CORRUPT')
  );
}
