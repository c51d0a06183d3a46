import type { Channel } from 'node:diagnostics_channel';
import { channel } from 'node:diagnostics_channel';
import type { LabelStats, Priority, TimeStats } from './types.ts';

/** The label under which work without a label is counted. */
export const NO_LABEL = '(none)';

/** Names work by its label, for messages. */
export function labelInWords(label: string, kind: 'read' | 'write'): string {
  return label === NO_LABEL ? `a ${kind} without a label` : `"${label}"`;
}

/** The label of a call, whose options may be invalid. */
export function labelOf(options: { readonly label?: unknown } | null | undefined): string {
  return typeof options?.label === 'string' ? options.label : NO_LABEL;
}

/** Further labels are counted as one: labels made of user input must not fill the memory. */
const MAX_LABELS = 200;
const OTHER_LABELS = '(other)';

/** Each power of two of microseconds has this many buckets. */
const STEPS = 8;
const BUCKETS = 40 * STEPS;

/** Times in buckets that are an eighth of a power of two wide. Recording costs some nanoseconds and no memory. */
export class TimeHistogram {
  readonly #counts = new Float64Array(BUCKETS);
  #count = 0;
  #maxMs = 0;

  record(ms: number): void {
    this.#count += 1;
    if (ms > this.#maxMs) this.#maxMs = ms;
    const index = bucketOf(ms * 1000);
    this.#counts[index] = (this.#counts[index] as number) + 1;
  }

  stats(): TimeStats {
    return {
      count: this.#count,
      p50Ms: this.#quantile(0.5),
      p99Ms: this.#quantile(0.99),
      maxMs: this.#maxMs,
    };
  }

  /** The upper bound of the bucket that the quantile falls into, at most the maximum. */
  #quantile(share: number): number {
    let remaining = Math.ceil(this.#count * share);
    for (let index = 0; index < BUCKETS && remaining > 0; index += 1) {
      remaining -= this.#counts[index] as number;
      if (remaining <= 0) return Math.min(upperBoundUs(index) / 1000, this.#maxMs);
    }
    return this.#maxMs;
  }
}

const floatView = new Float64Array(1);
const intView = new Uint32Array(floatView.buffer);

/** The exponent and the first three bits of the fraction of a double: they are the number of its bucket. */
function bucketOf(us: number): number {
  floatView[0] = us < 1 ? 1 : us;
  const high = intView[1] as number;
  const index = (high >>> 17) - (1023 << 3);
  return index >= BUCKETS ? BUCKETS - 1 : index;
}

function upperBoundUs(index: number): number {
  return 2 ** Math.floor(index / STEPS) * (1 + ((index % STEPS) + 1) / STEPS);
}

/** The times of one label. */
export class LabelTimes {
  readonly wait: TimeHistogram = new TimeHistogram();
  readonly hold: TimeHistogram = new TimeHistogram();

  stats(): LabelStats {
    return { wait: this.wait.stats(), hold: this.hold.stats() };
  }
}

/** Waits and holds by label. */
export class LabelTable {
  readonly #labels = new Map<string, LabelTimes>();
  #lastLabel = '';
  #last: LabelTimes | undefined;

  of(label: string): LabelTimes {
    if (label === this.#lastLabel && this.#last !== undefined) return this.#last;
    let times = this.#labels.get(label);
    if (times === undefined) {
      if (this.#labels.size >= MAX_LABELS && label !== OTHER_LABELS) return this.of(OTHER_LABELS);
      times = new LabelTimes();
      this.#labels.set(label, times);
    }
    this.#lastLabel = label;
    this.#last = times;
    return times;
  }

  stats(): Record<string, LabelStats> {
    return Object.fromEntries([...this.#labels].map(([label, times]) => [label, times.stats()]));
  }
}

/**
 * The events of all pools of this process, for `diagnostics_channel.subscribe(name, listener)`. A message is only made
 * if there is a subscriber. Each has `path`, the absolute path of the database, and `label`.
 */
export const POOL_CHANNELS: Readonly<
  Record<'write' | 'retry' | 'timeout' | 'failure' | 'read' | 'wal', Channel>
> = {
  /** A write has ended: {@link WriteEvent}. */
  write: channel('sqlsync:pool:write'),
  /** An attempt was refused as busy: {@link RetryEvent}. */
  retry: channel('sqlsync:pool:retry'),
  /** A deadline passed while waiting: {@link TimeoutEvent}. */
  timeout: channel('sqlsync:pool:timeout'),
  /** A call rejected: {@link FailureEvent}. */
  failure: channel('sqlsync:pool:failure'),
  /** A read that waited for a connection or ran in a thread has ended: {@link ReadEvent}. */
  read: channel('sqlsync:pool:read'),
  /** The WAL passed its limit: {@link WalEvent}. */
  wal: channel('sqlsync:pool:wal'),
};

export interface WriteEvent {
  readonly path: string;
  readonly label: string;
  readonly priority: Priority;
  readonly waitMs: number;
  readonly holdMs: number;
  readonly outcome: 'commit' | 'rollback';
}

export interface RetryEvent {
  readonly path: string;
  readonly label: string;
  /** SQLite's code. */
  readonly code: string;
}

export interface TimeoutEvent {
  readonly path: string;
  readonly label: string;
  readonly waitMs: number;
  readonly kind: 'read' | 'write';
}

export interface FailureEvent {
  readonly path: string;
  readonly label: string;
  /** The code of the error, or its name if it has no code. */
  readonly code: string;
  readonly kind: 'read' | 'write';
}

export interface ReadEvent {
  readonly path: string;
  readonly label: string;
  readonly waitMs: number;
  readonly holdMs: number;
}

export interface WalEvent {
  readonly path: string;
  readonly bytes: number;
  /** Whether the WAL could be emptied. */
  readonly outcome: 'truncated' | 'busy';
}
