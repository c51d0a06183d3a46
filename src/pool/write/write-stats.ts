import { SqlsyncError } from '../../errors.ts';
import { labelInWords } from '../stats.ts';
import type { DatabaseStats, WriteActivity } from '../types.ts';
import type { WriteCounters } from './write-counters.ts';
import type { WriteJob } from './write-job.ts';

/** The most waiting jobs that stats() lists. */
const WAITING_LISTED = 100;

/** The write pool now: its counts, its holder, and the jobs that wait. */
export function writeStats(
  { commits, rollbacks, coalesced, retries, timeouts, failures, labels }: WriteCounters,
  holder: WriteJob | undefined,
  waiting: readonly WriteJob[],
): DatabaseStats['write'] {
  const nowMs = performance.now();
  const activity = ({ label, priority }: WriteJob, sinceMs: number): WriteActivity => ({
    label,
    priority,
    forMs: nowMs - sinceMs,
  });
  const jobs = waiting.toSorted((a, b) => a.calledMs - b.calledMs);
  return {
    commits,
    rollbacks,
    coalesced,
    retries: { ...retries },
    timeouts,
    failed: failures.total,
    failures: failures.stats(),
    queueLength: jobs.length,
    holder: holder === undefined ? undefined : activity(holder, holder.beganMs),
    waiting: jobs.slice(0, WAITING_LISTED).map((job) => activity(job, job.calledMs)),
    labels: labels.stats(),
  };
}

/** BUSY_TIMEOUT, naming the holder of the writer: a job of this pool, or who holds SQLite's lock `elsewhere`. */
export function writeTimeout(
  path: string,
  label: string,
  waitedMs: number,
  holder: WriteJob | undefined,
  elsewhere: string | undefined,
): SqlsyncError {
  const waited = `${path}: ${labelInWords(label, 'write')} waited ${Math.round(waitedMs)} ms for the writer`;
  const other = elsewhere === undefined ? '' : `: ${elsewhere}`;
  const reason =
    holder === undefined
      ? `which another connection or program holds${other}`
      : `which ${labelInWords(holder.label, 'write')} of this pool has held for ${Math.round(performance.now() - holder.beganMs)} ms`;
  return new SqlsyncError('BUSY_TIMEOUT', `${waited}, ${reason}`, {
    hint: 'Keep transactions short, or allow more time with busyTimeoutMs or deadlineMs.',
  });
}

/** BUSY_TIMEOUT for a transaction that ended, but could not be committed. */
export function commitTimeout(path: string, label: string, waitedMs: number, cause: unknown): SqlsyncError {
  return new SqlsyncError(
    'BUSY_TIMEOUT',
    `${path}: the commit of ${labelInWords(label, 'write')} was refused as busy for ${Math.round(waitedMs)} ms; it was rolled back`,
    { hint: 'Another program reads an attached database: allow more time with deadlineMs.', cause },
  );
}
