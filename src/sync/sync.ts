import { realpathSync } from 'node:fs';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { message } from '../../protocol/encode.ts';
import {
  COMPRESSION_MODES,
  HASH_ALGORITHMS,
  nameOf,
  OUTCOMES,
  PHASES,
  READERS,
} from '../../protocol/messages.ts';
import type { CompressionMode, HashAlgorithm, MessageOf, Outcome, Reader } from '../../protocol/messages.ts';
import { sanitizeText, SqlsyncError, toSqlsyncError } from '../errors.ts';
import { formatLocation, parseLocation } from '../transport/location.ts';
import type { Location } from '../transport/location.ts';
import type { Transport } from '../transport/transport.ts';
import { Connection } from './connection.ts';
import { serveOrigin } from './origin-agent.ts';
import type { OriginResult } from './origin-agent.ts';
import type { CopyProgress } from './page-copy.ts';
import { runReplica } from './replica-agent.ts';
import type { RemoteOptions } from './start-agent.ts';
import { startAgent } from './start-agent.ts';

export interface SyncOptions extends RemoteOptions {
  /** Path, `[user@]host:path` or `ssh://…` of the database to copy. */
  readonly origin: string;
  /** The same for the copy; one of the two has to be local. */
  readonly replica: string;
  /** Compare only. */
  readonly dryRun?: boolean;
  /** The replica may be a database that sqlsync did not make, or the origin may be a copy of it (a restore). */
  readonly overwrite?: boolean;
  /** A replica of another page size is replaced as a whole. */
  readonly replace?: boolean;
  /** A symbolic link in the place of the replica is followed: the file that it leads to becomes the copy. */
  readonly followLinks?: boolean;
  /** 'auto' (default): all pages over SSH, only deltas between local files. */
  readonly compress?: CompressionMode;
  /** 'xxh64' (default), or 'sha256' against crafted collisions. */
  readonly hash?: HashAlgorithm;
  /** How databases are read: 'file' (default) mostly past SQLite, 'dbpage' only by SQLite, the reference. */
  readonly reader?: Reader;
  /** How long to wait for locks of other programs, in milliseconds; default 10,000. */
  readonly busyTimeoutMs?: number;
  /**
   * Silence of the other side after which it counts as lost, in milliseconds; default 30,000, 0 is for ever. Ten times
   * as long while it opens a database or commits.
   */
  readonly idleTimeoutMs?: number;
  /** What the far agent is told of the caller's own limit for the run, in milliseconds, so that it keeps it too. */
  readonly maxTimeMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: CopyProgress) => void) | undefined;
  /** What the user should know, as it becomes known; the summary repeats it. */
  readonly onWarning?: ((warning: string) => void) | undefined;
  /** Detail for those who ask for it. */
  readonly onNote?: ((note: string) => void) | undefined;
}

export interface SyncSummary {
  readonly origin: string;
  readonly replica: string;
  readonly outcome: Outcome;
  /** Bytes. */
  readonly pageSize: number;
  readonly pageCount: number;
  readonly pagesCompared: number;
  /** Pages that differed or did not exist; with `dryRun` those that would be transferred. */
  readonly pagesChanged: number;
  readonly pagesTransferred: number;
  /** Those of `pagesTransferred` that travelled as changed blocks only. */
  readonly pagesDelta: number;
  /** Bytes to and from the far agent, protocol included (without SSH's own). */
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly durationMs: number;
  /** How long the origin's read transaction was open, and by how much its -wal file grew meanwhile. */
  readonly snapshotHeldMs: number;
  readonly walGrowthBytes: number;
  /** The replica did not exist before. */
  readonly created: boolean;
  /** It went on from the part file of an interrupted run. */
  readonly resumed: boolean;
  readonly warnings: readonly string[];
}

/** One run, with everything decided. */
interface Run {
  readonly options: SyncOptions;
  readonly origin: Location;
  readonly replica: Location;
  readonly compression: CompressionMode;
  readonly hash: HashAlgorithm;
  readonly busyTimeoutMs: number;
  readonly warnings: string[];
}

export const DEFAULT_BUSY_TIMEOUT_MS = 10_000;
export const DEFAULT_IDLE_TIMEOUT_MS = 30_000;

/** How long a far agent may take to end after `close`, before it is ended. */
const CLOSE_WAIT_MS = 5000;

/**
 * Makes `replica` an exact copy of one snapshot of `origin`. Resolves after the replica's side confirmed its commit.
 * Throws SqlsyncError; the replica is then as it was.
 *
 * Opens the local database in this process, so it is for a process of its own: in an application, closing our
 * descriptors would drop the locks that its own SQLite holds.
 */
export async function runSync(options: SyncOptions): Promise<SyncSummary> {
  const startedAt = performance.now();
  const run = plan(options);
  const far = run.origin.kind === 'local' && run.replica.kind === 'ssh' ? run.replica : run.origin;
  const transport = await startAgent(far, {
    remote: options,
    signal: options.signal,
    onStderr: (text) => options.onNote?.(text.trimEnd()),
    onWarning: (text) => warn(run, text),
  });
  const connection = new Connection(transport, far === run.origin ? 'opening' : 'offering', {
    idleTimeoutMs: options.idleTimeoutMs ?? DEFAULT_IDLE_TIMEOUT_MS,
    maxTimeMs: options.maxTimeMs,
    signal: options.signal,
  });
  try {
    const result = far === run.origin ? await pull(connection, run) : await push(connection, run);
    connection.detach();
    await close(connection, transport);
    return summarize(run, result, connection, performance.now() - startedAt);
  } catch (error) {
    const failure = toSqlsyncError(error);
    connection.sendError(failure);
    connection.end();
    throw failure;
  } finally {
    transport.terminate();
  }
}

