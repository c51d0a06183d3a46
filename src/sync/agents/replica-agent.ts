import { randomBytes } from 'node:crypto';
import { message } from '../../../protocol/encode.ts';
import { MAX_PAGE_COUNT } from '../../../protocol/limits.ts';
import {
  COMPRESSION_MODES,
  HASH_ALGORITHMS,
  LEVEL_TOP,
  OUTCOMES,
  READERS,
} from '../../../protocol/messages.ts';
import type { MessageOf } from '../../../protocol/messages.ts';
import { SqlsyncError } from '../../errors.ts';
import { HASH_KEY_BYTES } from '../../pages/hash.ts';
import { hostName, systemFileId } from '../../files/machine.ts';
import { ownerOf } from '../../files/ownership.ts';
import type { PageSink, SinkTarget } from '../../pages/page-source.ts';
import { pageCount, pageSize } from '../../pages/page-types.ts';
import type { PageSize } from '../../pages/page-types.ts';
import { ReplicaMovedError } from '../../replica/replica-error.ts';
import { Staging } from '../../replica/spool/staging.ts';
import type { Connection } from '../link/connection.ts';
import type { CopiedPages, Destination } from './destination.ts';
import type { CopyOptions, ReplicaOptions } from './replica-options.ts';
import { UnsettledLossError } from '../quick/followed-replica.ts';
import type { FollowedReplica } from '../quick/followed-replica.ts';
import { QuickMissError } from '../quick/quick-check.ts';
import { PageCopy } from './page-copy.ts';
import { databaseDestination } from './replica-database.ts';
import { replicaFailure } from '../../replica/replica-failure.ts';
import { PageMismatchError, RootMismatchError } from './root-mismatch.ts';
import { RoundOverError, Rounds } from './rounds.ts';
import { checkShrinkage, isGreatLoss } from './shrinkage.ts';
import { hasLimits } from '../request/snapshot-limit.ts';

export interface ReplicaResult {
  readonly done: MessageOf<'done'>;
  /** The number of snapshots: the first, and one for each that reached its limit. */
  readonly rounds: number;
  /** The longest that a snapshot was held, and the most that the origin's WAL grew meanwhile. */
  readonly snapshotHeldMs: number;
  readonly walGrowthBytes: number;
}

/** What one run keeps over all its snapshots. */
interface RunState {
  readonly rounds: Rounds;
  /** Snapshots requested so far. */
  snapshots: number;
  /** Whether the first of them continued from the leftover of an interrupted run; undefined before that is known. */
  resumed: boolean | undefined;
}

const NO_STAMP = new Uint8Array(0);

/** How often a copy starts again because another program changed the replica meanwhile. */
const MAX_ATTEMPTS = 4;

/**
 * Makes the replica a copy of the origin at the other end of `connection`, and sends `done` after the commit. Throws
 * SqlsyncError; the replica is then unchanged.
 */
export async function runReplica(connection: Connection, options: ReplicaOptions): Promise<ReplicaResult> {
  const rule = hasLimits(options) ? 'always' : options.staging;
  const staging = new Staging(rule ?? 'never');
  try {
    return await runCopy(connection, options, (attempt) => databaseDestination(options, staging, attempt));
  } catch (error) {
    staging.close();
    throw replicaFailure(error, { ...options, restores: options.restores === true });
  } finally {
    staging.close();
  }
}

/**
 * As `runReplica`, for any destination. Each attempt opens a new one: the second must not use hashes that were known
 * before, in case those are wrong.
 */
export async function runCopy(
  connection: Connection,
  options: CopyOptions,
  destinationOf: (attempt: number) => Destination | Promise<Destination>,
): Promise<ReplicaResult> {
  const run: RunState = { rounds: new Rounds(options), snapshots: 0, resumed: undefined };
  const result = await copyUntilDone(connection, options, destinationOf, run);
  connection.send(result.done);
  await connection.drained();
  return result;
}

