import { message } from '../../../protocol/encode.ts';
import type { MessageOf, Reader } from '../../../protocol/messages.ts';
import { sanitizeText, SqlsyncError } from '../../errors.ts';
import { hostName, readSystemFileId } from '../../files/machine.ts';
import type { Mark } from '../../beside/mark.ts';
import type { PageSource } from '../../pages/page-source.ts';
import type { WalLook } from '../../pages/wal-changes.ts';
import { DatabaseSnapshot } from '../../origin/snapshot.ts';
import type { HashChoice, OriginMemory } from '../quick/kept-tree.ts';
import type { AccessCheck } from '../request/restriction.ts';
import type { FollowedOrigin } from './followed-origin.ts';

/** What an origin agent serves: a snapshot, and its description. */
export interface OriginSnapshot extends PageSource {
  /** For messages, and for the mark of the replica. */
  readonly path: string;
  readonly host: string;
  /** Permission bits for a new replica. */
  readonly fileMode: number;
  readonly wal: boolean;
  readonly warnings: readonly string[];
  readonly notes: readonly string[];
  /** Milliseconds since the snapshot began. */
  readonly heldMs: number;
  readonly walGrowthBytes: number;
  /** Another snapshot of the database with this stamp has the same content; undefined if nothing proves that. */
  readonly stamp?: Uint8Array | undefined;
  /** See `ReadTransaction`. */
  readonly look?: WalLook | undefined;
  changedSince?(look: WalLook): number[] | undefined;
  ownersOf(pages: ReadonlySet<number>): Map<string, number>;
  /** Throws ORIGIN_* if the path no longer names the file that was read. */
  checkUnreplaced(): void;
}

/** What the agent may serve; see `OriginOptions`. */
export interface SnapshotChoice {
  readonly path?: string | undefined;
  readonly restored?: (() => OriginSnapshot) | undefined;
  readonly access?: AccessCheck | undefined;
  /** Keeps what the next snapshot needs, if a replica follows the origin. */
  readonly followed?: FollowedOrigin | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface OpenedSnapshot {
  readonly snapshot: OriginSnapshot;
  /** True if it restores the replica from a copy of it. */
  readonly restoring: boolean;
  /** What is known of the snapshot of an origin that is followed. */
  readonly memoryOf?: ((choice: HashChoice) => OriginMemory) | undefined;
}

const NO_STAMP = new Uint8Array(0);

/** The message that announces a snapshot. */
export function announcementOf(
  { snapshot, restoring }: { readonly snapshot: OriginSnapshot; readonly restoring: boolean },
  hashBytes: number,
  notes: readonly string[] = [],
): MessageOf<'snapshot'> {
  return message('snapshot', {
    pageSize: snapshot.pageSize,
    pageCount: snapshot.pageCount,
    hashBytes,
    fileMode: snapshot.fileMode,
    wal: snapshot.wal,
    originHost: snapshot.host,
    originPath: snapshot.path,
    restoring,
    stamp: snapshot.stamp ?? NO_STAMP,
    warnings: [...snapshot.warnings],
    notes: [...snapshot.notes, ...notes],
  });
}

/** Opens the snapshot to serve. */
export async function openSnapshot(
  open: MessageOf<'open'>,
  reader: Reader,
  options: SnapshotChoice,
): Promise<OpenedSnapshot> {
  if (options.restored !== undefined) return { snapshot: options.restored(), restoring: true };
  const path = options.path ?? options.access?.path(open.path) ?? open.path;
  const followed = open.lookEveryMs > 0 ? options.followed : undefined;
  const how = { reader, busyTimeoutMs: open.busyTimeoutMs, signal: options.signal };
  const snapshot = await (followed?.open(path, how) ?? DatabaseSnapshot.open(path, how));
  try {
    // A file of 0 bytes is not opened: it holds nothing to read.
    options.access?.opened(snapshot.path, snapshot.file.fileId, snapshot.file.stats.size > 0);
    const memoryOf = followed && ((choice: HashChoice) => followed.memoryOf(snapshot, choice));
    return { snapshot, restoring: checkPair(snapshot, open), memoryOf };
  } catch (error) {
    snapshot.close();
    throw error;
  }
}

/**
 * Refuses one file on both sides (SAME_FILE) and swapped arguments (SWAPPED). Returns true if the origin is a copy of
 * this very replica, and the user wants to restore the replica from it.
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
 * True if the replica is on the host that the mark names. Also true if the host may have had another name then, as each
 * run of a container has. If another machine shares this one's name, the name proves nothing.
 */
function isOriginsHost(mark: Mark, { replicaHost, replicaFileId }: MessageOf<'open'>): boolean {
  if (replicaHost === '') return false;
  const replica = readSystemFileId(replicaFileId);
  if (replica.isHere) return true;
  return replicaHost === mark.originHost && !(replica.isElsewhere && replicaHost === hostName());
}
