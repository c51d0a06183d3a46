import type { Hold, WatchLine, WatchProcess, WatchSample, WatchStart } from './log.ts';

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

/** The sums of one process. */
interface Tally {
  readonly pid: number;
  heldLooks: number;
  waitedLooks: number;
  longHolds: number;
  longest: Hold | undefined;
  longestReadMs: number;
  longestPinMs: number;
}

/** Sums up a record line by line: a watch of days has hundreds of megabytes of them. */
export class RecordSums {
  #start: WatchStart | undefined;
  #holder: Hold | undefined;
  readonly #named = new Map<number, WatchProcess>();
  readonly #tallies = new Map<number, Tally>();
  /** Processes whose number another one has got. */
  readonly #past: { readonly tally: Tally; readonly command: string }[] = [];
  readonly #histogram = Array.from({ length: HOLD_BOUNDS_MS.length + 1 }, () => 0);
  #forMs = 0;
  #looks = 0;
  #commits = 0;
  #checkpoints = 0;
  #walBytesWritten = 0;
  #walBytesMax = 0;

  add(line: WatchLine): void {
    if (line.type === 'watch') this.#start ??= line;
    else if (line.type === 'process') this.#name(line);
    else this.#sample(line);
  }

  summary(): WatchSummary {
    const histogram = [...this.#histogram];
    // The hold of the last sample has not ended.
    const holder = this.#holder;
    if (holder !== undefined) addTo(histogram, holder);
    const withHolder = (tally: Tally): Tally =>
      holder?.pid === tally.pid ? { ...tally, ...longerWith(tally, holder) } : tally;
    const now = [...this.#tallies.values()].map((tally) =>
      this.#summaryOf(withHolder(tally), this.#named.get(tally.pid)?.command ?? ''),
    );
    const past = this.#past.map(({ tally, command }) => this.#summaryOf(tally, command));
    return {
      path: this.#start?.path ?? '',
      host: this.#start?.host ?? '',
      unseen: this.#start?.unseen ?? [],
      forMs: this.#forMs,
      looks: this.#looks,
      commits: this.#commits,
      checkpoints: this.#checkpoints,
      walBytesWritten: this.#walBytesWritten,
      walBytesMax: this.#walBytesMax,
      processes: [...past, ...now].sort((a, b) => b.heldShare - a.heldShare || b.waitedShare - a.waitedShare),
      histogram,
    };
  }

  #summaryOf({ heldLooks, waitedLooks, ...tally }: Tally, command: string): ProcessSummary {
    const looks = Math.max(1, this.#looks);
    return { ...tally, command, heldShare: heldLooks / looks, waitedShare: waitedLooks / looks };
  }

  /** The system gives the number of a process that has ended to another one. */
  #name(line: WatchProcess): void {
    const before = this.#named.get(line.pid);
    const tally = this.#tallies.get(line.pid);
    if (before !== undefined && before.startedAtMs !== line.startedAtMs && tally !== undefined) {
      this.#past.push({ tally, command: before.command });
      this.#tallies.delete(line.pid);
    }
    this.#named.set(line.pid, line);
  }

  #sample(sample: WatchSample): void {
    this.#forMs += sample.forMs;
    this.#looks += sample.looks;
    this.#commits += sample.commits ?? 0;
    this.#checkpoints += sample.checkpoints;
    this.#walBytesWritten += sample.walBytesWritten;
    this.#walBytesMax = Math.max(this.#walBytesMax, sample.walBytes);
    this.#holder = sample.holder;
    for (const [pid, looks] of Object.entries(sample.heldLooks)) this.#tally(Number(pid)).heldLooks += looks;
    for (const [pid, looks] of Object.entries(sample.waitedLooks))
      this.#tally(Number(pid)).waitedLooks += looks;
    for (const hold of sample.holds) {
      addTo(this.#histogram, hold);
      const tally = this.#tally(hold.pid);
      Object.assign(tally, longerWith(tally, hold));
    }
    for (const { pid, forMs, isPinning } of sample.readers) {
      const tally = this.#tally(pid);
      tally.longestReadMs = Math.max(tally.longestReadMs, forMs);
      if (isPinning) tally.longestPinMs = Math.max(tally.longestPinMs, forMs);
    }
  }

  #tally(pid: number): Tally {
    let tally = this.#tallies.get(pid);
    if (tally === undefined) {
      tally = {
        pid,
        heldLooks: 0,
        waitedLooks: 0,
        longHolds: 0,
        longest: undefined,
        longestReadMs: 0,
        longestPinMs: 0,
      };
      this.#tallies.set(pid, tally);
    }
    return tally;
  }
}

/** Sums up lines of a record. */
export function explainRecord(lines: readonly WatchLine[]): WatchSummary {
  const sums = new RecordSums();
  for (const line of lines) sums.add(line);
  return sums.summary();
}

/** The holds of a process with one more. */
function longerWith({ longest, longHolds }: Tally, hold: Hold): Pick<Tally, 'longest' | 'longHolds'> {
  return {
    longest: hold.forMs > (longest?.forMs ?? -1) ? hold : longest,
    longHolds: longHolds + (hold.forMs > LONG_MS ? 1 : 0),
  };
}

function addTo(histogram: number[], { forMs }: Hold): void {
  const at = HOLD_BOUNDS_MS.findIndex((bound) => forMs < bound);
  const bucket = at === -1 ? HOLD_BOUNDS_MS.length : at;
  histogram[bucket] = (histogram[bucket] ?? 0) + 1;
}
