/**
 * The busy handler of SQLite sleeps 1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, and then 100 ms each time. So it goes to
 * sleep twice in any look of 300 ms, and at most so often at its beginning and later; the reads between two naps may
 * add some.
 */
const LEAST_NAPS = 2;
const FIRST_NAPS = 14;
const NAPS_PER_S = 12;

/** True if a thread that went to sleep so often in `ms` milliseconds may wait for a lock of SQLite. */
export function isBusyHandler(naps: number, ms: number): boolean {
  return naps >= LEAST_NAPS && naps <= FIRST_NAPS + (ms / 1000) * NAPS_PER_S;
}
