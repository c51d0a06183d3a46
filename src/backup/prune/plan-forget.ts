import { formatCalendarTime } from '../snapshots/calendar-time.ts';
import { applyRetention, DEFAULT_GROUPING, groupSnapshots } from './retention.ts';
import type { Grouping, RetentionPolicy } from './retention.ts';
import { dateHistory } from '../snapshots/snapshot-clock.ts';
import { inOrder } from '../files/snapshot-order.ts';
import type { StoreSnapshot } from '../types.ts';

/**
 * The decision of a policy for the snapshots of one group, by default those of one database (host and path); both lists
 * newest first.
 */
export interface ForgetGroup {
  /** undefined if snapshots are not grouped by host. */
  readonly host: string | undefined;
  /** undefined if snapshots are not grouped by path. */
  readonly path: string | undefined;
  /** Only if snapshots are grouped by tags. */
  readonly tags?: readonly string[] | undefined;
  /** With the rules that keep each: `daily snapshot`, `within 7d`, `has tags [release]`. */
  readonly keep: readonly { readonly snapshot: StoreSnapshot; readonly reasons: readonly string[] }[];
  readonly remove: readonly StoreSnapshot[];
}

export interface PlanForgetOptions {
  /** The common fields of a group's snapshots; default: host and path. */
  readonly groupBy?: Grouping | undefined;
}

/** The reason to keep a snapshot whose time is in the future. */
const FUTURE = 'in the future';

/**
 * Decides which snapshots `policy` keeps, and why; forgets nothing. Decides for each group separately. Days and weeks
 * are those of this machine's clock: a store records no clock of the origin. The newest snapshots are those that were
 * made last: a snapshot whose time does not fit counts with the time of the next one. A snapshot with a time in the
 * future is kept and counts for no rule: after a wrong clock it must not take the place of new snapshots.
 *
 * Throws SqlsyncError USAGE for a policy that is empty, or that would leave a group without any snapshot.
 */
export function planForget(
  snapshots: readonly StoreSnapshot[],
  policy: RetentionPolicy,
  { groupBy = DEFAULT_GROUPING }: PlanForgetOptions = {},
): ForgetGroup[] {
  const nowMs = Date.now();
  // Throws for an empty policy, even if there is nothing to forget.
  applyRetention([], policy, nowMs);
  return groupSnapshots(inOrder(snapshots), groupBy).map(({ host, path, tags, members }) => {
    const { keep, remove } = planGroup(members, policy, groupBy, nowMs);
    return { host, path, tags, keep, remove };
  });
}

/** `history` is in the order in which the snapshots were made. */
function planGroup(
  history: readonly StoreSnapshot[],
  policy: RetentionPolicy,
  groupBy: Grouping,
  nowMs: number,
): Pick<ForgetGroup, 'keep' | 'remove'> {
  const datings = dateHistory(history, nowMs);
  const past = history.flatMap((snapshot, place) => {
    const { id, host, path, tags, time } = snapshot;
    if (time.getTime() > nowMs) return [];
    const at = formatCalendarTime(new Date(datings.get(id)?.ms ?? time));
    return [{ id, host, path, tags, time: at, place, snapshot }];
  });
  const [planned] = applyRetention(past, policy, nowMs, groupBy);
  const reasonsOf = new Map(planned?.keep.map(({ snapshot, reasons }) => [snapshot.id, reasons]));
  const removed = new Set(planned?.remove.map(({ id }) => id));
  const newestFirst = history.toReversed();
  return {
    keep: newestFirst
      .filter(({ id }) => !removed.has(id))
      .map((snapshot) => ({ snapshot, reasons: reasonsOf.get(snapshot.id) ?? [FUTURE] })),
    remove: newestFirst.filter(({ id }) => removed.has(id)),
  };
}
