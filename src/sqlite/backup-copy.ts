import { setTimeout as delay } from 'node:timers/promises';
import { SqlsyncError } from '../errors.ts';
import type { RawDatabase } from './binding.ts';
import { openRaw } from './binding.ts';
import { isBusy } from './busy.ts';
import { DatabaseReader } from './database-reader.ts';
import { databaseUri } from './database-uri.ts';

/** Pages in one step of the backup: all, so that the target is locked once and for as short as can be. */
const ALL_PAGES = 0x7fffffff;

/** Between two attempts on a target that others have locked, in milliseconds. */
const RETRY_DELAY_MS = 25;

/** What only the target of a committed backup shows. */
type Proof = (target: DatabaseReader, shape: { pageSize: number; pageCount: number }) => boolean;

/**
 * Is called under the exclusive lock on the target, before its first page is written. What it throws ends the backup.
 */
type OnLocked = () => void;

/**
 * Replaces the whole content of `target`, which has another page size, by that of `source` with SQLite's backup API, in
 * one transaction. The target is in rollback mode (a WAL has one page size); readers that have it open survive and see
 * the new schema. Throws SqlsyncError BUSY after `timeoutMs`; the target is then as it was. Both paths are absolute.
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

/** Makes `target` an empty database of one page, in one transaction, keeping its page size. */
export async function emptyByBackup(
  target: string,
  pageSize: number,
  options: { readonly timeoutMs: number; readonly onLocked: OnLocked },
): Promise<void> {
  const database = openRaw(':memory:');
  database.pragma(`page_size = ${pageSize}`);
  // Makes the one page: a source without any is copied in the step that takes the lock.
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
    // A plain path and not a URI: better-sqlite3 takes a name that it cannot stat for a file that it made itself,
    // and removes it when the backup fails. It also trims the name, so such a name would be another file.
    if (target !== target.trim()) {
      throw new SqlsyncError('USAGE', `The replica's name ends with white space: ${JSON.stringify(target)}`, {
        hint: 'This kind of copy cannot address such a file: rename the replica.',
      });
    }
    for (;;) {
      // better-sqlite3 begins with a step of no pages, which takes the lock.
      const progress = (): number => {
        onLocked();
        return ALL_PAGES;
      };
      await database.backup(target, { progress });
      // better-sqlite3 tells a step that was refused as busy from one that is done by the pages that remain: none
      // remain before the first step, nor where only the commit was refused. So what is there now has to tell.
      if (isCopied(target, proof)) return;
      if (performance.now() >= deadline) {
        throw new SqlsyncError('BUSY', `${target}: still locked by another program after ${timeoutMs} ms`, {
          hint: 'Nothing was changed. Run it again when the other program is done, or allow more time with --busy-timeout.',
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
 * Puts a database in WAL mode into rollback mode, unless it changes meanwhile: false if `isUnchanged` says so, or where
 * the schema cookie, which every commit of a sync moves, is another one afterwards. Throws as busy where others have it
 * open.
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

/** Switches the journal mode of a database. Throws as busy where others have it open. */
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
