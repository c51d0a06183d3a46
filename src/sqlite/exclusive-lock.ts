import { readdirSync, rmSync, statSync } from 'node:fs';
import type { RawDatabase } from './binding.ts';
import { openRaw } from './binding.ts';
import { isBusy, retryBusy } from './busy.ts';
import type { RetryOptions } from './busy.ts';
import { databaseUri } from './database-uri.ts';

/** A lock between processes that dies with its holder: a small database held by BEGIN EXCLUSIVE. */
export interface ExclusiveLock {
  release(): void;
}

/** Takes the lock at `path` (absolute), or returns undefined where another process has it. */
export function tryExclusiveLock(path: string): ExclusiveLock | undefined {
  for (;;) {
    const database = openRaw(databaseUri(path, { mode: 'rwc' }), { timeout: 0 });
    try {
      // Without a journal file there is none of our successor's that we could delete.
      database.pragma('journal_mode = MEMORY');
      database.exec('BEGIN EXCLUSIVE');
      // The holder before us deletes the file as it leaves. Whoever waited then has a lock on a file without a
      // name, which guards nothing: take the one that has the name.
      const named = isOpenByName(path);
      if (named !== false) return { release: () => release(database, path, named) };
      database.close();
    } catch (error) {
      database.close();
      if (isBusy(error)) return undefined;
      throw error;
    }
  }
}

/** The same, after a wait for the process that has it. Throws SqlsyncError BUSY, naming `what` is locked. */
export function waitExclusiveLock(path: string, what: string, options: RetryOptions): Promise<ExclusiveLock> {
  return retryBusy(
    what,
    () => {
      const lock = tryExclusiveLock(path);
      if (lock === undefined) throw Object.assign(new Error(`${path} is locked`), { code: 'SQLITE_BUSY' });
      return lock;
    },
    options,
  );
}

/**
 * True where a descriptor of this process is of the file that has the name `path` now; the name alone does not tell
 * which file SQLite has opened. 'unknown' where the system does not list descriptors.
 */
function isOpenByName(path: string): boolean | 'unknown' {
  const descriptors = ownDescriptors();
  if (descriptors === undefined) return 'unknown';
  const named = statSync(path, { throwIfNoEntry: false });
  if (named === undefined) return false;
  return descriptors.some((descriptor) => {
    const open = statSync(descriptor, { throwIfNoEntry: false });
    return open?.dev === named.dev && open.ino === named.ino;
  });
}

function ownDescriptors(): string[] | undefined {
  if (process.platform !== 'linux') return undefined;
  try {
    return readdirSync('/proc/self/fd').map((name) => `/proc/self/fd/${name}`);
  } catch {
    return undefined;
  }
}

/** Where nobody could tell a file that lost its name, the file keeps it. */
function release(database: RawDatabase, path: string, named: true | 'unknown'): void {
  try {
    if (named === true) rmSync(path, { force: true });
  } finally {
    database.close();
  }
}
