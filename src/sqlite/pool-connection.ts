import assert from 'node:assert/strict';
import BetterSqlite3 from 'better-sqlite3';
import type { Statement } from 'better-sqlite3';
import { SqlsyncError } from '../errors.ts';
import type { RawDatabase } from './binding.ts';
import { openRaw } from './binding.ts';
import { databaseUri } from './database-uri.ts';

/** A connection of a pool. The pools know no other type of better-sqlite3, except its statements. */
export type PoolConnection = RawDatabase;
export type PoolStatement = Statement;

export interface WriteConnectionOptions {
  /** True to create a file that does not exist. */
  readonly create: boolean;
  readonly safeIntegers: boolean;
  /** The size to which SQLite cuts the WAL file when it restarts it, in bytes. */
  readonly journalSizeLimitBytes: number;
}

/**
 * Opens the connection that writes: WAL, synchronous NORMAL, foreign keys on. It never waits for a lock: a refused
 * caller tries again without blocking the event loop. Opening itself may be busy while another program changes the
 * journal mode or recovers the WAL; other errors are DATABASE_UNUSABLE.
 * @param path Absolute.
 */
export function openWriteConnection(path: string, options: WriteConnectionOptions): PoolConnection {
  const uri = databaseUri(path, { mode: options.create ? 'rwc' : 'rw' });
  const connection = openRaw(uri, { timeout: 0, fileMustExist: !options.create });
  try {
    connection.defaultSafeIntegers(options.safeIntegers);
    const mode = connection.pragma('journal_mode = WAL', { simple: true });
    if (mode !== 'wal') {
      throw new SqlsyncError(
        'DATABASE_UNUSABLE',
        `${path}: SQLite keeps journal mode "${String(mode)}" where the pools need "wal".`,
        { hint: 'The file system may lack shared memory (a network file system): use a local one.' },
      );
    }
    // NORMAL: a crash of the machine may lose the last commits, but never the database. It is the usual choice for WAL.
    connection.pragma('synchronous = NORMAL');
    connection.pragma('foreign_keys = ON');
    connection.pragma(`journal_size_limit = ${options.journalSizeLimitBytes}`);
    // The first read opens the WAL. A connection that never opened it would leave the readers' WAL behind when it
    // closes.
    connection.pragma('schema_version');
    return connection;
  } catch (error) {
    connection.close();
    throw error;
  }
}

/**
 * Opens a connection that cannot write: SQLite opens the file for reading only, and `query_only` refuses what a
 * read-only connection could still do to temp tables. In WAL mode it is busy only while another process recovers the
 * WAL; `timeoutMs` is how long that may block the event loop.
 * @param path Absolute. The file must exist.
 */
export function openReadConnection(
  path: string,
  options: { readonly safeIntegers: boolean; readonly timeoutMs: number },
): PoolConnection {
  const uri = databaseUri(path, { mode: 'ro' });
  const connection = openRaw(uri, { readonly: true, fileMustExist: true, timeout: options.timeoutMs });
  try {
    connection.defaultSafeIntegers(options.safeIntegers);
    connection.pragma('query_only = ON');
    return connection;
  } catch (error) {
    connection.close();
    throw error;
  }
}

/** An error as SQLite's own: better-sqlite3's, with the code of a constraint. */
export function constraintError(message: string, code: `SQLITE_CONSTRAINT_${string}`): Error {
  return new BetterSqlite3.SqliteError(message, code);
}

/**
 * The file that a connection has open, as SQLite names it. Its -wal and -shm lie beside this name, not beside a
 * symbolic link that led there.
 */
export function filePathOf(connection: PoolConnection): string {
  const databases = connection.pragma('database_list') as { readonly name: string; readonly file: string }[];
  const main = databases.find(({ name }) => name === 'main');
  assert(main !== undefined && main.file !== '', 'a database without a file');
  return main.file;
}
