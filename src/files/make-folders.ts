import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { SqlsyncError, sanitizeText, systemErrorCode } from '../errors.ts';

/**
 * Makes the folders that lead to the replica at `path`, which is absolute. One at a time: below /proc, where no folder
 * can be made, Node.js with `recursive` tries for ever. Throws SqlsyncError REPLICA_UNWRITABLE.
 */
export function makeFolders(path: string): void {
  const folder = dirname(path);
  if (existsSync(folder)) return;
  makeFolders(folder);
  try {
    mkdirSync(folder);
  } catch (error) {
    const code = systemErrorCode(error);
    // Another run may have been faster.
    if (code === 'EEXIST') return;
    throw new SqlsyncError(
      'REPLICA_UNWRITABLE',
      `The folder ${sanitizeText(folder)} cannot be made (${code})`,
      {
        hint: 'Make it, or run sqlsync as a user who may.',
        cause: error,
      },
    );
  }
}

/** A place without a file for a dry run, which makes no folders: `path`, or one in the nearest folder that is there. */
export function placeOfTrial(path: string): string {
  let folder = dirname(path);
  if (existsSync(folder)) return path;
  while (!existsSync(folder) && folder !== dirname(folder)) folder = dirname(folder);
  return join(folder, `${randomBytes(8).toString('hex')}-${basename(path).slice(-100)}`);
}
