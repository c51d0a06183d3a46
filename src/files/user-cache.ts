import { existsSync, mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { systemErrorCode } from '../errors.ts';

/**
 * The folder of this name in the user's cache folder. Not in the folder for temporary files: another user could take
 * the name there.
 */
export function userCacheFolder(name: string): string {
  return join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'sqlsync', name);
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
