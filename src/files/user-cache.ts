import { existsSync, mkdirSync } from 'node:fs';
import { homedir, userInfo } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import { SqlsyncError, systemErrorCode } from '../errors.ts';
import { sharingOf } from './ownership.ts';

/**
 * The folder of this name in the user's cache folder. Not in the folder for temporary files: another user could take
 * the name there, as in the folder that a relative path leads to.
 */
export function userCacheFolder(name: string): string {
  return join(userCache(process.env), 'sqlsync', name);
}

/**
 * The folder of one store in the user's cache folder, made if it is missing. undefined if this user can have none of
 * its own there, or if the id is no plain name: that of a hostile store could lead elsewhere.
 */
export function ownCacheFolder(name: string, store: string): string | undefined {
  if (!/^[0-9a-f]+$/.test(store)) return undefined;
  try {
    const folder = join(userCacheFolder(name), store);
    makePrivateFolder(folder);
    const { byOwner, byMode } = sharingOf(folder);
    return byOwner || byMode ? undefined : folder;
  } catch {
    // All caches only save time.
    return undefined;
  }
}

/** The same in the folder for what must not be lost, though it could be typed again. */
export function userStateFolder(name: string): string {
  return join(userFolder(process.env, 'XDG_STATE_HOME', '.local/state'), 'sqlsync', name);
}

/**
 * The user's cache folder, absolute. The XDG specification: a relative path is invalid and to be ignored. Throws
 * SqlsyncError USAGE if there is none: a user whom the system does not know may have no HOME.
 */
export function userCache(env: NodeJS.ProcessEnv): string {
  return userFolder(env, 'XDG_CACHE_HOME', '.cache');
}

function userFolder(env: NodeJS.ProcessEnv, variable: string, usual: string): string {
  const given = env[variable] ?? '';
  if (isAbsolute(given)) return given;
  try {
    const home = homedir();
    return join(isAbsolute(home) ? home : userInfo().homedir, usual);
  } catch (error) {
    throw new SqlsyncError('USAGE', 'The system does not know this user, and HOME names no folder either', {
      hint: `Set ${variable} to a folder that this user can write.`,
      cause: error,
    });
  }
}

/**
 * Makes a folder that only this user may use, and those above it. One at a time: below /proc, where no folder can be
 * made, Node.js with `recursive` tries for ever. Throws the system's errors.
 */
export function makePrivateFolder(path: string): void {
  if (existsSync(path)) return;
  makePrivateFolder(dirname(path));
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    // Another run may have been faster.
    if (systemErrorCode(error) !== 'EEXIST') throw error;
  }
}
