import { Announcements } from '../request/announcements.ts';
import type { AnnouncedSnapshot } from '../request/announcements.ts';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { message } from '../../../protocol/encode.ts';
import { nameOf, OUTCOMES, PHASES } from '../../../protocol/messages.ts';
import type { MessageOf, Outcome } from '../../../protocol/messages.ts';
import { sanitizeText, SqlsyncError } from '../../errors.ts';
import { realPath } from '../../files/path-names.ts';
import { formatLocation, parseLocation } from '../../transport/location.ts';
import type { Location } from '../../transport/location.ts';
import type { Ask } from '../../transport/terminal.ts';
import { AnswerMemory, terminalAsk } from '../../transport/terminal.ts';
import type { Connection } from '../link/connection.ts';
import { converse } from './conversation.ts';
import type { Traffic } from './conversation.ts';
import { copyRequest, encodeRequest } from '../request/copy-request.ts';
import type { CopyRequest, CopyRequestOptions } from '../request/copy-request.ts';
import { serveOrigin } from '../agents/origin-agent.ts';
import type { FollowedOrigin } from '../agents/followed-origin.ts';
import type { FollowedReplica } from '../quick/followed-replica.ts';
import type { OriginResult } from '../agents/origin-agent.ts';
import type { CopyProgress } from '../agents/page-copy.ts';
import { runReplica } from '../agents/replica-agent.ts';
import { looksKnown } from '../quick/known-tree.ts';
import { QuickCheck } from '../quick/quick-check.ts';
import type { ReplicaOptions } from '../agents/replica-options.ts';
import { copyLocally } from '../local/local-copy.ts';
import { mayWorkHere } from './agent-here.ts';
import { withRetries } from './retry.ts';
import type { Retry } from './retry.ts';
import type { CopyRunOptions, RunOptions } from './run-options.ts';

export interface SyncOptions
  extends CopyRunOptions, Omit<CopyRequestOptions, 'compression' | keyof RunOptions> {
  /** Path, `[user@]host:path` or `ssh://…` of the database to copy. */
  readonly origin: string;
  /** As `origin`, for the copy; one of the two must be local. */
  readonly replica: string;
  /** How often to try again when the connection fails; default 0. What has arrived is not sent again. */
  readonly retries?: number;
  /**
   * True to let a new replica share the blocks of the origin, where both are on one file system with reflinks. It takes
   * little time and room; both files then need room as they are written. Throws USAGE where that is not possible.
   */
  readonly reflink?: boolean | undefined;
}

export interface SyncSummary {
  readonly origin: string;
  readonly replica: string;
  readonly outcome: Outcome;
  /** Bytes. */
  readonly pageSize: number;
  readonly pageCount: number;
  readonly pagesCompared: number;
  /** Pages that differed or did not exist; with `dryRun` those that a sync would transfer. */
  readonly pagesChanged: number;
  readonly pagesTransferred: number;
  /** How many of `pagesTransferred` travelled as changed blocks only. */
  readonly pagesDelta: number;
  /** Bytes to and from the far agent, with the protocol but without SSH's own. */
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly durationMs: number;
  /** The number of attempts, with `retries`. */
  readonly attempts: number;
  /** The number of snapshots of the last attempt, with `maxSnapshotMs` and `maxWalGrowthBytes`. */
  readonly rounds: number;
  /** The longest that the origin's read transaction was open, and the most that its -wal file grew meanwhile. */
  readonly snapshotHeldMs: number;
  readonly walGrowthBytes: number;
  /** True if the replica did not exist before. */
  readonly created: boolean;
  /** True if it continued from what an interrupted run or attempt had received. */
  readonly resumed: boolean;
  /**
   * True if no page was compared, because both databases are as an earlier comparison of all pages left them. See
   * `full`.
   */
  readonly quick: boolean;
  readonly warnings: readonly string[];
  /**
   * What `check` found wrong with the replica, and so with the origin, whose exact copy it is; empty if it is sound.
   */
  readonly findings: readonly string[];
}

/** One run, with everything decided. */
export interface Run {
  readonly options: SyncOptions;
  readonly origin: Location;
  readonly replica: Location;
  readonly request: CopyRequest;
  readonly announcements: Announcements;
  /** The traffic of all attempts. */
  readonly traffic: Traffic;
}

/** One of the two is in use: that of the near side. */
export interface Follow {
  readonly replica: FollowedReplica;
  readonly origin: FollowedOrigin;
}

/** One of the connections of a run. */
export interface Attempt {
  readonly number: number;
  readonly ask: Ask | undefined;
  /** The time left of the caller's limit for the run, in milliseconds. */
  readonly maxTimeMs: number | undefined;
  /** What the near side keeps from one step to the next, if the replica follows the origin. */
  readonly follow?: Follow | undefined;
  /** Called when a snapshot has begun. */
  readonly onSnapshot?: (() => void) | undefined;
  /** True to make the folders that lead to a replica elsewhere. */
  readonly makesFolders?: boolean | undefined;
  /** True once pages have arrived. */
  hasProgressed: boolean;
}