async function copyUntilDone(
  connection: Connection,
  options: CopyOptions,
  destinationOf: (attempt: number) => Destination | Promise<Destination>,
  run: RunState,
): Promise<ReplicaResult> {
  for (let attempt = 1; ;) {
    await untilDue(connection, options.followed);
    // SQLite may have to undo a killed transaction's journal, or read a long WAL; the spool is read too.
    const destination = await connection.whileBusy(() => destinationOf(attempt));
    try {
      return await attemptCopy(connection, options, destination, run);
    } catch (error) {
      if (error instanceof RoundOverError) {
        run.rounds.add(error.round);
        continue;
      }
      if (error instanceof UnsettledLossError) {
        // The wait for the next snapshot must not hold this one.
        connection.send(message('release', {}));
        continue;
      }
      const isFirst = attempt++ === 1;
      if (isFirst && mayBeWronglyKnown(error, destination)) continue;
      if (!(error instanceof ReplicaMovedError)) throw error;
      if (attempt <= MAX_ATTEMPTS) continue;
      throw new SqlsyncError('BUSY', `Another program keeps changing replica ${destination.path}`, {
        hint: 'Nothing was changed. Stop that program, then run sqlsync again: no other program may write a replica.',
        cause: error,
      });
    }
  }
}

/** Waits until the next step of a follower may begin. Throws as `Connection.receive`, if the peer goes meanwhile. */
async function untilDue(connection: Connection, followed: FollowedReplica | undefined): Promise<void> {
  if (followed === undefined || followed.untilDueMs <= 0) return;
  // Answers to the questions of an abandoned attempt may still come.
  connection.expect('reopening');
  await connection.untimed(async () => {
    for (let left = followed.untilDueMs; left > 0; left = followed.untilDueMs)
      await connection.receiveWithin(left);
  });
}

/** True if another attempt, which uses nothing that is known from before, may come to another end. */
function mayBeWronglyKnown(error: unknown, { key }: Destination): boolean {
  if (error instanceof RootMismatchError || error instanceof QuickMissError) return true;
  return error instanceof PageMismatchError && key !== undefined;
}

async function attemptCopy(
  connection: Connection,
  options: CopyOptions,
  destination: Destination,
  run: RunState,
): Promise<ReplicaResult> {
  const key = destination.key ?? randomBytes(HASH_KEY_BYTES);
  const firstId = sendOpen(connection, destination, key, options);
  connection.expect(run.snapshots++ > 0 ? 'reopening' : 'opening');
  const snapshot = await receiveSnapshot(connection, options.followed);
  const heldSince = performance.now();
  connection.state = 'driving';
  options.onSnapshot?.(snapshot);
  const size = pageSize(snapshot.pageSize);
  if (size === undefined || snapshot.pageCount > MAX_PAGE_COUNT) {
    const { pageSize: bytes, pageCount: pages } = snapshot;
    throw new SqlsyncError('PROTOCOL', `The origin announced ${pages} pages of ${bytes} bytes`);
  }
  const target = targetOf(snapshot, size, options);
  let sink: PageSink | undefined;
  let copy: PageCopy | undefined;
  try {
    const opened = await connection.whileBusy(() => destination.openSink(target, snapshot));
    sink = opened;
    run.resumed ??= sink.resumed === true;
    options.followed?.consider(losesMuch(destination, sink, target, options));
    const alarms = alarmsOf(destination, sink, target, options);
    const quick = isKnown(destination, sink, snapshot);
    if (!quick) {
      const { hash, dryRun, onProgress } = options;
      const old = destination.recall?.(sink, size);
      const how = { hash, dryRun, isLimited: hasLimits(options), onProgress, old };
      copy = new PageCopy({ connection, sink, snapshot, pageSize: size, key, firstId, ...how });
    }
    const { root, changed, nodes } = await (copy?.run() ?? releaseUnread(connection, heldSince));
    run.rounds.held(root);
    const counts = countsOf(copy, run.rounds);
    const { resumed } = run;
    const done = await connection.whileBusy(() =>
      settleCopy(destination, opened, { changed, quick, nodes, counts, snapshot, resumed, alarms }),
    );
    const { count, longestSnapshotMs: snapshotHeldMs, largestWalGrowthBytes: walGrowthBytes } = run.rounds;
    return { done, rounds: count + 1, snapshotHeldMs, walGrowthBytes };
  } catch (error) {
    const isMoved = error instanceof ReplicaMovedError;
    if (copy !== undefined && (isMoved || mayBeWronglyKnown(error, destination)))
      run.rounds.received(copy.counts);
    throw error;
  } finally {
    await sink?.abort();
  }
}

