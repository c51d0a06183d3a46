import { lstatSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { sanitizeText, SqlsyncError } from '../errors.ts';
import { hostName } from '../files/machine.ts';
import { realPath } from '../files/path-names.ts';
import { isMountedAlone } from '../files/mounts.ts';
import type { DatabaseFile } from '../pages/database-file.ts';
import { tooLongForSqlite } from '../pages/database-file.ts';
import { besideReplica, filesBeside } from '../beside/mark.ts';
import { sharingOf } from '../files/ownership.ts';

/**
 * The place of the replica: absolute, with the links of its folder resolved. Follows a link in its own place only if
 * `followLinks` is set. Never follows a link in the place of a file beside it: database programs make none there,
 * SQLite would refuse it, and sqlsync would write to where it leads. Throws SqlsyncError REPLICA_LINK.
 */
export function resolveReplica(named: string, followLinks: boolean): string {
  const absolute = resolve(named);
  let path = join(realPath(dirname(absolute)), basename(absolute));
  if (isLink(path)) {
    if (!followLinks) throw isALink(path);
    path = realPath(path);
  }
  refuseTooLong(path);
  refuseLinksBeside(path);
  return path;
}

/**
 * Refuses a replica that has other names: it would change under them too, as would a backup that `cp -al` made. rsync
 * gives the name to a new file instead, which does not work for a database: programs that have it open would keep the
 * old file. A killed run may have left its part file as the other name. Throws SqlsyncError REPLICA_LINK.
 */
export function refuseOtherNames({ path, stats }: DatabaseFile): void {
  const part = lstatSync(besideReplica(path, '-part'), { throwIfNoEntry: false });
  const ours = part?.ino === stats.ino && part.dev === stats.dev ? 1 : 0;
  const { nlink } = statSync(path);
  if (nlink - ours > 1) {
    throw new SqlsyncError(
      'REPLICA_LINK',
      `Replica ${path} has ${nlink - ours} names (hard links), and would be changed under all of them`,
      {
        hint: 'To keep the other names unchanged, give it a file of its own while no program has it open (`cp -p NAME NEW && mv NEW NAME`). To change it under all names, add --follow-links.',
      },
    );
  }
  if (!isMountedAlone(path)) return;
  throw new SqlsyncError(
    'REPLICA_LINK',
    `Replica ${path} is mounted as a single file: programs that have it open by its other name do not see its journal`,
    { hint: 'Mount its folder instead. If no program has it open by another name, add --follow-links.' },
  );
}

/**
 * Refuses a database that has the name of a file that SQLite or sqlsync keeps beside the other database. For example,
 * sqlsync would remove an origin in the place of the replica's part file, and SQLite a replica in the place of the
 * origin's -wal. `originName` holds the origin's host. Throws SqlsyncError SAME_FILE.
 */
export function refuseFileBeside(path: string, originName: string): void {
  const onThisHost = `${hostName()}:`;
  if (!originName.startsWith(onThisHost)) return;
  const origin = originName.slice(onThisHost.length);
  const clashes = (database: string, other: string): boolean =>
    [besideReplica(database, ''), ...filesBeside(database)].includes(other);
  if (!clashes(path, origin) && !clashes(origin, path)) return;
  throw new SqlsyncError(
    'SAME_FILE',
    `Origin ${origin} and replica ${path}: one has the name of a file that belongs to the other`,
    { hint: 'Name another replica. To copy a file such as a -part file itself, give it another name first.' },
  );
}

/** What the user should know about the replica's folder, one sentence each. */
export function folderWarnings(path: string): string[] {
  const folder = dirname(path);
  const { byOwner, byMode } = sharingOf(folder);
  if (!byOwner && !byMode) return [];
  const { mode, uid } = statSync(folder);
  const why = byMode ? `mode ${(mode & 0o7777).toString(8)}` : `it belongs to the user ${uid}`;
  return [
    `Other users may write to the folder ${folder} (${why}), and so put another file in the place of the replica`,
  ];
}

/** The lock beside the replica is a database too, so its path must fit as well. */
function refuseTooLong(path: string): void {
  const tooLong = tooLongForSqlite(path, besideReplica(path, '-lock').length - path.length);
  if (tooLong === undefined) return;
  throw new SqlsyncError('REPLICA_UNWRITABLE', `Replica ${sanitizeText(path, 200)} ${tooLong}`, {
    hint: 'Name a shorter path.',
  });
}

function refuseLinksBeside(path: string): void {
  for (const name of filesBeside(path)) {
    if (!isLink(name)) continue;
    throw new SqlsyncError(
      'REPLICA_LINK',
      `${name} is a symbolic link, where a file of the replica belongs`,
      {
        hint: 'Find out who made it, and remove it; such a link is never followed.',
      },
    );
  }
}

function isALink(path: string): SqlsyncError {
  return new SqlsyncError('REPLICA_LINK', `Replica ${path} is a symbolic link`, {
    hint: 'Name the file that it leads to, or add --follow-links.',
  });
}

function isLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true;
}
