import type { Hold, WatchLook, WatchSample } from './log.ts';

/** A hold while it lasts. */
interface OpenHold {
  readonly pid: number;
  readonly sinceMs: number;
  waiting: number;
  lastMs: number;
}

/**
 * Turns looks into samples, one for each interval. Pure: it gets looks with their times.
 *
 * A hold lasts while each look finds the same writer and no commit came in between. In rollback mode commits are not
 * seen, so that many short transactions of one process may look like a long one.
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
  readonly #readingSince = new Map<number, number>();

  look(look: WatchLook): void {
    this.#startMs ??= look.atMs;
    this.#looks++;
    for (const pid of look.waiting) this.#waited[pid] = (this.#waited[pid] ?? 0) + 1;
    this.#readers(look);
    this.#writer(look, this.#wal(look));
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
      readers: last.readers.map((pid) => ({
        pid,
        forMs: last.atMs - (this.#readingSince.get(pid) ?? last.atMs),
      })),
      ...(last.wal === undefined ? {} : { commits: this.#commits }),
      checkpoints: this.#checkpoints,
      walBytesWritten: this.#written,
      walBytes: last.walBytes,
    };
    this.#startMs = last.atMs;
    [this.#looks, this.#commits, this.#checkpoints, this.#written] = [0, 0, 0, 0];
    [this.#held, this.#waited, this.#holds] = [{}, {}, []];
    return sample;
  }

  #readers({ atMs, readers }: WatchLook): void {
    for (const pid of this.#readingSince.keys()) if (!readers.includes(pid)) this.#readingSince.delete(pid);
    for (const pid of readers) if (!this.#readingSince.has(pid)) this.#readingSince.set(pid, atMs);
  }

  /** Returns how many commits came since the last look. */
  #wal({ wal, pageSize }: WatchLook): number {
    const before = this.#last?.wal;
    if (wal === undefined || before === undefined) return 0;
    const commits = (wal.commits - before.commits) >>> 0;
    // After a restart of the WAL its frames count from 0 again.
    const frames = wal.frames >= before.frames ? wal.frames - before.frames : wal.frames;
    this.#commits += commits;
    this.#written += commits === 0 ? 0 : frames * (pageSize + 24);
    if (wal.checkpointed > before.checkpointed || wal.frames < before.frames) this.#checkpoints++;
    return commits;
  }

  #writer({ atMs, writer, waiting }: WatchLook, commits: number): void {
    const open = this.#open;
    if (open !== undefined && (open.pid !== writer || commits > 0)) {
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

function holdOf({ pid, sinceMs, lastMs, waiting }: OpenHold): Hold {
  return { pid, sinceMs, forMs: lastMs - sinceMs, waiting };
}