/**
 * True if both sides are known to be the same, so that no page is read. Throws QuickMissError if only the origin is as
 * known: its agent then answers no question about hashes.
 */
function isKnown(destination: Destination, sink: PageSink, snapshot: MessageOf<'snapshot'>): boolean {
  const { originStamp } = destination.quick ?? {};
  if (!originStamp?.length || Buffer.compare(originStamp, snapshot.stamp) !== 0) return false;
  if (destination.isKnown?.(sink) === true) return true;
  throw new QuickMissError();
}

/** Ends a snapshot before reading anything of it. */
async function releaseUnread(
  connection: Connection,
  heldSince: number,
): Promise<{ root: Parameters<Rounds['held']>[0]; changed: boolean; nodes?: undefined }> {
  connection.send(message('release', {}));
  await connection.drained();
  const snapshotHeldMs = Math.round(performance.now() - heldSince);
  return { root: { snapshotHeldMs, walGrowthBytes: 0 }, changed: false };
}

/** What a sink needs to know of a snapshot. */
export function targetOf(
  { pageCount: pages, fileMode }: MessageOf<'snapshot'>,
  size: PageSize,
  { originFile }: CopyOptions,
): SinkTarget {
  return {
    pageSize: size,
    pageCount: pageCount(pages),
    fileMode,
    fileOwner: originFile === undefined ? undefined : ownerOf(originFile),
    originPath: originFile,
  };
}

/** Commits what was copied and checked, and says what became of it. */
export async function settleCopy(
  destination: Destination,
  sink: PageSink,
  copied: Omit<CopiedPages, 'warnings'> & { readonly resumed: boolean; readonly alarms: readonly string[] },
): Promise<MessageOf<'done'>> {
  const { snapshot, counts, resumed, quick, alarms } = copied;
  const warnings: string[] = [];
  const outcome = await destination.settle(sink, { ...copied, warnings });
  const findings = [...((await destination.findings?.(warnings)) ?? [])];
  return message('done', {
    outcome: OUTCOMES[outcome],
    pageSize: snapshot.pageSize,
    pageCount: snapshot.pageCount,
    ...counts,
    // Counts also the pages that an earlier snapshot or an interrupted run had brought.
    pagesChanged: outcome === 'unchanged' ? 0 : (sink.pagesChanged ?? counts.pagesChanged),
    created: outcome === 'committed' && destination.isNew,
    resumed,
    quick,
    warnings: [...destination.warnings, ...sink.warnings, ...warnings, ...alarms],
    findings,
  });
}

function losesMuch(
  destination: Destination,
  sink: PageSink,
  target: SinkTarget,
  { maxShrinkPercent }: CopyOptions,
): boolean {
  const before = destination.copyBefore?.(sink, target);
  if (before === undefined) return false;
  const shrinkage = { copy: before.name, pagesBefore: before.pages, pagesNow: target.pageCount };
  return isGreatLoss(shrinkage, maxShrinkPercent);
}

/**
 * Tells `onAlarm`, or else returns for `done`, the warning about an origin that lost much. Throws ORIGIN_SHRUNK if the
 * loss is more than the user allows.
 */
