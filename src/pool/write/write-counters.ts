import { FailureCounts, failureKind } from '../failure-counts.ts';
import { LabelTable, POOL_CHANNELS } from '../stats.ts';
import type { FailureEvent, RetryEvent, TimeoutEvent, WriteEvent } from '../stats.ts';
import type { WriteJob } from './write-job.ts';

/** The statistics and events of the write pool. */
export class WriteCounters {
  readonly #path: string;
  readonly labels: LabelTable = new LabelTable();
  readonly retries: Record<string, number> = {};
  readonly failures: FailureCounts = new FailureCounts();
  commits = 0;
  rollbacks = 0;
  coalesced = 0;
  timeouts = 0;

  constructor(path: string) {
    this.#path = path;
  }

  ended(job: WriteJob, endMs: number, outcome: 'commit' | 'rollback'): void {
    if (outcome === 'commit') this.commits += 1;
    else this.rollbacks += 1;
    const times = this.labels.of(job.label);
    times.wait.record(job.beganMs - job.calledMs);
    times.hold.record(endMs - job.beganMs);
    if (POOL_CHANNELS.write.hasSubscribers) this.#publish(job, endMs, outcome);
  }

  /** A call has given the connection back. Returns the time. */
  released(job: WriteJob): number {
    const endMs = performance.now();
    const times = this.labels.of(job.label);
    times.wait.record(job.beganMs - job.calledMs);
    times.hold.record(endMs - job.beganMs);
    return endMs;
  }

  failed(label: string, error: unknown): void {
    const kind = failureKind(error);
    this.failures.add(kind);
    if (!POOL_CHANNELS.failure.hasSubscribers) return;
    const event: FailureEvent = { path: this.#path, label, code: kind, kind: 'write' };
    POOL_CHANNELS.failure.publish(event);
  }

  refused(label: string, code: string): void {
    this.retries[code] = (this.retries[code] ?? 0) + 1;
    if (!POOL_CHANNELS.retry.hasSubscribers) return;
    const event: RetryEvent = { path: this.#path, label, code };
    POOL_CHANNELS.retry.publish(event);
  }

  timedOut(label: string, waitMs: number): void {
    this.timeouts += 1;
    if (!POOL_CHANNELS.timeout.hasSubscribers) return;
    const event: TimeoutEvent = { path: this.#path, label, waitMs, kind: 'write' };
    POOL_CHANNELS.timeout.publish(event);
  }

  #publish(job: WriteJob, endMs: number, outcome: WriteEvent['outcome']): void {
    const { label, priority, calledMs, beganMs } = job;
    const event: WriteEvent = {
      path: this.#path,
      label,
      priority,
      waitMs: beganMs - calledMs,
      holdMs: endMs - beganMs,
      outcome,
    };
    POOL_CHANNELS.write.publish(event);
  }
}