/**
 * Makes `replica` an exact copy of one snapshot of `origin`. Resolves after the replica's side confirmed its commit.
 * Throws SqlsyncError; the replica is then unchanged.
 *
 * Opens the local database in this process, so it needs a process of its own: in an application, closing our
 * descriptors would drop the locks that the application's SQLite holds.
 */
export async function runSync(options: SyncOptions): Promise<SyncSummary> {
  const startedAt = performance.now();
  const run = plan(options);
  const retries = options.retries ?? 0;
  const ask = retries > 0 ? terminalAsk() : undefined;
  const answers = ask === undefined ? undefined : new AnswerMemory(ask);
  let attempt: Attempt;
  const { result, attempts } = await withRetries(
    (number) => {
      const maxTimeMs = remaining(options.maxTimeMs, startedAt);
      attempt = { number, ask: answers?.forNextLogin(), maxTimeMs, hasProgressed: false };
      return connectAndCopy(run, attempt);
    },
    {
      retries,
      hasProgressed: () => attempt.hasProgressed,
      onRetry: (retry) => announceRetry(run, retry),
      signal: options.signal,
    },
  );
  return summarize(run, result, attempts, performance.now() - startedAt);
}

/** The time left of a limit, in ms. At least 1, because 0 means no limit. */
export function remaining(maxTimeMs: number | undefined, startedAt: number): number | undefined {
  return maxTimeMs && Math.max(1, Math.round(maxTimeMs - (performance.now() - startedAt)));
}

async function connectAndCopy(run: Run, attempt: Attempt): Promise<OriginResult> {
  const { options } = run;
  const made = await copyHere(run, attempt);
  if (made !== undefined) return made;
  const far = farOf(run.origin, run.replica);
  const conversation = {
    run: options,
    maxTimeMs: attempt.maxTimeMs,
    ask: attempt.ask,
    // The replica's side refuses a replica that is the origin.
    mayShareProcess: far === run.origin,
    isUnread: isUnread(run),
    traffic: run.traffic,
    onWarning: (text: string) => run.announcements.warn(text),
  };
  return far === run.origin
    ? converse(far, 'opening', conversation, (connection) => pull(connection, run, attempt))
    : converse(far, 'offering', conversation, (connection) => push(connection, run, attempt));
}

/** True if both databases are here, and look as if little or nothing of them had to be read. */
function isUnread({ request, origin, replica }: Run): boolean {
  if (origin.kind !== 'local' || replica.kind !== 'local' || request.dryRun) return false;
  try {
    const replicaPath = realPath(replica.path);
    const options = { ...request, originFile: origin.path, originName: nameFor(origin), replicaPath };
    return new QuickCheck(options).looksUntouched || looksKnown(options, realPath(origin.path));
  } catch {
    return false; // the agents say what is wrong
  }
}

/** Makes a new local replica without an agent; undefined if an agent is needed. A limited rate needs its pipe. */
async function copyHere(run: Run, attempt: Attempt): Promise<OriginResult | undefined> {
  const isLocal = run.origin.kind === 'local' && run.replica.kind === 'local';
  if (!isLocal || run.options.bandwidthBytesPerS !== undefined || !mayWorkHere()) return undefined;
  return copyLocally(replicaOptions(run, attempt));
}

/** Throws SqlsyncError USAGE, BOTH_REMOTE. */
export function plan(options: SyncOptions): Run {
  const origin = parseLocation(options.origin);
  const replica = parseLocation(options.replica);
  if (origin.kind === 'ssh' && replica.kind === 'ssh') {
    throw new SqlsyncError(
      'BOTH_REMOTE',
      'Origin and replica are both on other hosts; one of them must be local',
      {
        hint: 'Run sqlsync on one of the two hosts.',
      },
    );
  }
  if (options.reflink === true) refuseAgents(options, origin, replica);
  return {
    options,
    origin,
    replica,
    request: copyRequest({ ...options, compression: options.compress }),
    announcements: new Announcements(options),
    traffic: { bytesSent: 0, bytesReceived: 0 },
  };
}

/** Throws SqlsyncError USAGE for a reflink that would need agents: they send pages. */
function refuseAgents(options: SyncOptions, origin: Location, replica: Location): void {
  const limits = {
    '--bwlimit': options.bandwidthBytesPerS,
    '--max-snapshot': options.maxSnapshotMs,
    '--max-wal-growth': options.maxWalGrowthBytes,
    '--reader dbpage': options.reader === 'dbpage',
  };
  const [limit] = Object.entries(limits).find(([, value]) => Boolean(value)) ?? [];
  if (limit !== undefined) throw new SqlsyncError('USAGE', `--reflink and ${limit} exclude each other`);
  if (origin.kind === 'local' && replica.kind === 'local') return;
  throw new SqlsyncError('USAGE', '--reflink works only between two files of this host', {
    hint: 'Leave --reflink out to copy to or from another host.',
  });
}

