import { existsSync, lstatSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { SqlsyncError } from '../errors.ts';
import type { DatabaseFile } from './database-file.ts';
import { inspectDatabase } from './database-file.ts';
import { EmptyReplica } from './empty-replica.ts';
import { ExistingReplica } from './existing-replica.ts';
import type { ReplicaOptions } from './old-state.ts';
import { hasChecksumVfs } from './header.ts';
import type { Mark } from './mark.ts';
import { besideReplica, readMark } from './mark.ts';
import { NewReplica } from './new-replica.ts';
import type { PageSink, SinkTarget } from './page-source.ts';
import type { PageNumber } from './page-types.ts';
import { replicaError } from './replica-error.ts';

/** What is known of the replica before the origin is asked. */
export interface ReplicaPlace {
  /** Absolute, with links resolved. */
  readonly path: string;
  /** undefined where there is no replica yet. */
  readonly file: DatabaseFile | undefined;
  readonly mark: Mark | undefined;
  /** True where there are pages to compare with: an existing replica or the part file of an interrupted run. */
  readonly hasOldPages: boolean;
}

export interface SinkOptions extends ReplicaOptions {
  readonly overwrite: boolean;
  readonly replace: boolean;
  readonly mark: Omit<Mark, 'format' | 'time'> | undefined;
}

/** Looks at the replica's place without opening it as a database. Throws SqlsyncError REPLICA_*. */
export function inspectReplica(path: string): ReplicaPlace {
  try {
    const absolute = resolvePlace(path);
    const file = inspectDatabase(absolute);
    if (file !== undefined && !file.stats.isFile()) {
      const kind = file.stats.isDirectory() ? 'a folder' : 'no regular file';
      throw new SqlsyncError('REPLICA_NOT_A_DATABASE', `Replica ${path} is ${kind}`, {
        hint: 'Name the database file itself, such as FOLDER/NAME.db.',
      });
    }
    const hasOldPages =
      file === undefined ? existsSync(besideReplica(absolute, '-part')) : file.stats.size > 0;
    return { path: absolute, file, mark: readMark(absolute), hasOldPages };
  } catch (error) {
    throw replicaError(path, error);
  }
}

/** The sink for a replica, of the kind that its place and the origin ask for. Throws SqlsyncError REPLICA_*, BUSY. */
export async function openSink(
  place: ReplicaPlace,
  target: SinkTarget,
  options: SinkOptions,
): Promise<PageSink> {
  const { path, file } = place;
  if (file === undefined) return NewReplica.open(path, target, { ...options, replaces: undefined });
  if (file.stats.size > 0 && file.header === undefined) {
    throw new SqlsyncError(
      'REPLICA_NOT_A_DATABASE',
      `Replica ${path} exists and is not an SQLite database, or is encrypted`,
      {
        hint: 'Name another file, or remove it if it is of no use.',
      },
    );
  }
  if (file.stats.size > 0 && place.mark === undefined && !options.overwrite) {
    throw new SqlsyncError('REPLICA_NOT_MARKED', `Replica ${path} exists and was not made by sqlsync`, {
      hint: 'If the arguments are in the right order and its content may be lost, add --overwrite (needed once).',
    });
  }
  if (target.pageCount === 0) return EmptyReplica.open(file, target, options);
  if (file.header !== undefined && file.header.pageSize !== target.pageSize) {
    if (options.replace) return NewReplica.open(path, target, { ...options, replaces: file });
    throw new SqlsyncError(
      'REPLICA_PAGE_SIZE',
      `Replica ${path} has pages of ${file.header.pageSize} bytes, the origin of ${target.pageSize}`,
      { hint: 'Add --replace to copy all of it in one transaction.' },
    );
  }
  const sink = await ExistingReplica.open(file, target, options);
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

/** A new name in a folder that exists, or an existing file by its real path. */
function resolvePlace(path: string): string {
  const absolute = resolve(path);
  if (lstatSync(absolute, { throwIfNoEntry: false }) !== undefined) return realpathSync(absolute);
  return join(realpathSync(dirname(absolute)), basename(absolute));
}
