import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { SqlsyncError, sanitizeText } from '../errors.ts';
import type { DatabaseFile } from '../pages/database-file.ts';
import { currentFileId, inspectDatabase } from '../pages/database-file.ts';
import { EmptyReplica } from './existing/empty-replica.ts';
import { ExistingReplica } from './existing/existing-replica.ts';
import type { ExistingOptions } from './existing/old-state.ts';
import { recover } from './existing/old-state.ts';
import { hasChecksumVfs, unknownFormat } from '../pages/header.ts';
import type { Mark, MarkedOrigin } from '../beside/mark.ts';
import { besideReplica, readOwnMark } from '../beside/mark.ts';
import { isAnothers, ownerOfNewFile, sharingOf } from '../files/ownership.ts';
import { hasJournal, refuseLeftover } from '../beside/leftovers.ts';
import { NewReplica } from './new/new-replica.ts';
import type { BeforePublish } from './new/new-replica.ts';
import type { PageSink, SinkTarget } from '../pages/page-source.ts';
import type { PageNumber } from '../pages/page-types.ts';
import { ReplicaMovedError, needsRecovery, replicaError } from './replica-error.ts';
import { restoreWal } from '../beside/wal-record.ts';
import { folderWarnings, refuseOtherNames, resolveReplica } from './replica-links.ts';

/** What sqlsync knows about the replica before it contacts the origin. */
export interface ReplicaPlace {
  /** Absolute, with links resolved. */
  readonly path: string;
  /** undefined if there is no replica yet. */
  readonly file: DatabaseFile | undefined;
  readonly mark: Mark | undefined;
  /** True if there are pages to compare with: an existing replica, or the part file of an interrupted run. */
  readonly hasOldPages: boolean;
  /** What the user should know about the place, one sentence each. */
  readonly warnings: readonly string[];
}

export interface SinkOptions extends ExistingOptions {
  readonly overwrite: boolean;
  readonly replace: boolean;
  /** See `NewReplicaOptions`. */
  readonly reflink?: boolean | undefined;
  /** Only for a replica that does not exist yet. */
  readonly beforePublish?: BeforePublish | undefined;
}

/**
 * Looks at the replica's place. Opens it as a database only if a killed transaction left its journal: SQLite must undo
 * that before size and header mean anything. In a dry run it never does. Throws SqlsyncError REPLICA_*.
 */
export function inspectReplica(
  path: string,
  options: { readonly dryRun: boolean; readonly followLinks: boolean },
): ReplicaPlace {
  try {
    const absolute = resolveReplica(path, options.followLinks);
    const file = inspectRecovered(absolute, options.dryRun);
    if (file !== undefined && !file.stats.isFile()) {
      const kind = file.stats.isDirectory() ? 'a folder' : 'no regular file';
      throw new SqlsyncError('REPLICA_NOT_A_DATABASE', `Replica ${path} is ${kind}`, {
        hint: 'Name the database file itself, such as FOLDER/NAME.db. Into a backup store, `sqlsync backup ORIGIN STORE` writes.',
      });
    }
    const hasOldPages =
      file === undefined ? existsSync(besideReplica(absolute, '-part')) : file.stats.size > 0;
    const warnings = folderWarnings(absolute);
    return { path: absolute, file, mark: readOwnMark(absolute), hasOldPages, warnings };
  } catch (error) {
    throw replicaError(path, error);
  }
}

/** Opens the sink for a replica; its kind depends on the place and the origin. Throws SqlsyncError REPLICA_*, BUSY. */
export async function openSink(
  place: ReplicaPlace,
  target: SinkTarget,
  options: SinkOptions,
): Promise<PageSink> {
  const { path, file } = place;
  // A file that was removed meanwhile has no mark either, and nothing there needs its protection.
  if (file !== undefined && currentFileId(path) === undefined)
    throw new ReplicaMovedError(path, 'was removed by another program during the sync');
  if (file === undefined) {
    // A new replica takes the same lock, and the spooled pages belong to a replica that is gone.
    options.staging?.remove();
    return NewReplica.open(path, target, { ...options, replaces: undefined });
  }
  if (file.stats.size > 0 && file.header === undefined) {
    throw new SqlsyncError(
      'REPLICA_NOT_A_DATABASE',
      `Replica ${path} exists and is not an SQLite database, or is encrypted`,
      {
        hint: 'Name another file, or remove it if it is of no use.',
      },
    );
  }
  const unknown = unknownFormat(file.header);
  if (unknown !== undefined) {
    throw new SqlsyncError('REPLICA_NOT_A_DATABASE', `Replica ${path} ${unknown}`, {
      hint: 'Name another file, or remove it if it is of no use.',
    });
  }
  if (!options.overwrite) refusePrepared(path, file);
  if (file.stats.size > 0 && place.mark === undefined && !options.overwrite)
    throw unmarked(path, options.mark === undefined);
  if (file.stats.size > 0 && !options.overwrite) refuseOtherOrigin(place, options.mark);
  if (options.followLinks !== true) refuseOtherNames(file);
  const isReplaced =
    file.header !== undefined && file.header.pageSize !== target.pageSize && target.pageCount > 0;
  if (!isReplaced && options.dryRun !== true) leaveNoRollbackMode(path);
  if (target.pageCount === 0) return EmptyReplica.open(file, target, options);
  if (file.header !== undefined && file.header.pageSize !== target.pageSize) {
    if (options.replace) {
      options.staging?.remove();
      return NewReplica.open(path, target, { ...options, replaces: file });
    }
    throw otherPageSize(path, file.header.pageSize, target);
  }
  const sink = await ExistingReplica.open(file, target, options);
  if (sink.old.pageCount > 0 && sink.old.pageSize !== target.pageSize) {
    // The file changed since its header was read, perhaps by a recovery.
    await sink.abort();
    throw otherPageSize(path, sink.old.pageSize, target);
  }
  if (sink.old.pageCount > 0 && hasChecksumVfs(sink.old.readPage(1 as PageNumber))) {
    await sink.abort();
    throw new SqlsyncError(
      'REPLICA_CHECKSUM_VFS',
      `Replica ${path} carries page checksums of SQLite's checksum VFS`,
      {
        hint: 'Writing it would break them: remove it, or name another replica.',
      },
    );
  }
  return sink;
}