/** Where to start the agent: for the origin, unless only the replica is elsewhere. */
export function farOf(origin: Location, replica: Location): Location {
  return origin.kind === 'local' && replica.kind === 'ssh' ? replica : origin;
}

/** The replica is here and drives; the origin agent is at the other end. */
export function pull(connection: Connection, run: Run, attempt: Attempt): Promise<OriginResult> {
  return runReplica(connection, replicaOptions(run, attempt));
}

function replicaOptions(run: Run, attempt: Attempt): ReplicaOptions {
  const { options, origin } = run;
  return {
    ...run.request,
    path: resolve(run.replica.path),
    originPath: origin.kind === 'local' ? resolve(origin.path) : origin.path,
    ...(origin.kind === 'local' ? { originFile: resolve(origin.path) } : {}),
    reflink: options.reflink,
    originName: nameFor(origin),
    staging: attempt.number > 1 ? 'always' : origin.kind === 'ssh' ? 'large' : 'never',
    signal: options.signal,
    followed: attempt.follow?.replica,
    onSnapshot: (snapshot) => announce(run, attempt, snapshot),
    onProgress: (progress) => notice(run, attempt, progress),
    onNote: (note) => run.announcements.note(note),
  };
}

/** The origin is here; the replica agent at the other end drives. */
export async function push(connection: Connection, run: Run, attempt: Attempt): Promise<OriginResult> {
  const { options, origin, replica } = run;
  connection.send(
    message('replicate', {
      ...encodeRequest(run.request),
      path: replica.path,
      restore: false,
      originName: nameFor(origin),
      idleTimeoutMs: connection.idleTimeoutMs,
      maxTimeMs: connection.maxTimeMs,
      stage: attempt.number > 1,
      lookEveryMs: attempt.follow?.replica.lookEveryMs ?? 0,
      makeFolders: attempt.makesFolders === true,
    }),
  );
  const open = await connection.receiveOnly('open');
  return serveOrigin(connection, open, {
    path: resolve(origin.path),
    dryRun: run.request.dryRun,
    followed: attempt.follow?.origin,
    signal: options.signal,
    onSnapshot: (snapshot) => announce(run, attempt, snapshot),
    onProgress: (progress) => forwardProgress(run, attempt, progress),
  });
}

function announce(run: Run, attempt: Attempt, snapshot: AnnouncedSnapshot): void {
  attempt.onSnapshot?.();
  run.announcements.snapshot(snapshot);
}

function forwardProgress(run: Run, attempt: Attempt, progress: MessageOf<'progress'>): void {
  const phase = nameOf(PHASES, progress.phase);
  if (phase !== undefined) notice(run, attempt, { ...progress, phase });
}

function notice(run: Run, attempt: Attempt, progress: CopyProgress): void {
  if (progress.pagesReceived > 0) attempt.hasProgressed = true;
  run.options.onProgress?.(progress);
}

function announceRetry(run: Run, { failure, pauseMs, attempt }: Retry): void {
  const last = (run.options.retries ?? 0) + 1;
  run.announcements.warn(
    `${failure.message} [${failure.code}]; attempt ${attempt} of ${last} follows in ${(pauseMs / 1000).toFixed(1)} s`,
    'advice',
  );
}

/** How the mark names the origin in messages: enough to find it from any host. */
export function nameFor(origin: Location): string {
  if (origin.kind === 'ssh') return formatLocation(origin);
  try {
    return `${hostname()}:${realPath(origin.path)}`;
  } catch {
    return `${hostname()}:${resolve(origin.path)}`;
  }
}

/** What the caller of a run gets. Throws SqlsyncError PROTOCOL. */
export function summarize(run: Run, result: OriginResult, attempts: number, durationMs: number): SyncSummary {
  const { done } = result;
  const outcome = nameOf(OUTCOMES, done.outcome);
  if (outcome === undefined)
    throw new SqlsyncError('PROTOCOL', `The other side reported outcome ${done.outcome}`);
  for (const warning of done.warnings) run.announcements.warn(warning);
  return {
    origin: run.options.origin,
    replica: run.options.replica,
    outcome,
    pageSize: done.pageSize,
    pageCount: done.pageCount,
    pagesCompared: done.pagesCompared,
    pagesChanged: done.pagesChanged,
    pagesTransferred: done.pagesTransferred,
    pagesDelta: done.pagesDelta,
    ...run.traffic,
    durationMs: Math.round(durationMs),
    attempts,
    rounds: result.rounds,
    snapshotHeldMs: result.snapshotHeldMs,
    walGrowthBytes: result.walGrowthBytes,
    created: done.created,
    resumed: done.resumed,
    quick: done.quick,
    warnings: run.announcements.warnings,
    findings: done.findings.map((finding) => sanitizeText(finding)),
  };
}
