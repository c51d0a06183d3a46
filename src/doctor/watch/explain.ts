import type { Hold, WatchLine, WatchSample } from './log.ts';

/** The bounds of the histogram of hold times, in milliseconds. */
export const HOLD_BOUNDS_MS = [50, 200, 1000, 5000] as const;

const LONG_MS = 1000;

export interface ProcessSummary {
  readonly pid: number;
  readonly command: string;
  /** The share of looks in which it held the writer's lock, and in which it waited. */
  readonly heldShare: number;
  readonly waitedShare: number;
  /** Holds of over a second. */
  readonly longHolds: number;
  readonly longest?: Hold | undefined;
  /** The longest time in which each look found it reading the same state of the database. */
  readonly longestReadMs: number;
  /** The longest such time with a newer state in the WAL at its end. */
  readonly longestPinMs: number;
}

export interface WatchSummary {
  readonly path: string;
  readonly host: string;
  /** What could not be seen, and why, one sentence each. */
  readonly unseen: readonly string[];
  readonly forMs: number;
  readonly looks: number;
  readonly commits: number;
  readonly checkpoints: number;
  readonly walBytesWritten: number;
  readonly walBytesMax: number;
  /** Who held the lock most comes first. */
  readonly processes: readonly ProcessSummary[];
  /** How many holds were shorter than each of {@link HOLD_BOUNDS_MS}, and than nothing: the last is the rest. */
  readonly histogram: readonly number[];
}

/** Sums up a record. Pure. */
export function explainRecord(lines: readonly WatchLine[]): WatchSummary {
  const start = lines.find((line) => line.type === 'watch');
  const samples = lines.filter((line): line is WatchSample => line.type === 'sample');
  const commands = new Map(
    lines.flatMap((line) => (line.type === 'process' ? [[line.pid, line.command] as const] : [])),
  );
  const holds = allHolds(samples);
  const looks = sum(samples, (sample) => sample.looks);
  const pids = new Set(
    samples.flatMap((sample) => [
      ...Object.keys(sample.heldLooks).map(Number),
      ...Object.keys(sample.waitedLooks).map(Number),
      ...sample.readers.map(({ pid }) => pid),
    ]),
  );
  const processes = [...pids].map((pid): ProcessSummary => {
    const own = holds.filter((hold) => hold.pid === pid);
    const reads = samples.flatMap(({ readers }) => readers.filter((reader) => reader.pid === pid));
    const longestOf = (some: typeof reads): number => some.reduce((most, { forMs }) => Math.max(most, forMs), 0);
    return {
      pid,
      command: commands.get(pid) ?? '',
      heldShare: sum(samples, ({ heldLooks }) => heldLooks[pid] ?? 0) / Math.max(1, looks),
      waitedShare: sum(samples, ({ waitedLooks }) => waitedLooks[pid] ?? 0) / Math.max(1, looks),
      longHolds: own.filter(({ forMs }) => forMs > LONG_MS).length,
      longest: own.toSorted((a, b) => b.forMs - a.forMs)[0],
      longestReadMs: longestOf(reads),
      longestPinMs: longestOf(reads.filter(({ isPinning }) => isPinning)),
    };
  });
  return {
    path: start?.path ?? '',
    host: start?.host ?? '',
    unseen: start?.unseen ?? [],
    forMs: sum(samples, ({ forMs }) => forMs),
    looks,
    commits: sum(samples, ({ commits = 0 }) => commits),
    checkpoints: sum(samples, ({ checkpoints }) => checkpoints),
    walBytesWritten: sum(samples, ({ walBytesWritten }) => walBytesWritten),
    walBytesMax: samples.reduce((most, { walBytes }) => Math.max(most, walBytes), 0),
    processes: processes.sort((a, b) => b.heldShare - a.heldShare || b.waitedShare - a.waitedShare),
    histogram: histogramOf(holds),
  };
}

/** Those that ended, and the one that still lasted in the last sample. */
function allHolds(samples: readonly WatchSample[]): Hold[] {
  const open = samples.at(-1)?.holder;
  return [...samples.flatMap(({ holds }) => holds), ...(open === undefined ? [] : [open])];
}

function histogramOf(holds: readonly Hold[]): number[] {
  const counts = Array.from({ length: HOLD_BOUNDS_MS.length + 1 }, () => 0);
  for (const { forMs } of holds) {
    const at = HOLD_BOUNDS_MS.findIndex((bound) => forMs < bound);
    const bucket = at === -1 ? HOLD_BOUNDS_MS.length : at;
    counts[bucket] = (counts[bucket] ?? 0) + 1;
  }
  return counts;
}

function sum(samples: readonly WatchSample[], of: (sample: WatchSample) => number): number {
  return samples.reduce((total, sample) => total + of(sample), 0);
}
