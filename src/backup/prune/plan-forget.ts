import { formatCalendarTime } from './calendar-time.ts';
import { applyRetention } from './retention.ts';
import type { RetentionPolicy } from './retention.ts';
import type { StoreSnapshot } from '../types.ts';

/** What a policy says of the snapshots of one database (host and path); both lists newest first. */
export interface ForgetGroup {
  readonly host: string;
  readonly path: string;
  /** With the rules that keep each: `daily snapshot`, `within 7d`, `has tags [release]`. */
  readonly keep: readonly { readonly snapshot: StoreSnapshot; readonly reasons: readonly string[] }[];
  readonly remove: readonly StoreSnapshot[];
}

/** Why a snapshot is kept whose time has not come. */
const FUTURE = 'in the future';

/**
 * Says which snapshots `policy` keeps, and why; forgets nothing. Each database is taken by itself. Days and weeks are those of this
 * machine's clock: a store records none of the origin's. A snapshot whose time is yet to come is kept and counts for no rule: where a
 * clock was wrong, or is, it must not take the place of those that are made now.
 *
 * Throws SqlsyncError USAGE for a policy that is empty, or that would leave a database without any snapshot.
 */
export function planForget(snapshots: readonly StoreSnapshot[], policy: RetentionPolicy): ForgetGroup[] {
  const now = Date.now();
  const dated = snapshots.map((snapshot) => {
    const { id, host, path, tags } = snapshot;
    return { id, host, path, tags, time: formatCalendarTime(snapshot.time), snapshot };
  });
  const isFuture = ({ time }: StoreSnapshot): boolean => time.getTime() > now;
  const planned = applyRetention(
    dated.filter(({ snapshot }) => !isFuture(snapshot)),
    policy,
  ).map(({ host, path, keep, remove }) => ({
    host,
    path,
    keep: keep.map((each) => ({ snapshot: each.snapshot.snapshot, reasons: each.reasons })),
    remove: remove.map(({ snapshot }) => snapshot),
  }));
  return withFuture(planned, snapshots.filter(isFuture));
}

function withFuture(planned: readonly ForgetGroup[], future: readonly StoreSnapshot[]): ForgetGroup[] {
  const groups = new Map(planned.map((group) => [JSON.stringify([group.host, group.path]), group]));
  for (const snapshot of future.toSorted((a, b) => a.time.getTime() - b.time.getTime())) {
    const { host, path } = snapshot;
    const key = JSON.stringify([host, path]);
    const group = groups.get(key) ?? { host, path, keep: [], remove: [] };
    groups.set(key, { ...group, keep: [{ snapshot, reasons: [FUTURE] }, ...group.keep] });
  }
  return [...groups.values()];
}
