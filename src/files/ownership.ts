import { closeSync, fchownSync, fstatSync, openSync, rmSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { basename, dirname, join } from 'node:path';

/** Permission bits that let the group, or everyone, make and remove names in a folder. */
const GROUP_WRITES = 0o020;
const ALL_WRITE = 0o002;

/** True if another user may have put a file of this owner there; root may do anything already. */
export function isAnothers(uid: number): boolean {
  const own = process.geteuid?.();
  return own !== undefined && uid !== own && uid !== 0;
}

/** Says who else may make and remove names in `folder`: another owner, or others by its permission bits. */
export function sharingOf(folder: string): { readonly byOwner: boolean; readonly byMode: boolean } {
  const { mode, uid, gid } = statSync(folder);
  // Many systems give each user a private group, which has no other members.
  const byMode = (mode & ALL_WRITE) !== 0 || ((mode & GROUP_WRITES) !== 0 && gid !== uid);
  return { byOwner: isAnothers(uid), byMode: byMode && process.platform !== 'win32' };
}

/**
 * The owner of a new file beside `path`, found out by making one for a moment. It is another user than this process's
 * if a mount gives all files to one user, or if a file server does not trust root. undefined if no file can be made.
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

/** Owner and group of a file on this host. */
export interface FileOwner {
  readonly uid: number;
  readonly gid: number;
}

/** The owner of the file at `path`; undefined if the system does not report it. */
export function ownerOf(path: string): FileOwner | undefined {
  try {
    const { uid, gid } = statSync(path);
    return { uid, gid };
  } catch {
    return undefined;
  }
}

/**
 * Gives a new file of root's, which will be at `path`, to the owner of the database that it copies. Does so only if the
 * folder shows that this owner is to use the file there: sqlsync gives no one a file whose content they could not read
 * before. Set the permission bits afterwards. Never throws: `unusableFile` reports an owner that cannot use the file.
 *
 * @param origin - the owner of the origin on this very host; user ids of another host may be other users here.
 * @param isReplica - the next run must find it as its own, so it stays root's in a folder where others may put files.
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
    // File systems without owners refuse it, and so does a container's root.
  }
}

/** Bits with which everyone may read and write a file. */
const ALL_READ_AND_WRITE = 0o006;

/**
 * A warning about a file just made at `path` that belongs neither to the user whose folder it is in, nor to the former
 * owner at that very path; undefined if the owner is right.
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
  return `${path} belongs to the user ${file.uid} (mode ${mode}), but ${whose} belongs to the user ${expected.uid}, whose programs may be unable to open the file: \`chown ${expected.uid}:${expected.gid} ${quoted}\` makes that user its owner`;
}
