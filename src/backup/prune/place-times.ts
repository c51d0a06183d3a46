import type { StoreSnapshot } from '../types.ts';

/**
 * How far the time in a record may be from the time at which the place got it: a backup takes a while, and clocks
 * differ. So far may somebody who can put records date a false one.
 */
const TOLERANCE_MS: number = 6 * 3600 * 1000;

/** An earlier time is that of a clock that was not set yet. */
const FIRST_MS: number = Date.UTC(2020);

/**
 * The ids of the snapshots whose times their place confirms. The record of a backup comes when it was made, with a higher
 * number than those before it. The record of a copy comes later, but after the copies of older snapshots of the same
 * database. A place that was itself copied, by rsync or from bucket to bucket, may have new times for all files, and
 * confirms none.
 */
export function confirmedByPlace(snapshots: readonly StoreSnapshot[]): Set<string> {
  const histories = Map.groupBy(snapshots, ({ host, path }) => JSON.stringify([host, path]));
  return new Set([...histories.values()].flatMap(confirmedOf));
}

function confirmedOf(history: readonly StoreSnapshot[]): string[] {
  const confirmed: { readonly snapshot: StoreSnapshot; readonly storedMs: number }[] = [];
  let latestMs = -Infinity;
  // Those that came long before, and the highest number among them.
  let before = 0;
  let generation = -Infinity;
  for (const { snapshot, storedMs } of inOrderOfArrival(history)) {
    const ms = snapshot.time.getTime();
    const isCopy = snapshot.original !== undefined;
    for (; (confirmed[before]?.storedMs ?? Infinity) < storedMs - TOLERANCE_MS; before++)
      generation = Math.max(generation, confirmed[before]?.snapshot.generation ?? 0);
    const least = isCopy ? latestMs : storedMs;
    if (ms > storedMs + TOLERANCE_MS || ms < least - TOLERANCE_MS) continue;
    if (!isCopy && (snapshot.generation ?? Infinity) <= generation) continue;
    confirmed.push({ snapshot, storedMs });
    latestMs = Math.max(latestMs, ms);
  }
  return confirmed.map(({ snapshot }) => snapshot.id);
}

function inOrderOfArrival(
  history: readonly StoreSnapshot[],
): { readonly snapshot: StoreSnapshot; readonly storedMs: number }[] {
  return history
    .map((snapshot) => ({ snapshot, storedMs: snapshot.stored?.getTime() ?? 0 }))
    .filter(({ storedMs }) => storedMs >= FIRST_MS)
    .sort((a, b) => a.storedMs - b.storedMs || a.snapshot.time.getTime() - b.snapshot.time.getTime());
}
