import { randomBytes } from 'node:crypto';
import { message } from '../../protocol/encode.ts';
import { MAX_PAGE_COUNT } from '../../protocol/limits.ts';
import { COMPRESSION_MODES, HASH_ALGORITHMS, LEVEL_TOP, OUTCOMES, READERS } from '../../protocol/messages.ts';
import type { CompressionMode, HashAlgorithm, MessageOf, Outcome, Reader } from '../../protocol/messages.ts';
import { sanitizeText, SqlsyncError } from '../errors.ts';
import { SEED_BYTES } from '../pages/hash.ts';
import { EmptyReplica } from '../pages/empty-replica.ts';
import { ExistingReplica } from '../pages/existing-replica.ts';
import { removeOwnLeftovers } from '../pages/leftovers.ts';
import type { MarkedOrigin } from '../pages/mark.ts';
import { hostName, markReplica } from '../pages/mark.ts';
import { inspectReplica, openSink } from '../pages/open-replica.ts';
import type { ReplicaPlace } from '../pages/open-replica.ts';
import type { PageSink } from '../pages/page-source.ts';
import { Staging } from '../pages/staging.ts';
import type { StagingRule } from '../pages/staging.ts';
import { pageCount, pageSize } from '../pages/page-types.ts';
import { ReplicaMovedError, replicaError } from '../pages/replica-error.ts';
import { integrityFindings } from '../sqlite/integrity-check.ts';
import type { Connection } from './connection.ts';
import { PageCopy, RootMismatchError } from './page-copy.ts';
import type { CopyProgress } from './page-copy.ts';
import type { AccessCheck } from './restriction.ts';
import { RoundOverError, Rounds } from './rounds.ts';
import { hasLimits, NO_SNAPSHOT_LIMITS } from './snapshot-limit.ts';
import type { SnapshotLimits } from './snapshot-limit.ts';

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
  /** SQLite checks the replica at the end; what it finds goes into `done`. */
  readonly check: boolean;
  /** How both agents read their databases. */
  readonly reader: Reader;
  readonly busyTimeoutMs: number;
  /** When pages of a replica in WAL mode wait in the spool; by default never. With limits always. */
  readonly staging?: StagingRule | undefined;
  /** What ends a round; by default nothing does. */
  readonly limits?: SnapshotLimits | undefined;
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
  /** Snapshots that were begun because the one before came to its limit, and the first. */
  readonly rounds: number;
  /** The longest that a snapshot was held, and the most that the origin's WAL grew meanwhile. */
  readonly snapshotHeldMs: number;
  readonly walGrowthBytes: number;
}

/** What one run keeps over all its snapshots. */
interface RunState {
  readonly limits: SnapshotLimits;
  readonly staging: Staging;
  readonly rounds: Rounds;
  /** Snapshots that were asked for. */
  snapshots: number;
  /** Whether the first of them went on from the leftover of an interrupted run; undefined before that is known. */
  resumed: boolean | undefined;
}

/** How often a copy starts again because the replica was changed under it. */
const MAX_ATTEMPTS = 4;

/**
 * Makes the replica a copy of the origin at the other end of `connection`, and sends `done` after the commit.
 * Throws SqlsyncError; the replica is then as it was.
 */
export async function runReplica(connection: Connection, options: ReplicaOptions): Promise<ReplicaResult> {
  const limits = options.limits ?? NO_SNAPSHOT_LIMITS;
  const staging = new Staging(hasLimits(limits) ? 'always' : (options.staging ?? 'never'));
  const run: RunState = { limits, staging, rounds: new Rounds(limits), snapshots: 0, resumed: undefined };
  try {
    const result = await copyUntilDone(connection, options, run);
    connection.send(result.done);
    await connection.drained();
    return result;
  } finally {
    staging.close();
  }
}

