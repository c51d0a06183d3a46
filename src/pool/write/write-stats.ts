import { SqlsyncError } from '../../errors.ts';
import { labelInWords } from '../stats.ts';
import type { DatabaseStats, WriteActivity } from '../types.ts';
import type { WriteCounters, WriteRun } from './write-counters.ts';
import type { WriteJob } from './write-job.ts';

/** The most waiting jobs that stats() lists. */
const WAITING_LISTED = 100;

/** The write pool now: its counts, its holder, and the jobs that wait. */
export function writeStats(
  { commits, rollbacks, coalesced, retries, timeouts, failures, labels }: WriteCounters,
  holder: WriteRun | undefined,
  waiting: readonly WriteJob[],
): DatabaseStats['write'] {
  const nowMs = performance.now();
  const activity = (run: Pick<WriteActivity, 'label' | 'priority'>, sinceMs: number): WriteActivity => ({
    label: run.label,
    priority: run.priority,
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

/** BUSY_TIMEOUT, naming the holder of the writer if that is in this pool. */
export function writeTimeout(
  path: string,
  label: string,
  waitedMs: number,
  holder: WriteRun | undefined,
): SqlsyncError {
  const waited = `${path}: ${labelInWords(label, 'write')} waited ${Math.round(waitedMs)} ms for the writer`;
  const reason =
    holder === undefined
      ? 'which another connection or program holds'
      : `which ${labelInWords(holder.label, 'write')} of this pool has held for ${Math.round(performance.now() - holder.beganMs)} ms`;
  return new SqlsyncError('BUSY_TIMEOUT', `${waited}, ${reason}`, {
    hint: 'Keep transactions short, or allow more time with busyTimeoutMs or deadlineMs.',
  });
}
