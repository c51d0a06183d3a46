import type { MessageOf, Reader } from '../../../protocol/messages.ts';
import { sanitizeText, SqlsyncError } from '../../errors.ts';
import { hostName, readSystemFileId } from '../../files/machine.ts';
import type { Mark } from '../../beside/mark.ts';
import type { PageSource } from '../../pages/page-source.ts';
import { DatabaseSnapshot } from '../../origin/snapshot.ts';
import type { AccessCheck } from './restriction.ts';

/** What an origin agent serves: a snapshot, and what is to be said of it. */
export interface OriginSnapshot extends PageSource {
  /** For people, and for the mark of the replica. */
  readonly path: string;
  readonly host: string;
  /** Permission bits for a replica that is to be created. */
  readonly fileMode: number;
  readonly wal: boolean;
  readonly warnings: readonly string[];
  readonly notes: readonly string[];
  /** Milliseconds since it began. */
  readonly heldMs: number;
  readonly walGrowthBytes: number;
  ownersOf(pages: ReadonlySet<number>): Map<string, number>;
  /** Throws ORIGIN_* where what was read is no longer what its path names. */
  checkUnreplaced(): void;
}

/** What may be served; see `OriginOptions`. */
export interface SnapshotChoice {
  readonly path?: string | undefined;
  readonly restored?: (() => OriginSnapshot) | undefined;
  readonly access?: AccessCheck | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The snapshot to serve, and whether it restores the replica from what was once made of it. */
export async function openSnapshot(
  open: MessageOf<'open'>,
  reader: Reader,
  options: SnapshotChoice,
): Promise<{ snapshot: OriginSnapshot; restoring: boolean }> {
  if (options.restored !== undefined) return { snapshot: options.restored(), restoring: true };
  const path = options.path ?? options.access?.path(open.path) ?? open.path;
  const snapshot = await DatabaseSnapshot.open(path, {
    reader,
    busyTimeoutMs: open.busyTimeoutMs,
    signal: options.signal,
  });
  try {
    // A file of 0 bytes is not opened: there is nothing to read in it.
    options.access?.opened(snapshot.path, snapshot.file.fileId, snapshot.file.stats.size > 0);
    return { snapshot, restoring: checkPair(snapshot, open) };
  } catch (error) {
    snapshot.close();
    throw error;
  }
}

/**
 * Refuses one file on both sides (SAME_FILE) and swapped arguments (SWAPPED). True if the origin is a copy of this
 * very replica and the user means to restore the one from the other.
 */
function checkPair(snapshot: DatabaseSnapshot, open: MessageOf<'open'>): boolean {
  const { mark } = snapshot;
  if (readSystemFileId(open.replicaFileId).is(snapshot.file.fileId)) {
    throw new SqlsyncError('SAME_FILE', `Origin and replica are the same file: ${snapshot.path}`, {
      hint: 'Name two different files; links to one file count as one.',
    });
  }
  if (mark?.originPath !== open.replicaPath || !isOriginsHost(mark, open)) return false;
  if (open.overwrite) return true;
  throw new SqlsyncError(
    'SWAPPED',
    `The arguments look swapped: ${snapshot.path} is itself a replica, made from ${sanitizeText(open.replicaPath)}`,
    { hint: 'The origin comes first. To restore the origin from its replica, add --overwrite.' },
  );
}

/**
 * True if the replica is on the host that the mark names, or may have named when the host had another name, as each
 * run of a container has. Where another machine has the name of this one, the name tells nothing.
 */
function isOriginsHost(mark: Mark, { replicaHost, replicaFileId }: MessageOf<'open'>): boolean {
  if (replicaHost === '') return false;
  const replica = readSystemFileId(replicaFileId);
  if (replica.isHere) return true;
  return replicaHost === mark.originHost && !(replica.isElsewhere && replicaHost === hostName());
}
