import type { StoreSnapshot } from '../types.ts';
import { formatClock } from './calendar-time.ts';

/** When a snapshot was made, as far as known. */
export interface Dating {
  /**
   * Milliseconds since 1970: the time in its record or, if that is impossible, the earliest moment when it surely
   * existed.
   */
  readonly ms: number;
  /** Why the time in its record cannot be right; undefined if nothing speaks against it. */
  readonly doubt: 'future' | 'order' | undefined;
}

/**
 * Dates snapshots, which are in the order in which they were made, for each database separately: hosts may have
 * different clocks.
 */
export function dateSnapshots(
  ordered: readonly StoreSnapshot[],
  nowMs: number = Date.now(),
): Map<string, Dating> {
  const datings = new Map<string, Dating>();
  for (const history of Map.groupBy(ordered, databaseOf).values())
    for (const [id, dating] of dateHistory(history, nowMs)) datings.set(id, dating);
  return datings;
}

/**
 * Dates snapshots, by id, whose times should ascend. A time in the future is wrong. So are the fewest times without
 * which all others ascend: a single clock that was ahead or behind does not put the rest in doubt.
 */
export function dateHistory(history: readonly StoreSnapshot[], nowMs: number): Map<string, Dating> {
  const datings = new Map<string, Dating>();
  const past = history.filter(({ time }) => time.getTime() <= nowMs);
  const right = longestAscending(past);
  let next: number | undefined;
  for (const snapshot of history.toReversed()) {
    const ms = snapshot.time.getTime();
    if (right.has(snapshot.id)) {
      next = ms;
      datings.set(snapshot.id, { ms, doubt: undefined });
    } else {
      const doubt = ms > nowMs ? 'future' : 'order';
      datings.set(snapshot.id, { ms: next ?? Math.max(ms, nowMs), doubt });
    }
  }
  return datings;
}

/**
 * The warning if time and order disagree on which of `candidates`, in their order and dated, is the newest until
 * `untilMs`, or if the time of the chosen one is wrong; undefined otherwise.
 */
export function clockWarning(
  candidates: readonly StoreSnapshot[],
  chosen: StoreSnapshot,
  datings: ReadonlyMap<string, Dating>,
  untilMs: number,
): string | undefined {
  const ofTime = (snapshot: StoreSnapshot): string =>
    `${snapshot.id.slice(0, 8)} (${formatClock(snapshot.time)})`;
  const before = candidates.slice(0, candidates.indexOf(chosen));
  const latest = before
    .filter(({ time }) => time.getTime() <= untilMs)
    .reduce((best, each) => (each.time.getTime() > best.time.getTime() ? each : best), chosen);
  if (latest !== chosen)
    return `Snapshot ${ofTime(latest)} has a later time than ${ofTime(chosen)}, but was made before it, so sqlsync does not use it: a clock was wrong`;
  const doubt = datings.get(chosen.id)?.doubt;
  if (doubt === undefined) return undefined;
  const why =
    doubt === 'future' ? 'is in the future' : 'does not fit the order in which the snapshots were made';
  return `The time of snapshot ${ofTime(chosen)} ${why}: a clock was wrong`;
}

function databaseOf({ host, path }: StoreSnapshot): string {
  return JSON.stringify([host, path]);
}

/** A part of a history with ascending times, by its last snapshot. */
interface Ascent {
  readonly length: number;
  readonly startMs: number;
  readonly before: number | undefined;
}

/** The ids of a longest part with ascending times; of several such parts the one that spans the least time. */
function longestAscending(history: readonly StoreSnapshot[]): Set<string> {
  const times = history.map(({ time }) => time.getTime());
  if (times.every((ms, i) => i === 0 || (times[i - 1] as number) <= ms))
    return new Set(history.map(({ id }) => id));
  const ascents: Ascent[] = [];
  let best: { readonly end: number; readonly length: number; readonly spanMs: number } | undefined;
  for (const [end, ms] of times.entries()) {
    let ascent: Ascent = { length: 1, startMs: ms, before: undefined };
    for (const [before, { length, startMs }] of ascents.entries()) {
      if ((times[before] as number) > ms || length + 1 < ascent.length) continue;
      const isLonger = length + 1 > ascent.length;
      if (isLonger || startMs > ascent.startMs) ascent = { length: length + 1, startMs, before };
    }
    ascents.push(ascent);
    const { length } = ascent;
    const spanMs = ms - ascent.startMs;
    if (best === undefined || length > best.length || (length === best.length && spanMs < best.spanMs))
      best = { end, length, spanMs };
  }
  const ids = new Set<string>();
  for (let at = best?.end; at !== undefined; at = ascents[at]?.before)
    ids.add((history[at] as StoreSnapshot).id);
  return ids;
}
