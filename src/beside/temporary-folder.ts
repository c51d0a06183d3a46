import { lstatSync, mkdtempSync, readdirSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sanitizeText, SqlsyncError, systemErrorCode } from '../errors.ts';
import { tryExclusiveLock } from '../sqlite/locks/exclusive-lock.ts';
import type { ExclusiveLock } from '../sqlite/locks/exclusive-lock.ts';

/** A folder of this process alone, in the folder for temporary files. */
export interface TemporaryFolder {
  readonly path: string;
  remove(): void;
}

const PREFIX = 'sqlsync-temporary-';
const NAME = /^sqlsync-temporary-[A-Za-z0-9]{6}$/;

/** Held for as long as the folder is in use; it dies with its process. */
const LOCK = 'lock';

/** Permission bits of everybody but the owner. */
const OTHERS = 0o077;

/** Another run that looks for what killed ones left may take a folder that is not locked yet. */
const MAX_ATTEMPTS = 10;

/**
 * Makes a folder with room for `bytes`, and removes those that killed runs of this user left. Throws SqlsyncError TEMP_UNAVAILABLE,
 * before anything is written, where there is no such room.
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

/** The system refused something in a temporary folder. Anything but an error of the system is returned as it is. */
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
    // Some file systems tell nothing.
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

/** Only what is ours for sure: of this user alone, of such a name, with a lock that nobody holds. Never throws: a later run tries again. */
function removeAbandoned(parent: string): void {
  try {
    for (const name of readdirSync(parent)) {
      if (NAME.test(name)) removeIfAbandoned(join(parent, name));
    }
  } catch {
    // A folder that may be written and not listed.
  }
}

function removeIfAbandoned(path: string): void {
  try {
    const folder = lstatSync(path);
    const isOurs = folder.isDirectory() && folder.uid === process.geteuid?.() && (folder.mode & OTHERS) === 0;
    // Without the file it is about to be locked.
    if (!isOurs || !lstatSync(join(path, LOCK)).isFile()) return;
    const lock = tryExclusiveLock(join(path, LOCK));
    if (lock === undefined) return;
    rmSync(path, { recursive: true, force: true });
    lock.release();
  } catch {
    // See above.
  }
}
