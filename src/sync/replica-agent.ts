import { randomBytes } from 'node:crypto';
import { message } from '../../protocol/encode.ts';
import { MAX_PAGE_COUNT } from '../../protocol/limits.ts';
import { COMPRESSION_MODES, HASH_ALGORITHMS, LEVEL_TOP, OUTCOMES, READERS } from '../../protocol/messages.ts';
import type { CompressionMode, HashAlgorithm, MessageOf, Outcome, Reader } from '../../protocol/messages.ts';
import { SqlsyncError } from '../errors.ts';
import { SEED_BYTES } from '../pages/hash.ts';
import { EmptyReplica } from '../pages/empty-replica.ts';
import { removeOwnLeftovers } from '../pages/leftovers.ts';
import type { MarkedOrigin } from '../pages/mark.ts';
import { hostName, markReplica } from '../pages/mark.ts';
import { inspectReplica, openSink } from '../pages/open-replica.ts';
import type { ReplicaPlace } from '../pages/open-replica.ts';
import type { PageSink } from '../pages/page-source.ts';
import { pageCount, pageSize } from '../pages/page-types.ts';
import { ReplicaMovedError } from '../pages/replica-error.ts';
import type { Connection } from './connection.ts';
import { PageCopy, RootMismatchError } from './page-copy.ts';
import type { CopyProgress } from './page-copy.ts';
import type { AccessCheck } from './restriction.ts';

export interface ReplicaOptions {
  readonly path: string;
  /** Is told what was opened at `path`. */
  readonly access?: AccessCheck | undefined;
  /** What `open` is to name; ignored by an origin agent that has a database of its own. */
  readonly originPath: string;
  /** How the user named the origin. */
  readonly originName: string;
  readonly hash: HashAlgorithm;
  readonly compression: CompressionMode;
  readonly dryRun: boolean;
  readonly overwrite: boolean;
  readonly replace: boolean;
  /** A symbolic link in the place of the replica is followed. */
  readonly followLinks: boolean;
  /** How both agents read their databases. */
  readonly reader: Reader;
  readonly busyTimeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly onSnapshot?: (snapshot: {
    warnings: readonly string[];
    notes: readonly string[];
    pageCount: number;
  }) => void;
  readonly onProgress?: (progress: CopyProgress) => void;
}

export interface ReplicaResult {
  readonly done: MessageOf<'done'>;
  readonly snapshotHeldMs: number;
  readonly walGrowthBytes: number;
}

/** How often a copy starts again because the replica was changed under it. */
const MAX_ATTEMPTS = 4;

/**
 * Makes the replica a copy of the origin at the other end of `connection`, and sends `done` after the commit.
 * Throws SqlsyncError; the replica is then as it was.
 */
export async function runReplica(connection: Connection, options: ReplicaOptions): Promise<ReplicaResult> {
  for (let attempt = 1; ; attempt++) {
    try {
      const result = await attemptCopy(connection, options, attempt > 1);
      connection.send(result.done);
      await connection.drained();
      return result;
    } catch (error) {
      if (error instanceof RootMismatchError && attempt === 1) continue;
      if (!(error instanceof ReplicaMovedError)) throw error;
      if (attempt < MAX_ATTEMPTS) continue;
      throw new SqlsyncError(
        'BUSY',
        `Replica ${options.path} is being changed by another program again and again`,
        {
          hint: 'A replica must not be written by anybody else. Stop that program and run it again.',
          cause: error,
        },
      );
    }
  }
}

