/** A step that hashed all pages is followed by a pause of so many times the processor time that it took. */
const PAUSE_FACTOR = 3;

/** Measured, with the pages in memory; from a disk it takes longer, and hardly more processor time. */
const HASHED_BYTES_PER_MS = 5e6;

/** The pause after another process has hashed so many bytes, in milliseconds. */
export function pauseAfterHashing(bytes: number): number {
  return (PAUSE_FACTOR * bytes) / HASHED_BYTES_PER_MS;
}

/** Keeps a follower that has to hash all pages at every step to a quarter of a core. */
export class Pace {
  /** When the next step may begin, by `performance.now()`. */
  notBefore = 0;
  /** Undefined while no step is under way. */
  #startedAt: NodeJS.CpuUsage | undefined;

  /** Call it when a step begins to read. */
  start(): void {
    this.#startedAt = process.cpuUsage();
  }

  /** Call it when the step has hashed its pages, all of them or only those that changed. */
  end(hashedAll: boolean): void {
    if (this.#startedAt === undefined) return;
    const { user, system } = process.cpuUsage(this.#startedAt);
    this.#startedAt = undefined;
    this.notBefore = hashedAll ? performance.now() + (PAUSE_FACTOR * (user + system)) / 1000 : 0;
  }

  /** Call it when a step has failed: the next one has to hash again what this one has. */
  giveUp(): void {
    this.end(true);
  }
}
