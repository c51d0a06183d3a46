import { SqlsyncError } from '../../errors.ts';
import { FailureCounts, failureKind } from '../failure-counts.ts';
import { LabelTable, POOL_CHANNELS } from '../stats.ts';
import type { FailureEvent, ReadEvent, TimeoutEvent } from '../stats.ts';

/** The statistics and events of the read pool. */
export class ReadCounters {
  readonly path: string;
  readonly labels: LabelTable = new LabelTable();
  readonly failures: FailureCounts = new FailureCounts();
  timeouts = 0;
  workersLost = 0;

  constructor(path: string) {
    this.path = path;
  }

  /** A query that ran at once. */
  answered(label: string, holdMs: number): void {
    const times = this.labels.of(label);
    times.wait.record(0);
    times.hold.record(holdMs);
  }

  /** A call that held a connection or a thread has ended. */
  ended(label: string, waitMs: number, holdMs: number): void {
    const times = this.labels.of(label);
    times.wait.record(waitMs);
    times.hold.record(holdMs);
    if (!POOL_CHANNELS.read.hasSubscribers) return;
    const event: ReadEvent = { path: this.path, label, waitMs, holdMs };
    POOL_CHANNELS.read.publish(event);
  }

  failed(label: string, error: unknown): void {
    const kind = failureKind(error);
    this.failures.add(kind);
    if (!POOL_CHANNELS.failure.hasSubscribers) return;
    const event: FailureEvent = { path: this.path, label, code: kind, kind: 'read' };
    POOL_CHANNELS.failure.publish(event);
  }

  /** The error for a query that SQLite refused as busy until its deadline. */
  refused(work: { label: string; calledMs: number }, cause: unknown): SqlsyncError {
    const waitedMs = performance.now() - work.calledMs;
    this.timedOut(work.label, waitedMs);
    return new SqlsyncError(
      'READ_TIMEOUT',
      `${this.path}: "${work.label}" was refused as busy for ${Math.round(waitedMs)} ms: another program has it locked`,
      { hint: 'End the other program, or allow more time with busyTimeoutMs or deadlineMs.', cause },
    );
  }

  timedOut(label: string, waitMs: number): void {
    this.timeouts += 1;
    if (!POOL_CHANNELS.timeout.hasSubscribers) return;
    const event: TimeoutEvent = { path: this.path, label, waitMs, kind: 'read' };
    POOL_CHANNELS.timeout.publish(event);
  }
}
