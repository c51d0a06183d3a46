import { lstatSync, mkdtempSync, readdirSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sanitizeText, SqlsyncError, systemErrorCode } from '../errors.ts';
import { tryExclusiveLock } from '../sqlite/locks/exclusive-lock.ts';
import type { ExclusiveLock } from '../sqlite/locks/exclusive-lock.ts';

/** A private folder of this process, in the system's folder for temporary files. */
export interface TemporaryFolder {
  readonly path: string;
  remove(): void;
}

const PREFIX = 'sqlsync-temporary-';
const NAME = /^sqlsync-temporary-[A-Za-z0-9]{6}$/;

/** This process holds the lock while it uses the folder; the lock dies with the process. */
const LOCK = 'lock';

/** Permission bits of group and others. */
const OTHERS = 0o077;

/** A run that cleans up after killed runs may take a folder that is not locked yet. */
const MAX_ATTEMPTS = 10;

/**
 * Makes a folder with room for `bytes`, and removes folders that killed runs of this user left. Throws SqlsyncError
 * TEMP_UNAVAILABLE before it writes anything if there is not enough room.
 *
 * @param parent - by default the system's folder, which TMPDIR names.
 */
export function makeTemporaryFolder(bytes: number, parent: string = tmpdir()): TemporaryFolder {
  removeAbandoned(parent);
  refuseWithoutRoom(bytes, parent);
  try {
    for (let attempt = 1; ; attempt++) {
      const path = mkdtempSync(join(parent, PREFIX));
      const lock = lockIn(path, attempt === MAX_ATTEMPTS);
      if (lock === undefined) continue;
      return {
        path,
        remove() {
          rmSync(path, { recursive: true, force: true });
          lock.release();
        },
      };
    }
  } catch (error) {
    throw temporaryError(error, bytes, parent);
  }
}

function lockIn(path: string, isLast: boolean): ExclusiveLock | undefined {
  try {
    return tryExclusiveLock(join(path, LOCK));
  } catch (error) {
    if (!isLast && lstatSync(path, { throwIfNoEntry: false }) === undefined) return undefined;
    rmSync(path, { recursive: true, force: true });
    throw error;
  }
}

/** Turns a system error in a temporary folder into TEMP_UNAVAILABLE. Returns any other error unchanged. */
export function temporaryError(error: unknown, bytes: number, parent: string = tmpdir()): unknown {
  if (error instanceof SqlsyncError || !(error instanceof Error) || systemErrorCode(error) === undefined)
    return error;
  const isFull = ['ENOSPC', 'EDQUOT', 'SQLITE_FULL'].includes(systemErrorCode(error) ?? '');
  return new SqlsyncError(
    'TEMP_UNAVAILABLE',
    isFull
      ? `The folder for temporary files ${parent} is full; a copy of the database there needs ${formatRoom(bytes)}`
      : `No temporary copy can be made in ${parent}: ${sanitizeText(error.message)}`,
    { hint: HINT, cause: error },
  );
}

const HINT =
  'Make room there, or name another folder with room for the whole database: TMPDIR=/var/tmp sqlsync …';

function refuseWithoutRoom(bytes: number, parent: string): void {
  let free: number;
  try {
    const { bavail, bsize, blocks } = statfsSync(parent);
    // Some file systems do not report their free space.
    if (blocks === 0) return;
    free = bavail * bsize;
  } catch {
    return;
  }
  if (free >= bytes) return;
  throw new SqlsyncError(
    'TEMP_UNAVAILABLE',
    `The folder for temporary files ${parent} has ${formatRoom(free)} free; a copy of the database there needs ${formatRoom(bytes)}`,
    { hint: HINT },
  );
}

function formatRoom(bytes: number): string {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/**
 * Removes only folders that are surely leftovers: this user's alone, with such a name, with a lock that no process
 * holds. Never throws: a later run tries again.
 */
function removeAbandoned(parent: string): void {
  try {
    for (const name of readdirSync(parent)) {
      if (NAME.test(name)) removeIfAbandoned(join(parent, name));
    }
  } catch {
    // The folder may be writable but not listable.
  }
}

function removeIfAbandoned(path: string): void {
  try {
    const folder = lstatSync(path);
    const isOurs = folder.isDirectory() && folder.uid === process.geteuid?.() && (folder.mode & OTHERS) === 0;
    // Without a lock file, its process is about to lock it.
    if (!isOurs || !lstatSync(join(path, LOCK)).isFile()) return;
    const lock = tryExclusiveLock(join(path, LOCK));
    if (lock === undefined) return;
    rmSync(path, { recursive: true, force: true });
    lock.release();
  } catch {
    // A later run tries again.
  }
}
