import { closeSync, fstatSync, openSync, rmSync, statSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { basename, dirname, join } from 'node:path';

/** Permission bits that let the group, or everybody, make and remove names in a folder. */
const GROUP_WRITES = 0o020;
const ALL_WRITE = 0o002;

/** True where a file of this owner may have been put there by another user: root may do anything already. */
export function isAnothers(uid: number): boolean {
  const own = process.geteuid?.();
  return own !== undefined && uid !== own && uid !== 0;
}

/** Who else may make and remove names in `folder`: its other owner, or others by its permission bits. */
export function sharingOf(folder: string): { readonly byOwner: boolean; readonly byMode: boolean } {
  const { mode, uid, gid } = statSync(folder);
  // The private group of a user, as many systems give each, has no other members.
  const byMode = (mode & ALL_WRITE) !== 0 || ((mode & GROUP_WRITES) !== 0 && gid !== uid);
  return { byOwner: isAnothers(uid), byMode: byMode && process.platform !== 'win32' };
}

/**
 * Whom a new file beside `path` belongs to, by making one for a moment: another user than this process's where a mount
 * gives all files to one user, or a file server does not trust root. undefined where none can be made.
 */
export function ownerOfNewFile(path: string): number | undefined {
  const trial = join(dirname(path), `.${basename(path)}-${process.pid}-${randomBytes(4).toString('hex')}`);
  try {
    const descriptor = openSync(trial, 'wx', 0o600);
    try {
      return fstatSync(descriptor).uid;
    } finally {
      closeSync(descriptor);
      rmSync(trial, { force: true });
    }
  } catch {
    return undefined;
  }
}
