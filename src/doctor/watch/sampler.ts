import { commitsBetween } from './commits.ts';
import type { Hold, Reader, WatchLook, WatchSample } from './log.ts';

/** A hold while it lasts. */
interface OpenHold {
  readonly pid: number;
  readonly sinceMs: number;
  waiting: number;
  lastMs: number;
}

/** A gap is longer than so many pauses. */
const PAUSES_OF_GAP = 4;

/**
 * Turns looks into samples, one for each interval. Pure: it gets looks with their times.
 *
 * A hold lasts while each look finds the same writer and no commit came in between. What lasted before a gap of over
 * `maxGapMs` between two looks, as after Ctrl-Z, is not known to have lasted over it.
 */
export class WatchSampler {
  #startMs: number | undefined;
  #looks = 0;
  #held: Record<string, number> = {};
  #waited: Record<string, number> = {};
  #holds: Hold[] = [];
  #open: OpenHold | undefined;
  #last: WatchLook | undefined;
  #commits = 0;
  #checkpoints = 0;
  #written = 0;
  /** The last state of the WAL, also while no program has it open. */
  #lastWal: WatchLook['wal'];
  readonly #readingSince = new Map<string, number>();
  readonly #maxGapMs: number;

  constructor(maxGapMs: number = Infinity) {
    this.#maxGapMs = maxGapMs;
  }

  /** `pauseMs` is the pause before it that was meant. */
  look(look: WatchLook, pauseMs = 0): void {
    this.#startMs ??= look.atMs;
    this.#looks++;
    for (const pid of look.waiting) this.#waited[pid] = (this.#waited[pid] ?? 0) + 1;
    const isGap =
      this.#last !== undefined &&
      look.atMs - this.#last.atMs > Math.max(this.#maxGapMs, pauseMs * PAUSES_OF_GAP);
    this.#readers(look, isGap);
    const commits = this.#wal(look) + this.#changes(look);
    this.#commits += commits;
    this.#writer(look, isGap || commits > 0);
    this.#lastWal = look.wal ?? this.#lastWal;
    this.#last = look;
  }

  /** What happened since the last sample; undefined without a look. */
  sample(): WatchSample | undefined {
    const last = this.#last;
    if (last === undefined || this.#startMs === undefined) return undefined;
    const sample: WatchSample = {
      type: 'sample',
      atMs: last.atMs,
      forMs: last.atMs - this.#startMs,
      looks: this.#looks,
      heldLooks: this.#held,
      waitedLooks: this.#waited,
      holds: this.#holds,
      ...(this.#open === undefined ? {} : { holder: holdOf(this.#open) }),
      waiting: last.waiting,
      readers: this.#oldestReads(last),
      ...(last.wal === undefined && last.changes === undefined ? {} : { commits: this.#commits }),
      checkpoints: this.#checkpoints,
      walBytesWritten: this.#written,
      walBytes: last.walBytes,
    };
    this.#startMs = last.atMs;
    [this.#looks, this.#commits, this.#checkpoints, this.#written] = [0, 0, 0, 0];
    [this.#held, this.#waited, this.#holds] = [{}, {}, []];
    return sample;
  }

  /** Another state that a process reads is another transaction. */
  #readers({ atMs, readers }: WatchLook, isGap: boolean): void {
    const now = new Set(readers.map(keyOf));
    for (const key of this.#readingSince.keys()) if (isGap || !now.has(key)) this.#readingSince.delete(key);
    for (const key of now) if (!this.#readingSince.has(key)) this.#readingSince.set(key, atMs);
  }

  /** The oldest read of each process. */
  #oldestReads({ atMs, readers }: WatchLook): WatchSample['readers'] {
    const oldest = new Map<number, WatchSample['readers'][number]>();
    for (const reader of readers) {
      const { pid, isPinning } = reader;
      const forMs = atMs - (this.#readingSince.get(keyOf(reader)) ?? atMs);
      if (forMs >= (oldest.get(pid)?.forMs ?? 0)) oldest.set(pid, { pid, forMs, isPinning });
    }
    return [...oldest.values()];
  }

  /** Returns how many commits came since the last look. */
  #wal({ wal, pageSize }: WatchLook): number {
    const before = this.#lastWal;
    if (wal === undefined || before === undefined) return 0;
    const commits = commitsBetween(before, wal);
    // After a restart of the WAL its frames count from 0 again.
    const goesOn = wal.index === before.index && wal.frames >= before.frames;
    const frames = goesOn ? wal.frames - before.frames : wal.frames;
    this.#written += commits === 0 ? 0 : frames * (pageSize + 24);
    if (wal.checkpointed > before.checkpointed || wal.frames < before.frames) this.#checkpoints++;
    return commits;
  }

  /** Returns how many commits in rollback mode came since the last look. */
  #changes({ changes }: WatchLook): number {
    const before = this.#last?.changes;
    return changes === undefined || before === undefined ? 0 : (changes - before) >>> 0;
  }

  #writer({ atMs, writer, waiting }: WatchLook, isOver: boolean): void {
    const open = this.#open;
    if (open !== undefined && (open.pid !== writer || isOver)) {
      this.#holds.push(holdOf(open));
      this.#open = undefined;
    }
    if (writer === undefined) return;
    this.#held[writer] = (this.#held[writer] ?? 0) + 1;
    this.#open ??= { pid: writer, sinceMs: atMs, waiting: 0, lastMs: atMs };
    this.#open.lastMs = atMs;
    this.#open.waiting = Math.max(this.#open.waiting, waiting.length);
  }
}

function keyOf({ pid, reads }: Reader): string {
  return `${pid} ${reads}`;
}

function holdOf({ pid, sinceMs, lastMs, waiting }: OpenHold): Hold {
  return { pid, sinceMs, forMs: lastMs - sinceMs, waiting };
}