async function copyUntilDone(
  connection: Connection,
  options: ReplicaOptions,
  run: RunState,
): Promise<ReplicaResult> {
  for (let attempt = 1; ;) {
    try {
      return await attemptCopy(connection, options, run);
    } catch (error) {
      if (error instanceof RoundOverError) {
        run.rounds.add(error.round);
        continue;
      }
      const isFirst = attempt++ === 1;
      if (error instanceof RootMismatchError && isFirst) continue;
      if (!(error instanceof ReplicaMovedError)) throw error;
      if (attempt <= MAX_ATTEMPTS) continue;
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
  run: RunState,
): Promise<ReplicaResult> {
  // A killed transaction's journal may have to be undone, and the WAL of a replica to be read.
  const place = await connection.whileBusy(() => inspectReplica(options.path, options));
  // Before the snapshot begins: the hashes of its pages are checked.
  if (place.file !== undefined && !options.dryRun)
    await connection.whileBusy(() => resumeStaging(run.staging, place.path));
  const seed = randomBytes(SEED_BYTES);
  const firstId = sendOpen(connection, place, seed, { ...options, limits: run.limits });
  connection.expect(run.snapshots++ > 0 ? 'reopening' : 'opening');
  const snapshot = await receiveSnapshot(connection);
  connection.state = 'driving';
  options.onSnapshot?.(snapshot);
  const size = pageSize(snapshot.pageSize);
  if (size === undefined || snapshot.pageCount > MAX_PAGE_COUNT) {
    const { pageSize: bytes, pageCount: pages } = snapshot;
    throw new SqlsyncError('PROTOCOL', `The origin announced ${pages} pages of ${bytes} bytes`);
  }
  const mark = markOf(snapshot, options);
  const target = { pageSize: size, pageCount: pageCount(snapshot.pageCount), fileMode: snapshot.fileMode };
  let sink: PageSink | undefined;
  try {
    sink = await connection.whileBusy(() =>
      openSink(place, target, { ...options, mark, staging: run.staging }),
    );
    run.resumed ??= sink.resumed;
    checkAccess(place, sink, options);
    const copy = new PageCopy({
      connection,
      sink,
      snapshot,
      pageSize: size,
      seed,
      firstId,
      hash: options.hash,
      dryRun: options.dryRun,
      isLimited: hasLimits(run.limits),
      onProgress: options.onProgress,
    });
    const { root, changed } = await copy.run();
    run.rounds.held(root);
    const warnings: string[] = [];
    const outcome = await settle(sink, place, options, { mark, changed, warnings, staging: run.staging });
    const findings = options.check && outcome !== 'dryRun' ? await findingsOf(place.path, options) : [];
    const done = message('done', {
      outcome: OUTCOMES[outcome],
      pageSize: snapshot.pageSize,
      pageCount: snapshot.pageCount,
      ...countsOf(copy, run.rounds),
      created: outcome === 'committed' && place.file === undefined,
      resumed: run.resumed,
      warnings: [...place.warnings, ...sink.warnings, ...warnings],
      findings,
    });
    const { count, longestSnapshotMs: snapshotHeldMs, largestWalGrowthBytes: walGrowthBytes } = run.rounds;
    return { done, rounds: count + 1, snapshotHeldMs, walGrowthBytes };
  } finally {
    await sink?.abort();
  }
}

async function resumeStaging(staging: Staging, path: string): Promise<void> {
  try {
    await staging.resume(path);
  } catch (error) {
    throw replicaError(path, error);
  }
}

/** With what the rounds before have received; a page that changed again counts again. */
function countsOf(copy: PageCopy, rounds: Rounds): PageCopy['counts'] {
  const { pagesCompared, pagesChanged, pagesTransferred, pagesDelta } = copy.counts;
  return {
    pagesCompared,
    pagesChanged: pagesChanged + rounds.pagesTransferred,
    pagesTransferred: pagesTransferred + rounds.pagesTransferred,
    pagesDelta: pagesDelta + rounds.pagesDelta,
  };
}

/** The replica is an exact copy by now: what is found wrong with it is wrong with the origin's snapshot. */
async function findingsOf(path: string, options: ReplicaOptions): Promise<string[]> {
  const findings = await integrityFindings(path, options.busyTimeoutMs, options.signal);
  return findings.map((finding) => sanitizeText(finding));
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
  options: ReplicaOptions & { readonly limits: SnapshotLimits },
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
      ...options.limits,
    }),
  );
  if (!place.hasOldPages) return 0;
  connection.send(message('getHashes', { id: 1, level: LEVEL_TOP, first: 0, count: 0 }));
  return 1;
}

/** Longer than any path and host name there is, and together less than a mark may hold. */
const MAX_ORIGIN_PATH_BYTES = 4096;
const MAX_ORIGIN_HOST_BYTES = 255;

/**
 * A restore leaves no mark: the database that is restored is an origin, and must stay protected as one. Throws
 * SqlsyncError PROTOCOL where the origin agent claims one that was not asked for, or names what there cannot be.
 */
function markOf(
  snapshot: MessageOf<'snapshot'>,
  { originName, overwrite }: ReplicaOptions,
): MarkedOrigin | undefined {
  const { originHost, originPath, restoring } = snapshot;
  if (restoring && !overwrite) {
    throw new SqlsyncError(
      'PROTOCOL',
      'The origin announced a restore, which --overwrite would have to ask for',
    );
  }
  const isPossible =
    Buffer.byteLength(originHost) <= MAX_ORIGIN_HOST_BYTES &&
    Buffer.byteLength(originPath) <= MAX_ORIGIN_PATH_BYTES &&
    Buffer.byteLength(originName) <= MAX_ORIGIN_HOST_BYTES + MAX_ORIGIN_PATH_BYTES;
  if (!isPossible) throw new SqlsyncError('PROTOCOL', 'The origin announced a host or path that is too long');
  return restoring ? undefined : { originName, originHost, originPath };
}

/** Throws SqlsyncError RESTRICTED where the file to be written is not the one that was allowed. */
function checkAccess(place: ReplicaPlace, sink: PageSink, { access }: ReplicaOptions): void {
  if (place.file !== undefined)
    access?.opened(place.path, place.file.fileId, sink instanceof ExistingReplica);
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
    staging,
  }: {
    readonly mark: MarkedOrigin | undefined;
    readonly changed: boolean;
    readonly warnings: string[];
    readonly staging: Staging;
  },
): Promise<Outcome> {
  if (options.dryRun) return 'dryRun';
  const commits = changed && !(sink instanceof EmptyReplica && sink.unchanged);
  // Those that do not hold it open are about to open it.
  checkAccess(place, sink, options);
  if (commits) await sink.commit();
  else await sink.abort();
  // A commit marks the replica itself.
  if (!commits && place.file !== undefined) markReplica(place.path, mark, { warnings });
  staging.remove();
  removeOwnLeftovers(place.path);
  return commits ? 'committed' : 'unchanged';
}
