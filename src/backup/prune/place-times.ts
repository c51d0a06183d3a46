import { numberOf } from '../files/snapshot-order.ts';
import type { StoreSnapshot } from '../types.ts';

/**
 * How far the time in a record may be from the time at which the place got it: a backup takes a while, and clocks
 * differ. So far may somebody who can put records date a false one.
 */
const TOLERANCE_MS: number = 6 * 3600 * 1000;

/** The longest backup: a record says how long its own took. */
const MAX_DURATION_MS: number = 24 * 3600 * 1000;

/** An earlier time is that of a clock that was not set yet. */
const FIRST_MS: number = Date.UTC(2020);

/**
 * The ids of the snapshots whose times their place confirms. The record of a backup comes when it was made, with a higher
 * number than those before it. The record of a copy comes later, but after the copies of older snapshots of the same
 * database, and once there are backups, only of times before these. A place that was itself copied, by rsync or from
 * bucket to bucket, may have new times for all files, and confirms none.
 */
export function confirmedByPlace(snapshots: readonly StoreSnapshot[]): Set<string> {
  const histories = Map.groupBy(snapshots, ({ host, path }) => JSON.stringify([host, path]));
  return new Set([...histories.values()].flatMap(confirmedOf));
}

function confirmedOf(history: readonly StoreSnapshot[]): string[] {
  const confirmed: Confirmed[] = [];
  let latestMs = -Infinity;
  // The time of the newest that is no copy; none before the first.
  let latestOwnMs: number | undefined;
  for (const { snapshot, storedMs } of inOrderOfArrival(history)) {
    const ms = snapshot.time.getTime();
    const isCopy = snapshot.original !== undefined;
    const begunMs = storedMs - Math.min(snapshot.statistics.durationMs, MAX_DURATION_MS);
    const least = isCopy ? latestMs : begunMs;
    if (ms > storedMs + TOLERANCE_MS || ms < least - TOLERANCE_MS) continue;
    const number = numberOf(snapshot);
    const before = confirmed.findLast((each) => each.storedMs < begunMs - TOLERANCE_MS)?.highest ?? -Infinity;
    if (!isCopy && ((number ?? Infinity) <= before || number !== snapshot.generation)) continue;
    if (isCopy && latestOwnMs !== undefined && ms > latestOwnMs) continue;
    const highest = Math.max(confirmed.at(-1)?.highest ?? 0, number ?? 0);
    confirmed.push({ id: snapshot.id, storedMs, highest });
    latestMs = Math.max(latestMs, ms);
    if (!isCopy) latestOwnMs = Math.max(latestOwnMs ?? -Infinity, ms);
  }
  return confirmed.map(({ id }) => id);
}

interface Confirmed {
  readonly id: string;
  readonly storedMs: number;
  /** The highest number so far. */
  readonly highest: number;
}

function inOrderOfArrival(
  history: readonly StoreSnapshot[],
): { readonly snapshot: StoreSnapshot; readonly storedMs: number }[] {
  return history
    .map((snapshot) => ({ snapshot, storedMs: snapshot.stored?.getTime() ?? 0 }))
    .filter(({ storedMs }) => storedMs >= FIRST_MS)
    .sort((a, b) => a.storedMs - b.storedMs || a.snapshot.time.getTime() - b.snapshot.time.getTime());
}
