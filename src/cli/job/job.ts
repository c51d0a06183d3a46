import { resolve } from 'node:path';
import { SqlsyncError, toSqlsyncError } from '../../errors.ts';
import { formatLocation, parseLocation } from '../../transport/location.ts';
import { parseDuration } from '../options/quantities.ts';
import { EXIT_OK, exitStatusOf } from '../terminal/exit.ts';
import type { JobArguments } from '../options/options.ts';
import type { Output } from '../terminal/output.ts';
import { withInterruption } from '../terminal/signals.ts';
import { lockJob } from './job-lock.ts';
import { Copies } from './copies.ts';
import type { Copy, CopyLabels } from './copies.ts';
import { writeMetrics } from './metrics.ts';
import type { CopyRun } from './metrics.ts';
import { parsePingUrl, ping } from './ping.ts';

export interface JobOptions {
  /** How long to wait for another run of the job, in milliseconds; undefined if runs may overlap. */
  readonly lockWaitMs: number | undefined;
  readonly pingUrl: URL | undefined;
  readonly metricsFile: string | undefined;
}

/** Throws SqlsyncError USAGE. */
export function jobOptionsOf(args: Partial<JobArguments>, dryRun: boolean): JobOptions {
  const { lockWait, ping: pingUrl, metricsFile } = args;
  if (dryRun && (pingUrl !== undefined || metricsFile !== undefined)) {
    const option = pingUrl === undefined ? '--metrics-file' : '--ping';
    throw new SqlsyncError(
      'USAGE',
      `${option} and --dry-run exclude each other: nothing would have been copied`,
      {
        hint: `Leave out ${option}.`,
      },
    );
  }
  return {
    lockWaitMs: lockWait === undefined ? undefined : parseDuration('--lock-wait', lockWait, true),
    pingUrl: pingUrl === undefined ? undefined : parsePingUrl(pingUrl),
    metricsFile: metricsFile === undefined ? undefined : resolve(metricsFile),
  };
}

export interface Job {
  /** Runs of the same name do not overlap, if a lock is requested. */
  readonly name: readonly string[];
  readonly options: JobOptions;
  readonly output: Output;
  /** The expected copies for the metrics, as far as known in advance. */
  readonly expected: readonly CopyLabels[];
  /** See {@link Copies}. */
  readonly partial?: 'partial' | 'highest';
  /**
   * Does the work and prints the results; reports each copy when it is done. The job prints the error that it throws.
   */
  run(signal: AbortSignal, copies: Copies): Promise<void>;
  /** Rewords a failure for the user. */
  explain?(failure: SqlsyncError): SqlsyncError;
}

/**
 * Runs a job: takes its lock, reports the start, does the work, reports the end, writes the metrics. Returns the exit
 * status of the thrown error, or else of the copies. A failed ping or failed metrics do not change it.
 *
 *     lock ── ping /start ── work … ── metrics ── ping, or ping /fail with the last lines of output
 */
export function runJob(job: Job): Promise<number> {
  // The metrics and the last ping come after the summary, and may have a warning to print.
  return job.output.withLastHeld(() => runToEnd(job));
}

async function runToEnd(job: Job): Promise<number> {
  const startedAt = performance.now();
  const { output } = job;
  const pings = new Pings(job);
  const copies = new Copies(job.expected, job.partial);
  let exitStatus: number;
  try {
    await withInterruption((signal) => locked(job, signal, pings, copies));
    exitStatus = copies.exitStatus;
    putMetrics(job, copies.done);
  } catch (error) {
    const failure = toSqlsyncError(error);
    output.error(job.explain?.(failure) ?? failure);
    exitStatus = exitStatusOf(failure.code);
    // The run that holds the lock writes them.
    if (failure.code !== 'LOCKED') putMetrics(job, copies.endedBy(exitStatus, performance.now() - startedAt));
  }
  await pings.end(exitStatus === EXIT_OK ? 'success' : 'fail');
  return exitStatus;
}

async function locked(job: Job, signal: AbortSignal, pings: Pings, copies: Copies): Promise<void> {
  const { lockWaitMs } = job.options;
  if (lockWaitMs === undefined) {
    pings.start();
    return job.run(signal, copies);
  }
  const lock = await lockJob(job.name, lockWaitMs, {
    signal,
    onWaiting: () => job.output.note('waiting for another run of this job to end'),
  });
  try {
    pings.start();
    return await job.run(signal, copies);
  } finally {
    lock.release();
  }
}

/** The pings of one run. The work does not wait for the ping of its start, but the ping of its end does. */
class Pings {
  readonly #job: Job;
  #started: Promise<void> = Promise.resolve();

  constructor(job: Job) {
    this.#job = job;
  }

  start(): void {
    this.#started = this.#ping('start', '');
  }

  async end(event: 'success' | 'fail'): Promise<void> {
    await this.#started;
    await this.#ping(event, this.#job.output.tail);
  }

  async #ping(event: 'start' | 'success' | 'fail', body: string): Promise<void> {
    const { pingUrl } = this.#job.options;
    if (pingUrl === undefined) return;
    const failure = await ping(pingUrl, event, body);
    if (failure !== undefined) this.#job.output.warning(failure);
  }
}

function putMetrics({ options, output }: Job, copies: readonly Copy[]): void {
  const { metricsFile } = options;
  if (metricsFile === undefined) return;
  const endedAtMs = Date.now();
  const runs: CopyRun[] = copies.map((copy) => ({ ...copy, endedAtMs }));
  try {
    const others = writeMetrics(metricsFile, runs);
    if (others.length === 0) return;
    output.warning(
      `${metricsFile} had metrics of other jobs (${others.join(' ')}), which are now gone: give each job its own file`,
    );
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    output.warning(`The metrics could not be written: ${why}`);
  }
}

/** The form of a location that identifies a job, wherever it is started. */
export function canonicalLocation(text: string): string {
  const location = parseLocation(text);
  return location.kind === 'ssh' ? formatLocation(location) : resolve(location.path);
}
