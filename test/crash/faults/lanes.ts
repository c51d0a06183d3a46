/** Runs all of `work`, so many jobs at a time, and yields each result when it is there. */
export async function* inLanes<T>(
  lanes: number,
  work: readonly (() => Promise<T>)[],
): AsyncGenerator<T, void, undefined> {
  const waiting = work.entries();
  const running = new Map<number, Promise<{ i: number; result: T }>>();
  for (;;) {
    while (running.size < lanes) {
      const next = waiting.next();
      if (next.done === true) break;
      const [i, start] = next.value;
      running.set(
        i,
        start().then((result) => ({ i, result })),
      );
    }
    if (running.size === 0) return;
    const { i, result } = await Promise.race(running.values());
    running.delete(i);
    yield result;
  }
}
