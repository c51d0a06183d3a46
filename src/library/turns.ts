/** The last turn of each key that has one under way. None of the promises rejects. */
const lastTurns = new Map<string, Promise<void>>();

/**
 * Runs `work` when all earlier work of this process with the same key has ended, in whatever way. If nothing is under
 * way, it begins before the call returns. An abort ends the wait: `work` then begins early, and has to refuse at once.
 */
export async function inTurn<T>(
  key: string,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  const before = lastTurns.get(key);
  const { promise: turn, resolve: end } = Promise.withResolvers<void>();
  lastTurns.set(key, turn);
  try {
    if (before !== undefined) await endOrAbort(before, signal);
    return await work();
  } finally {
    void pass();
  }

  /** Work that gave up still leaves the earlier one under way. */
  async function pass(): Promise<void> {
    await before;
    if (lastTurns.get(key) === turn) lastTurns.delete(key);
    end();
  }
}

function endOrAbort(before: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const wake = (): void => {
      signal?.removeEventListener('abort', wake);
      resolve();
    };
    signal?.addEventListener('abort', wake);
    if (signal?.aborted === true) wake();
    void before.then(wake);
  });
}
