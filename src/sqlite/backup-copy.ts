import { SqlsyncError } from '../errors.ts';
import type { RawDatabase } from './binding.ts';
import { openRaw } from './binding.ts';
import { databaseUri } from './database-uri.ts';

/** Pages in one step of the backup: all, so that the target is locked once and for as short as can be. */
const ALL_PAGES = 0x7fffffff;

/**
 * Replaces the whole content of `target` by that of `source` with SQLite's backup API, in one transaction. It may
 * change the page size of a target in rollback mode; readers that have it open survive and see the new schema.
 * Throws SqlsyncError BUSY after `timeoutMs`; the target is then as it was. Both paths are absolute.
 */
export async function copyByBackup(source: string, target: string, timeoutMs: number): Promise<void> {
  const uri = databaseUri(source, { mode: 'ro', immutable: true });
  const database = openRaw(uri, { readonly: true, fileMustExist: true });
  await backup(database, target, timeoutMs);
}

/** Makes `target` an empty database of one page, in one transaction, keeping its page size. */
export async function emptyByBackup(target: string, pageSize: number, timeoutMs: number): Promise<void> {
  const database = openRaw(':memory:');
  database.pragma(`page_size = ${pageSize}`);
  await backup(database, target, timeoutMs);
}

async function backup(database: RawDatabase, target: string, timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  try {
    // A plain path and not a URI: better-sqlite3 takes a name that it cannot stat for a file that it made itself,
    // and removes it when the backup fails. It also trims the name, so such a name would be another file.
    if (target !== target.trim()) {
      throw new SqlsyncError('USAGE', `The replica's name ends with white space: ${JSON.stringify(target)}`, {
        hint: 'This kind of copy cannot address such a file: rename the replica.',
      });
    }
    await database.backup(target, {
      // A step that was refused as busy is simply taken again by better-sqlite3, for ever.
      progress() {
        if (performance.now() < deadline) return ALL_PAGES;
        throw new SqlsyncError('BUSY', `${target}: still locked by another program after ${timeoutMs} ms`, {
          hint: 'Run it again when the other program is done, or allow more time with --busy-timeout.',
        });
      },
    });
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
