import { existsSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';

/** How often a waiting thread checks that the other thread still lives. */
const LOOK_MS = 50;

/** Called in a thread: its number for `awaitThread`; 0 if the system does not report it. */
export function ownThreadNumber(): number {
  try {
    return Number(basename(readlinkSync('/proc/thread-self')));
  } catch {
    return 0;
  }
}

/**
 * Waits, without a turn of the event loop, until a cell in shared memory is no longer `seen`. Returns false if the
 * thread that should change it has died, which its events could not report meanwhile, or if the time is over.
 *
 * @param thread - number of that thread in this process; 0 if unknown, so that only the time limit ends the wait.
 */
export function awaitThread(
  cells: Int32Array,
  at: number,
  seen: number,
  { thread, timeoutMs }: { readonly thread: number; readonly timeoutMs: number },
): boolean {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const isGone = thread > 0 && !existsSync(`/proc/self/task/${thread}`);
    // A change that the thread made before it died counts.
    if (Atomics.load(cells, at) !== seen) return true;
    const leftMs = deadline - performance.now();
    if (isGone || leftMs <= 0) return false;
    Atomics.wait(cells, at, seen, Math.min(LOOK_MS, leftMs));
  }
}
