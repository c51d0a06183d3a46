import { setTimeout as delay } from 'node:timers/promises';
import { SqlsyncError } from '../errors.ts';
import type { RawDatabase } from './binding.ts';
import { openRaw } from './binding.ts';
import { isBusy } from './busy.ts';
import { DatabaseReader } from './database-reader.ts';
import { databaseUri } from './database-uri.ts';

/** Pages in one step of the backup: all of them, so that the target is locked once and briefly. */
const ALL_PAGES = 0x7fffffff;

/** The pause between two attempts on a target that other programs have locked, in milliseconds. */
const RETRY_DELAY_MS = 25;

/** A test for what only the target of a committed backup shows. */
type Proof = (target: DatabaseReader, shape: { pageSize: number; pageCount: number }) => boolean;

/**
 * Runs under the exclusive lock on the target, before its first page is written. An error that it throws ends the
 * backup.
 */
type OnLocked = () => void;

/**
 * Replaces the whole content of `target`, which has another page size, by that of `source` with SQLite's backup API, in
 * one transaction. The target is in rollback mode, because a WAL has one page size. Readers that have it open survive,
 * and see the new schema. Throws SqlsyncError BUSY after `timeoutMs`; the target is then unchanged. Both paths are
 * absolute.
 */
export async function copyByBackup(
  source: string,
  target: string,
  options: { readonly timeoutMs: number; readonly onLocked: OnLocked },
): Promise<void> {
  const uri = databaseUri(source, { mode: 'ro', immutable: true });
  const database = openRaw(uri, { readonly: true, fileMustExist: true });
  const copied = database.pragma('page_size', { simple: true });
  await backup(database, target, { ...options, proof: (_, { pageSize }) => pageSize === copied });
}

/** Makes `target` an empty database of one page, in one transaction. Keeps its page size. */
export async function emptyByBackup(
  target: string,
  pageSize: number,
  options: { readonly timeoutMs: number; readonly onLocked: OnLocked },
): Promise<void> {
  const database = openRaw(':memory:');
  database.pragma(`page_size = ${pageSize}`);
  // Makes the one page: SQLite copies a source without pages in the same step that takes the lock.
  database.pragma('user_version = 1');
  database.pragma('user_version = 0');
  const proof: Proof = (reader, { pageCount }) => pageCount <= 1 && reader.schemaSize() === 0;
  await backup(database, target, { ...options, proof });
}

async function backup(
  database: RawDatabase,
  target: string,
  { timeoutMs, onLocked, proof }: { timeoutMs: number; onLocked: OnLocked; proof: Proof },
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  try {
    // A plain path and not a URI: better-sqlite3 assumes that it made a file whose name it cannot stat, and removes it
    // when the backup fails. It also trims the name, which would then be another file.
    if (target !== target.trim()) {
      throw new SqlsyncError('USAGE', `The replica's name ends with white space: ${JSON.stringify(target)}`, {
        hint: 'Rename the replica: the backup API of SQLite cannot open a file of such a name.',
      });
    }
    for (;;) {
      // better-sqlite3 begins with a step of zero pages, which takes the lock.
      const progress = (): number => {
        onLocked();
        return ALL_PAGES;
      };
      await database.backup(target, { progress });
      // better-sqlite3 tells a step that was busy from a finished one by the remaining pages. None remain before the
      // first step, nor after a refused commit. So the content of the target has to show it.
      if (isCopied(target, proof)) return;
      if (performance.now() >= deadline) {
        throw new SqlsyncError('BUSY', `${target}: still locked by another program after ${timeoutMs} ms`, {
          hint: 'Nothing was changed. Run sqlsync again when the other program is done, or allow more time with --busy-timeout.',
        });
      }
      await delay(RETRY_DELAY_MS);
    }
  } finally {
    database.close();
  }
}

function isCopied(target: string, proof: Proof): boolean {
  const reader = new DatabaseReader(target);
  try {
    return proof(reader, reader.begin());
  } catch (error) {
    if (isBusy(error)) return false;
    throw error;
  } finally {
    reader.close();
  }
}

/**
 * Puts a database in WAL mode into rollback mode, unless it changes meanwhile. Returns false if `isUnchanged` says so,
 * or if the schema cookie, which every commit of a sync moves, differs afterwards. Throws a busy error if other
 * programs have it open.
 */
export function leaveWal(path: string, isUnchanged: () => boolean): boolean {
  const database = openRaw(databaseUri(path, { mode: 'rw' }), { timeout: 0 });
  try {
    database.unsafeMode(true);
    database.pragma('writable_schema = ON');
    const cookie = database.pragma('schema_version', { simple: true });
    if (!isUnchanged()) return false;
    database.pragma('journal_mode = delete');
    return database.pragma('schema_version', { simple: true }) === cookie;
  } finally {
    database.close();
  }
}

/** Switches the journal mode of a database. Throws a busy error if other programs have it open. */
export function switchJournalMode(path: string, mode: 'wal' | 'delete'): void {
  const database = openRaw(databaseUri(path, { mode: 'rw' }), { timeout: 0 });
  try {
    database.unsafeMode(true);
    database.pragma('writable_schema = ON');
    database.pragma(`journal_mode = ${mode}`);
  } finally {
    database.close();
  }
}