async function attemptCopy(
  connection: Connection,
  options: ReplicaOptions,
  again: boolean,
): Promise<ReplicaResult> {
  // A killed transaction's journal may have to be undone, and the WAL of a replica to be read.
  const place = await connection.whileBusy(() => inspectReplica(options.path, options));
  const seed = randomBytes(SEED_BYTES);
  const firstId = sendOpen(connection, place, seed, options);
  connection.expect(again ? 'reopening' : 'opening');
  const snapshot = await receiveSnapshot(connection);
  connection.state = 'driving';
  options.onSnapshot?.(snapshot);
  const size = pageSize(snapshot.pageSize);
  if (size === undefined || snapshot.pageCount > MAX_PAGE_COUNT) {
    const { pageSize: bytes, pageCount: pages } = snapshot;
    throw new SqlsyncError('PROTOCOL', `The origin announced ${pages} pages of ${bytes} bytes`);
  }
  const mark = markOf(snapshot, options.originName);
  const target = { pageSize: size, pageCount: pageCount(snapshot.pageCount), fileMode: snapshot.fileMode };
  let sink: PageSink | undefined;
  try {
    sink = await connection.whileBusy(() => openSink(place, target, { ...options, mark }));
    if (place.file !== undefined) options.access?.opened(place.path, place.file.fileId);
    const copy = new PageCopy({
      connection,
      sink,
      snapshot,
      pageSize: size,
      seed,
      firstId,
      hash: options.hash,
      dryRun: options.dryRun,
      onProgress: options.onProgress,
    });
    const { root, changed } = await copy.run();
    const warnings: string[] = [];
    const outcome = await settle(sink, place, options, { mark, changed, warnings });
    const { snapshotHeldMs, walGrowthBytes } = root;
    const done = message('done', {
      outcome: OUTCOMES[outcome],
      pageSize: snapshot.pageSize,
      pageCount: snapshot.pageCount,
      ...copy.counts,
      created: outcome === 'committed' && place.file === undefined,
      resumed: sink.resumed,
      warnings: [...place.warnings, ...sink.warnings, ...warnings],
    });
    return { done, snapshotHeldMs, walGrowthBytes };
  } finally {
    await sink?.abort();
  }
}

/** The snapshot; answers to the questions of an attempt that was given up come before it. */
async function receiveSnapshot(connection: Connection): Promise<MessageOf<'snapshot'>> {
  for (;;) {
    const next = await connection.receive();
    if (next.type === 'snapshot') return next;
  }
}

/**
 * Asks for a snapshot, and in the same breath for the first hashes where there is something to compare with.
 * Returns the id of that question, 0 where none was asked.
 */
function sendOpen(
  connection: Connection,
  place: ReplicaPlace,
  seed: Uint8Array,
  options: ReplicaOptions,
): number {
  connection.send(
    message('open', {
      path: options.originPath,
      seed,
      hash: HASH_ALGORITHMS[options.hash],
      compression: COMPRESSION_MODES[options.compression],
      replicaHost: hostName(),
      replicaPath: place.path,
      replicaFileId: place.file?.fileId ?? '',
      overwrite: options.overwrite,
      reader: READERS[options.reader],
      busyTimeoutMs: options.busyTimeoutMs,
      idleTimeoutMs: connection.idleTimeoutMs,
      maxTimeMs: connection.maxTimeMs,
    }),
  );
  if (!place.hasOldPages) return 0;
  connection.send(message('getHashes', { id: 1, level: LEVEL_TOP, first: 0, count: 0 }));
  return 1;
}

/** A restore leaves no mark: the database that is restored is an origin, and must stay protected as one. */
function markOf(snapshot: MessageOf<'snapshot'>, originName: string): MarkedOrigin | undefined {
  if (snapshot.restoring) return undefined;
  return { originName, originHost: snapshot.originHost, originPath: snapshot.originPath };
}

/** Commits what was copied and checked, and sees to what is beside the replica. */
async function settle(
  sink: PageSink,
  place: ReplicaPlace,
  options: ReplicaOptions,
  {
    mark,
    changed,
    warnings,
  }: {
    readonly mark: MarkedOrigin | undefined;
    readonly changed: boolean;
    readonly warnings: string[];
  },
): Promise<Outcome> {
  if (options.dryRun) return 'dryRun';
  const commits = changed && !(sink instanceof EmptyReplica && sink.unchanged);
  if (commits) await sink.commit();
  else await sink.abort();
  // A commit marks the replica itself.
  if (!commits && place.file !== undefined) markReplica(place.path, mark, { warnings });
  removeOwnLeftovers(place.path);
  return commits ? 'committed' : 'unchanged';
}