export function alarmsOf(
  destination: Destination,
  sink: PageSink,
  target: SinkTarget,
  { maxShrinkPercent, onAlarm }: CopyOptions,
): string[] {
  const before = destination.copyBefore?.(sink, target);
  if (before === undefined) return [];
  const { name: copy, pages: pagesBefore } = before;
  const alarm = checkShrinkage({ copy, pagesBefore, pagesNow: target.pageCount }, maxShrinkPercent);
  if (alarm === undefined || onAlarm === undefined) return alarm === undefined ? [] : [alarm];
  onAlarm(alarm);
  return [];
}

const NO_PAGES = { pagesCompared: 0, pagesChanged: 0, pagesTransferred: 0, pagesDelta: 0 };

/** Adds the counts of the earlier snapshots; a page that changed again counts again. */
function countsOf(copy: PageCopy | undefined, rounds: Rounds): PageCopy['counts'] {
  const { pagesCompared, pagesChanged, pagesTransferred, pagesDelta } = copy?.counts ?? NO_PAGES;
  return {
    pagesCompared,
    pagesChanged,
    pagesTransferred: pagesTransferred + rounds.pagesTransferred,
    pagesDelta: pagesDelta + rounds.pagesDelta,
  };
}

/** The snapshot. Answers to the questions of an abandoned attempt may come before it. */
async function receiveSnapshot(
  connection: Connection,
  followed: FollowedReplica | undefined,
): Promise<MessageOf<'snapshot'>> {
  if (followed?.hasStepped === true) return connection.untimed(() => awaitSnapshot(connection, followed));
  for (;;) {
    const next = await connection.receive();
    if (next.type === 'snapshot') return next;
  }
}

/** The snapshot of the next change, or one that is asked for because of a reason of this side. */
async function awaitSnapshot(
  connection: Connection,
  followed: FollowedReplica,
): Promise<MessageOf<'snapshot'>> {
  for (let isAwake = false; ;) {
    const next = await (isAwake ? connection.receive() : connection.receiveWithin(followed.lookEveryMs));
    if (next?.type === 'snapshot') return next;
    if (isAwake || !followed.needsStep) continue;
    isAwake = true;
    connection.send(message('wake', {}));
  }
}

/**
 * Requests a snapshot, and with it the first hashes if there are pages to compare with. Returns the id of the question
 * for hashes, or 0.
 */
function sendOpen(
  connection: Connection,
  destination: Destination,
  key: Uint8Array,
  options: CopyOptions,
): number {
  connection.send(openRequest(destination, key, options, connection));
  // An origin that waits for a change takes no question meanwhile.
  if (!destination.hasOldPages || options.followed !== undefined) return 0;
  connection.send(message('getHashes', { id: 1, level: LEVEL_TOP, first: 0, count: 0 }));
  return 1;
}

/** The request for a snapshot; `limits` are in milliseconds. */
export function openRequest(
  destination: Destination,
  key: Uint8Array,
  options: CopyOptions,
  { idleTimeoutMs, maxTimeMs }: { readonly idleTimeoutMs: number; readonly maxTimeMs: number },
): MessageOf<'open'> {
  return message('open', {
    path: options.originPath,
    key,
    hash: HASH_ALGORITHMS[options.hash],
    compression: COMPRESSION_MODES[options.compression],
    // A known copy of this origin is not the origin of it.
    replicaHost: destination.isKnownCopy === true ? '' : hostName(),
    replicaPath: destination.path,
    replicaFileId: systemFileId(destination.fileId),
    overwrite: options.overwrite,
    knownStamp: destination.quick?.originStamp ?? NO_STAMP,
    reader: READERS[options.reader],
    busyTimeoutMs: options.busyTimeoutMs,
    idleTimeoutMs,
    maxTimeMs,
    maxSnapshotMs: options.maxSnapshotMs,
    maxWalGrowthBytes: options.maxWalGrowthBytes,
    lookEveryMs: options.followed?.lookEveryMs ?? 0,
  });
}
