import { closeSync, fchownSync, fstatSync, openSync, rmSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { basename, dirname, join } from 'node:path';

/** Permission bits that let the group, or everybody, make and remove names in a folder. */
const GROUP_WRITES = 0o020;
const ALL_WRITE = 0o002;

/** True if a file of this owner may have been put there by another user: root may do anything already. */
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
 * gives all files to one user, or a file server does not trust root. undefined if none can be made.
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

/** Whom a file of this host belongs to. */
export interface FileOwner {
  readonly uid: number;
  readonly gid: number;
}

/** Whom the file at `path` belongs to; undefined if nobody can tell. */
export function ownerOf(path: string): FileOwner | undefined {
  try {
    const { uid, gid } = statSync(path);
    return { uid, gid };
  } catch {
    return undefined;
  }
}

/**
 * Gives a new file of root's, that is to be at `path`, to the owner of the database it is a copy of. Only where its
 * folder shows that this owner is to use it there: nobody gets a file whose content they could not read before. The
 * permission bits are to be set afterwards. Never throws: who cannot use the file is told by `unusableFile`.
 *
 * @param origin - the owner of the origin on this very host; user ids of another host may be other users here.
 * @param isReplica - the next run has to find it as its own, so that it stays root's where others may put files.
 */
export function giveToOwner(
  descriptor: number,
  path: string,
  origin: FileOwner | undefined,
  isReplica: boolean,
): void {
  if (origin === undefined || process.geteuid?.() !== 0) return;
  try {
    const folder = statSync(dirname(path));
    const isOwners = folder.uid === origin.uid && !(isReplica && sharingOf(dirname(path)).byMode);
    const isGroups = folder.gid === origin.gid;
    const isWrittenByGroup = isGroups && !isReplica && (folder.mode & GROUP_WRITES) !== 0;
    const now = fstatSync(descriptor);
    const uid = isOwners || isWrittenByGroup ? origin.uid : now.uid;
    const gid = isOwners || isGroups ? origin.gid : now.gid;
    if (uid !== now.uid || gid !== now.gid) fchownSync(descriptor, uid, gid);
  } catch {
    // As on file systems without owners, and for root of a container.
  }
}

/** Bits by which everybody reads and writes a file. */
const ALL_READ_AND_WRITE = 0o006;

/**
 * What the user should know of a file that was just made at `path`: that it does not belong to the user whose folder it
 * is in, or whom the origin at that very path belonged to. undefined if it does.
 */
export function unusableFile(
  path: string,
  file: Stats,
  origin: { readonly owner: FileOwner | undefined; readonly path: string | undefined },
): string | undefined {
  if (process.platform === 'win32' || (file.mode & ALL_READ_AND_WRITE) === ALL_READ_AND_WRITE)
    return undefined;
  const folder = statSync(dirname(path));
  const isBack = origin.owner !== undefined && origin.path === path && origin.owner.uid !== 0;
  const [whose, expected] = isBack ? ['the database there before', origin.owner] : ['its folder', folder];
  if (expected.uid === 0 || expected.uid === file.uid) return undefined;
  const mode = (file.mode & 0o7777).toString(8);
  const quoted = `'${path.replaceAll("'", String.raw`'\''`)}'`;
  return `${path} belongs to the user ${file.uid} (mode ${mode}) and ${whose} to the user ${expected.uid}, whose programs may be unable to open it: \`chown ${expected.uid}:${expected.gid} ${quoted}\` makes that user its owner`;
}
