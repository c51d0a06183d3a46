import { lstatSync, rmSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { openRaw } from '../binding.ts';
import { isBusy } from '../busy.ts';
import { databaseUri } from '../database-uri.ts';
import { ownDescriptors } from '../../files/descriptors.ts';
import { isOwn, userName } from '../../files/file-owner.ts';

/** A lock file that cannot be locked. The message names the file and the cause; `hint` says what to do. */
export class LockFileError extends Error {
  readonly hint: string;
  /** True if a file of another program is in the place of the lock file. */
  readonly isLeftover: boolean;

  constructor(
    message: string,
    options: { readonly hint: string; readonly isLeftover: boolean; readonly cause?: unknown },
  ) {
    super(message, { cause: options.cause });
    this.name = 'LockFileError';
    this.hint = options.hint;
    this.isLeftover = options.isLeftover;
  }
}

/**
 * What is at `path`. 'empty': like every lock file of ours, held or left. 'foreign': a file with content or with a
 * second name, which no run holds as its lock. Throws LockFileError for anything but a regular file: SQLite would
 * follow a link, and wait at a pipe.
 */
export function lockFileState(path: string): 'absent' | 'empty' | 'foreign' {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return 'absent';
  if (!stats.isFile())
    throw new LockFileError(`${path} is ${kindOf(stats)}, where a lock file of sqlsync belongs`, {
      hint: 'Find out who made it, and remove it.',
      isLeftover: true,
    });
  return stats.size === 0 && stats.nlink <= 1 ? 'empty' : 'foreign';
}

function kindOf(stats: Stats): string {
  if (stats.isDirectory()) return 'a folder';
  if (stats.isSymbolicLink()) return 'a symbolic link';
  if (stats.isFIFO()) return 'a named pipe';
  return stats.isSocket() ? 'a socket' : 'a device';
}

/** The owner of the lock file at `path`, by one look: the file may come and go between two. */
export function lockFileOwner(path: string): 'absent' | 'this user' | 'another user' {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return 'absent';
  return isOwn(stats.uid) ? 'this user' : 'another user';
}

/**
 * Removes a file that is in the place of a lock file, and what SQLite may have put beside it. Only the holder of the
 * lock that guards this step may call it: if two processes removed, the second would remove the new lock file of the
 * first. Returns false if another program holds a lock on the file. Throws LockFileError.
 */
export function removeForeignLockFile(path: string): boolean {
  if (isLockedByAnother(path)) return false;
  for (const name of [path, `${path}-journal`, `${path}-wal`, `${path}-shm`]) {
    try {
      rmSync(name, { force: true });
    } catch (error) {
      throw cannotLock(path, error);
    }
  }
  return true;
}

/** A shared lock shows it, and only needs the right to read. */
function isLockedByAnother(path: string): boolean {
  try {
    const database = openRaw(databaseUri(path, { mode: 'ro' }), { timeout: 0, readonly: true });
    try {
      database.prepare('SELECT 1 FROM sqlite_schema').get();
    } finally {
      database.close();
    }
    return false;
  } catch (error) {
    return isBusy(error);
  }
}

/** Why the lock file at `path` cannot be locked, with its owner if that is another user. */
export function cannotLock(path: string, cause: unknown): LockFileError {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  const text = cause instanceof Error ? cause.message : String(cause);
  if (stats === undefined)
    return new LockFileError(`The lock file ${path} cannot be made: ${text}`, {
      hint: 'Allow this user to write the folder.',
      isLeftover: false,
      cause,
    });
  if (isOwn(stats.uid))
    return new LockFileError(`The lock file ${path} cannot be locked: ${text}`, {
      hint: 'Allow this user to write the file and its folder, or remove it if no other sqlsync is running here.',
      isLeftover: false,
      cause,
    });
  return new LockFileError(
    `The lock file ${path} belongs to ${userName(stats.uid)} and cannot be locked by this user: ${text}`,
    {
      hint: `A run of that user left the file, or is under way. Wait until that run ends; if none is under way, remove the file: rm ${path}`,
      isLeftover: true,
      cause,
    },
  );
}

/**
 * True if a descriptor of this process is open on the file that has the name `path` now; the name alone does not show
 * which file SQLite has opened. 'unknown' if the system does not list descriptors.
 */
export function isOpenByName(path: string): boolean | 'unknown' {
  const descriptors = ownDescriptors();
  if (descriptors === undefined) return 'unknown';
  const named = lstatSync(path, { throwIfNoEntry: false });
  if (named === undefined) return false;
  return descriptors.some((descriptor) => {
    const open = statSync(descriptor, { throwIfNoEntry: false });
    return open?.dev === named.dev && open.ino === named.ino;
  });
}