function plan(options: SyncOptions): Run {
  const origin = parseLocation(options.origin);
  const replica = parseLocation(options.replica);
  if (origin.kind === 'ssh' && replica.kind === 'ssh') {
    throw new SqlsyncError(
      'BOTH_REMOTE',
      'Origin and replica are both on other hosts; one of them has to be local',
      {
        hint: 'Run sqlsync on one of the two hosts.',
      },
    );
  }
  const isRemote = origin.kind === 'ssh' || replica.kind === 'ssh';
  const compress = options.compress ?? 'auto';
  return {
    options,
    origin,
    replica,
    compression: compress === 'auto' && isRemote ? 'zstd' : compress,
    hash: options.hash ?? 'xxh64',
    busyTimeoutMs: options.busyTimeoutMs ?? DEFAULT_BUSY_TIMEOUT_MS,
    warnings: [],
  };
}

/** The replica is here and drives; the origin agent is at the other end. */
function pull(connection: Connection, run: Run): Promise<OriginResult> {
  const { options, origin } = run;
  return runReplica(connection, {
    path: resolve(run.replica.path),
    originPath: origin.kind === 'local' ? resolve(origin.path) : origin.path,
    originName: nameFor(origin),
    hash: run.hash,
    compression: run.compression,
    dryRun: options.dryRun === true,
    overwrite: options.overwrite === true,
    replace: options.replace === true,
    followLinks: options.followLinks === true,
    reader: options.reader ?? 'file',
    busyTimeoutMs: run.busyTimeoutMs,
    signal: options.signal,
    onSnapshot: (snapshot) => announce(run, snapshot),
    ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
  });
}

/** The origin is here; the replica agent at the other end drives. */
async function push(connection: Connection, run: Run): Promise<OriginResult> {
  const { options, origin, replica } = run;
  connection.send(
    message('replicate', {
      path: replica.path,
      originName: nameFor(origin),
      hash: HASH_ALGORITHMS[run.hash],
      compression: COMPRESSION_MODES[run.compression],
      dryRun: options.dryRun === true,
      overwrite: options.overwrite === true,
      replace: options.replace === true,
      followLinks: options.followLinks === true,
      reader: READERS[options.reader ?? 'file'],
      busyTimeoutMs: run.busyTimeoutMs,
      idleTimeoutMs: connection.idleTimeoutMs,
      maxTimeMs: connection.maxTimeMs,
    }),
  );
  const open = await connection.receiveOnly('open');
  return serveOrigin(connection, open, {
    path: resolve(origin.path),
    signal: options.signal,
    onSnapshot: (snapshot) => announce(run, snapshot),
    onProgress: (progress) => forwardProgress(options, progress),
  });
}

function forwardProgress(options: SyncOptions, progress: MessageOf<'progress'>): void {
  const phase = nameOf(PHASES, progress.phase);
  if (phase !== undefined) options.onProgress?.({ ...progress, phase });
}

/** Warnings come from a peer in a pull: what is shown has to be made safe. */
function announce(run: Run, snapshot: { warnings: readonly string[]; notes: readonly string[] }): void {
  for (const warning of snapshot.warnings) warn(run, warning);
  for (const note of snapshot.notes) run.options.onNote?.(sanitizeText(note));
}

function warn(run: Run, text: string): void {
  const warning = sanitizeText(text);
  run.warnings.push(warning);
  run.options.onWarning?.(warning);
}

/** The commit is confirmed; a far agent that does not end properly now changes nothing about it. */
async function close(connection: Connection, transport: Transport): Promise<void> {
  connection.send(message('close', {}));
  connection.end();
  await Promise.race([transport.exited, delay(CLOSE_WAIT_MS, undefined, { ref: false })]);
}

/** How the mark names the origin, for people: enough to find it from anywhere. */
function nameFor(origin: Location): string {
  if (origin.kind === 'ssh') return formatLocation(origin);
  try {
    return `${hostname()}:${realpathSync(origin.path)}`;
  } catch {
    return `${hostname()}:${resolve(origin.path)}`;
  }
}

function summarize(run: Run, result: OriginResult, connection: Connection, durationMs: number): SyncSummary {
  const { done } = result;
  const outcome = nameOf(OUTCOMES, done.outcome);
  if (outcome === undefined)
    throw new SqlsyncError('PROTOCOL', `The other side reported outcome ${done.outcome}`);
  for (const warning of done.warnings) warn(run, warning);
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
    bytesSent: connection.bytesSent,
    bytesReceived: connection.bytesReceived,
    durationMs: Math.round(durationMs),
    snapshotHeldMs: result.snapshotHeldMs,
    walGrowthBytes: result.walGrowthBytes,
    created: done.created,
    resumed: done.resumed,
    warnings: run.warnings,
  };
}
