import { accessSync, constants, rmSync } from 'node:fs';
import { systemErrorCode } from '../../errors.ts';
import { checkPath } from '../../files/path-names.ts';
import type { RawDatabase } from '../binding.ts';
import { openRaw } from '../binding.ts';
import { isBusy, retryBusy } from '../busy.ts';
import type { RetryOptions } from '../busy.ts';
import { databaseUri } from '../database-uri.ts';
import { LockFileError, cannotLock, isOpenByName, lockFileOwner } from './lock-file.ts';
import { lockFileState, removeForeignLockFile } from './lock-file.ts';

/** A lock between processes that dies with its holder: a database of 0 bytes held by BEGIN EXCLUSIVE. */
export interface ExclusiveLock {
  release(): void;
}

/**
 * Each attempt means that another process came or went between two looks at the name; a program that fills the file
 * would never end.
 */
const MAX_ATTEMPTS = 1000;

/**
 * Takes the lock at `path` (absolute); undefined if another process holds it. Replaces a file with content. Throws
 * LockFileError if the file cannot be locked for writing: SQLite silently opens such a file read-only, and its lock
 * then keeps no process out. Throws USAGE for a path that would open another file.
 */
export function tryExclusiveLock(path: string): ExclusiveLock | undefined {
  checkPath(path);
  for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
    const lock = tryOnce(path);
    if (lock !== 'foreign' && lock !== 'moved') return lock;
    if (lock === 'foreign' && !replaceForeign(path)) return undefined;
  }
  throw cannotLock(path, new Error('another program writes to it or replaces it again and again'));
}

/** As `tryExclusiveLock`, after waiting for the holder. Throws SqlsyncError BUSY, naming `what` is locked. */
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
 * Returns 'moved' if the file lost its name before it was locked. Returns 'foreign' if the file is not a lock file of
 * ours, or its permissions keep this user from writing it.
 */
function tryOnce(path: string): ExclusiveLock | undefined | 'moved' | 'foreign' {
  // Does not even open a file with content: it may be a user's database, under a second name.
  if (lockFileState(path) === 'foreign') return 'foreign';
  let database: RawDatabase | undefined;
  try {
    database = openRaw(databaseUri(path, { mode: 'rwc' }), { timeout: 0 });
    lockForWriting(database);
    // The previous holder deletes the file as it leaves. A process that waited then locks a file without a name, which
    // guards nothing: take the file that has the name.
    const named = isOpenByName(path);
    const state = named === false ? 'moved' : lockFileState(path);
    if (state === 'empty') return lockOn(database, path);
    database.close();
    return state === 'foreign' ? 'foreign' : 'moved';
  } catch (error) {
    database?.close();
    if (isBusy(error)) return undefined;
    if (error instanceof LockFileError) throw error;
    return afterRefusal(path, error);
  }
}

/** Interprets SQLite's refusal to lock the file at `path`. Throws LockFileError, and errors of other kinds. */
function afterRefusal(path: string, error: unknown): 'moved' | 'foreign' {
  const code = systemErrorCode(error) ?? '';
  // Another program wrote to the file or replaced it since we looked at it.
  if (code === 'SQLITE_NOTADB') return 'moved';
  const isReadOnly = code.startsWith('SQLITE_READONLY');
  if (!isReadOnly && !code.startsWith('SQLITE_CANTOPEN') && code !== 'SQLITE_PERM') throw error;
  const owner = lockFileOwner(path);
  // This user may have lost the permission to write its own file.
  if (owner === 'this user') return 'foreign';
  if (isReadOnly && owner === 'absent') return 'moved';
  throw cannotLock(path, error);
}

/** Only a change, which stays in memory, proves that the lock is for writing. */
function lockForWriting(database: RawDatabase): void {
  // Without a journal file we cannot delete our successor's.
  database.pragma('journal_mode = MEMORY');
  database.exec('BEGIN EXCLUSIVE');
  database.pragma('user_version = 1');
}

/**
 * Removes what is in the place of the lock file. Returns false if another process has it locked or is about to replace
 * it. A second lock guards the removal. A foreign file in the place of that second lock is an error.
 */
function replaceForeign(path: string): boolean {
  const owner = lockFileOwner(path);
  if (owner === 'absent') return true;
  if (owner === 'another user') throw cannotLock(path, new Error('it has content that is no lock'));
  const guardPath = `${path}~`;
  const guard = tryOnce(guardPath);
  if (guard === undefined || guard === 'moved') return false;
  if (guard === 'foreign') throw cannotLock(guardPath, new Error('it has content that is no lock'));
  try {
    // Another process may have replaced the file since we looked at it, and hold its lock.
    return isLockable(path) || removeForeignLockFile(path);
  } finally {
    guard.release();
  }
}

/** True if the place of the lock file is empty, or holds a file that this process may try to lock. */
function isLockable(path: string): boolean {
  const state = lockFileState(path);
  if (state !== 'empty') return state === 'absent';
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function lockOn(database: RawDatabase, path: string): ExclusiveLock {
  return {
    release() {
      try {
        // If the system cannot tell whether a file lost its name, the file keeps it.
        if (isOpenByName(path) === true) rmSync(path, { force: true });
      } catch {
        // An empty file that no process holds disturbs no one.
      } finally {
        database.close();
      }
    },
  };
}