/** The file at `path` after SQLite's recovery. Throws if a file beside it would be lost. */
function inspectRecovered(path: string, dryRun: boolean): DatabaseFile | undefined {
  let file = inspectDatabase(path);
  if (file === undefined || !file.stats.isFile()) return file;
  if (hasJournal(path, file.stats.size)) {
    // If there is a header, SQLite knows whether the journal is hot or of a transaction under way.
    if (dryRun && file.header === undefined) throw needsRecovery(path);
    if (!dryRun) {
      recover(file);
      file = inspectDatabase(path);
    }
  }
  if (file?.stats.size === 0) refuseLeftover(path, 'has 0 bytes');
  return file;
}

/** Undoes what a killed `--replace` did to the journal mode. What we read of the file before is then out of date. */
function leaveNoRollbackMode(path: string): void {
  try {
    if (!restoreWal(path)) return;
  } catch (error) {
    throw replicaError(path, error);
  }
  throw new ReplicaMovedError(path, 'was put back into WAL mode');
}

/**
 * Refuses a file of another user in a folder that others may write: that user may have prepared it to read what sqlsync
 * fills in. In a folder of that user alone it only warns, for example when root copies for a service.
 */
function refusePrepared(path: string, { stats }: DatabaseFile): void {
  if (!isAnothers(stats.uid) || !sharingOf(dirname(path)).byMode || stats.uid === ownerOfNewFile(path))
    return;
  throw new SqlsyncError(
    'REPLICA_NOT_MARKED',
    `Replica ${path} belongs to another user (${stats.uid}), in a folder that others may write to`,
    {
      hint: 'That user would get the content. If you want that, add --overwrite; otherwise use a folder of your own.',
    },
  );
}

/** A restored database gets no mark, so a restore over it needs --overwrite each time. */
function unmarked(path: string, isRestore: boolean): SqlsyncError {
  if (isRestore) {
    return new SqlsyncError('REPLICA_NOT_MARKED', `${path} exists, and a restore would replace its content`, {
      hint: 'If its content may be lost, add --overwrite. With --dry-run as well, sqlsync reports how much would change.',
    });
  }
  return new SqlsyncError('REPLICA_NOT_MARKED', `Replica ${path} exists and was not made by sqlsync`, {
    hint: 'If the arguments are in the right order and its content may be lost, add --overwrite. That is needed once, and again after a replica was moved or copied, because its mark holds for one file.',
  });
}

/** Refuses a replica of another database: each argument is right, but they do not belong together. */
function refuseOtherOrigin({ path, mark }: ReplicaPlace, origin: MarkedOrigin | undefined): void {
  // The host may have a new name, as each run of a container does.
  if (mark === undefined || origin === undefined || mark.originPath === origin.originPath) return;
  const former = sanitizeText(`${mark.originHost}:${mark.originPath}`);
  throw new SqlsyncError(
    'REPLICA_NOT_MARKED',
    `Replica ${path} is a copy of ${former}, not of ${sanitizeText(origin.originPath)}`,
    { hint: 'To make it a copy of this origin from now on, add --overwrite (needed once).' },
  );
}

function otherPageSize(path: string, bytes: number, target: SinkTarget): SqlsyncError {
  return new SqlsyncError(
    'REPLICA_PAGE_SIZE',
    `Replica ${path} has pages of ${bytes} bytes, the origin of ${target.pageSize}`,
    { hint: 'Add --replace to copy all of it in one transaction.' },
  );
}
