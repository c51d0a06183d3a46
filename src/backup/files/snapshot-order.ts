import type { StoreSnapshot } from '../types.ts';

/**
 * The order of snapshots: the order in which they were made. It decides which snapshot is the newest, and which is the
 * parent.
 *
 * A clock can be wrong, so times do not decide. Each record has a `generation`, one more than the highest of all
 * records that were in the store when its copy began. So a snapshot made after another was stored comes after it,
 * whatever the clocks said and whatever was forgotten since. A number that is far ahead of the clock of the place counts
 * as the time at which the place got the record. Records of older programs have no generation. They come
 * first, each after its parent, else by time.
 *
 *     generation    –        –          1           2                 2          3
 *     time          Nov 19   Nov 20     Nov 21      2031 (wrong)      Nov 22     Nov 23
 *                   └ older program ┘               └ two at once: by time ┘
 */
export function inOrder(snapshots: readonly StoreSnapshot[]): StoreSnapshot[] {
  const generationOf = generations(snapshots);
  const generation = ({ id }: StoreSnapshot): number => generationOf.get(id) ?? 0;
  const older = snapshots.filter((snapshot) => generation(snapshot) === 0);
  const newer = snapshots.filter((snapshot) => generation(snapshot) > 0);
  newer.sort((a, b) => generation(a) - generation(b) || compareTimes(a, b));
  return [...afterParents(older), ...newer];
}

/**
 * The generation of a snapshot that is made while these are in the store. A place that has a clock counts the seconds
 * since 1970 by it, so that one who does not know all snapshots finds a number behind them, too.
 *
 * @param nowMs - the time by the clock of the place.
 */
export function nextGeneration(snapshots: readonly StoreSnapshot[], nowMs: number = 0): number {
  const highest = Math.max(0, ...generations(snapshots).values());
  return Math.min(Math.max(highest + 1, Math.floor(nowMs / 1000)), Number.MAX_SAFE_INTEGER);
}

/** A number may be so far ahead of the seconds at which the place got its record: two may have come at once. */
const MAX_AHEAD_SECONDS = 24 * 3600;

/**
 * The number in a record, or the seconds since 1970 at which the place got it, if the number is far ahead of them: a
 * false record must not leave later ones without a higher number. undefined for a record without a number.
 */
export function numberOf({ generation, stored }: StoreSnapshot): number | undefined {
  if (generation === undefined || stored === undefined) return generation;
  const seconds = Math.floor(stored.getTime() / 1000);
  return generation > seconds + MAX_AHEAD_SECONDS ? seconds : generation;
}

/**
 * Generations by id. An older program's snapshot that was compared with a newer program's comes right after that one; 0
 * means unknown.
 */
function generations(snapshots: readonly StoreSnapshot[]): Map<string, number> {
  const known = new Map<string, number>();
  const byId = new Map(snapshots.map((snapshot) => [snapshot.id, snapshot]));
  for (const snapshot of snapshots) {
    const path: StoreSnapshot[] = [];
    let at: StoreSnapshot | undefined = snapshot;
    // The loop ends: a record is named by its hash, so none can be its own ancestor.
    while (at !== undefined && numberOf(at) === undefined && !known.has(at.id)) {
      path.push(at);
      at = at.parent === undefined ? undefined : byId.get(at.parent);
    }
    let generation = at === undefined ? 0 : (numberOf(at) ?? known.get(at.id) ?? 0);
    if (at !== undefined) known.set(at.id, generation);
    for (const { id } of path.toReversed()) {
      if (generation > 0) generation++;
      known.set(id, generation);
    }
  }
  return known;
}

/** Sorts by time, but none before its parent. */
function afterParents(snapshots: readonly StoreSnapshot[]): StoreSnapshot[] {
  const ids = new Set(snapshots.map(({ id }) => id));
  const children = Map.groupBy(snapshots, ({ parent }) =>
    parent !== undefined && ids.has(parent) ? parent : undefined,
  );
  /** Snapshots whose parents are in `ordered`, the latest first, so that the next one is at the end. */
  const ready = (children.get(undefined) ?? []).toSorted(compareTimes).toReversed();
  const ordered: StoreSnapshot[] = [];
  for (let next = ready.pop(); next !== undefined; next = ready.pop()) {
    ordered.push(next);
    for (const child of children.get(next.id) ?? []) {
      const place = ready.findLastIndex((other) => compareTimes(other, child) > 0) + 1;
      ready.splice(place, 0, child);
    }
  }
  return ordered;
}

function compareTimes(a: StoreSnapshot, b: StoreSnapshot): number {
  return a.time.getTime() - b.time.getTime() || (a.id < b.id ? -1 : 1);
}
