import { formatCalendarTime } from '../snapshots/calendar-time.ts';
import { confirmedByPlace } from './place-times.ts';
import { applyRetention, decide, DEFAULT_GROUPING, groupSnapshots } from './retention.ts';
import type { DatedSnapshot, Grouping, RetentionPolicy } from './retention.ts';
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
  /**
   * Those among `remove` whose times the place does not confirm: it got them at another time than they record. A store
   * that was copied is like that, and one in which somebody put false snapshots, or true ones again.
   */
  readonly unconfirmed: readonly StoreSnapshot[];
  /** Those among `keep` that would be removed if the place confirmed the times of all others. */
  readonly spared: readonly StoreSnapshot[];
  /** Those among `keep` that an unattended run leaves to a later one: see `PlanForgetOptions.isUnattended`. */
  readonly waiting: readonly StoreSnapshot[];
}

export interface PlanForgetOptions {
  /** The common fields of a group's snapshots; default: host and path. */
  readonly groupBy?: Grouping | undefined;
  /**
   * True for a run that nobody looks at. It keeps a snapshot whose time the place does not confirm for a week after it
   * came, if there are others like that: they may be what pushes it out. A warning then comes before the loss. The store
   * may as well have been copied as files, so retention goes on after that week.
   */
  readonly isUnattended?: boolean | undefined;
  /** Ids of snapshots to keep in any case: `await store.newestFollowed()`. */
  readonly followed?: ReadonlySet<string> | undefined;
}

/** Time enough to notice a warning. */
const WAIT_MS: number = 7 * 24 * 3600 * 1000;

/** The reason to keep a snapshot for that long. */
const WAITING = 'came less than a week ago, with another time';

/** The reason to keep a snapshot with steps after it that are newer than all snapshots. */
const FOLLOWED = 'newest state follows it';

/** What follows the reason to keep a snapshot that would go if the times of others were right. */
const BY_PLACE = ', by the time of the place';

/** The reason to keep a snapshot whose time is in the future. */
const FUTURE = 'in the future';

/**
 * Decides which snapshots `policy` keeps, and why; forgets nothing. Decides for each group separately. Days and weeks
 * are those of this machine's clock: a store records no clock of the origin. The newest snapshots are those that were
 * made last: a snapshot whose time does not fit counts with the time of the next one. A snapshot with a time in the
 * future is kept and counts for no rule: after a wrong clock it must not take the place of new snapshots.
 *
 * The policy is applied a second time, to the snapshots whose times the place confirms, and what either keeps stays. So
 * those with other times, which anyone who may put can make, push none of these out.
 *
 * Throws SqlsyncError USAGE for a policy that is empty, or that would leave a group without any snapshot.
 */
export function planForget(
  snapshots: readonly StoreSnapshot[],
  policy: RetentionPolicy,
  { groupBy = DEFAULT_GROUPING, isUnattended = false, followed = new Set() }: PlanForgetOptions = {},
): ForgetGroup[] {
  const nowMs = Date.now();
  // Throws for an empty policy, even if there is nothing to forget.
  applyRetention([], policy, nowMs);
  return groupSnapshots(inOrder(snapshots), groupBy).map(({ host, path, tags, members }) => {
    return Object.assign(
      { host, path, tags },
      planGroup(members, policy, { groupBy, isUnattended, followed, nowMs }),
    );
  });
}

/** `history` is in the order in which the snapshots were made. */
function planGroup(
  history: readonly StoreSnapshot[],
  policy: RetentionPolicy,
  {
    groupBy,
    isUnattended,
    followed,
    nowMs,
  }: Required<PlanForgetOptions> & {
    readonly groupBy: Grouping;
    readonly followed: ReadonlySet<string>;
    readonly nowMs: number;
  },
): Omit<ForgetGroup, 'host' | 'path' | 'tags'> {
  const datings = dateHistory(history, nowMs);
  const dated = (snapshot: StoreSnapshot, place: number, ms: number): Dated => {
    const { id, host, path, tags } = snapshot;
    return { id, host, path, tags, time: formatCalendarTime(new Date(ms)), place, snapshot };
  };
  const past = history.filter(({ time }) => time.getTime() <= nowMs);
  const byOrder = past.map((snapshot, place) =>
    dated(snapshot, place, datings.get(snapshot.id)?.ms ?? snapshot.time.getTime()),
  );
  const [planned] = applyRetention(byOrder, policy, nowMs, groupBy);
  const reasonsOf = new Map(planned?.keep.map(({ snapshot, reasons }) => [snapshot.id, reasons]));
  const confirmed = confirmedByPlace(history);
  const isDoubted = history.some(({ id }) => !confirmed.has(id) || datings.get(id)?.doubt !== undefined);
  const byPlace = past
    .filter(({ id }) => isDoubted && confirmed.has(id))
    .map((snapshot, place) => dated(snapshot, place, snapshot.time.getTime()));
  const spared: StoreSnapshot[] = [];
  for (const { snapshot, reasons } of decide(byPlace, policy, nowMs).keep) {
    if (reasonsOf.has(snapshot.id)) continue;
    spared.push(snapshot.snapshot);
    reasonsOf.set(
      snapshot.id,
      reasons.map((reason) => `${reason}${BY_PLACE}`),
    );
  }
  for (const { id } of past) if (followed.has(id) && !reasonsOf.has(id)) reasonsOf.set(id, [FOLLOWED]);
  const outOfPolicy = new Set(planned?.remove.map(({ id }) => id));
  const doomed = past.filter(({ id }) => outOfPolicy.has(id) && !reasonsOf.has(id));
  const waiting = isUnattended ? waitingAmong(doomed, { history, confirmed, nowMs }) : [];
  for (const { id } of waiting) reasonsOf.set(id, [WAITING]);
  const removed = new Set(doomed.map(({ id }) => id).filter((id) => !reasonsOf.has(id)));
  const newestFirst = history.toReversed();
  const remove = newestFirst.filter(({ id }) => removed.has(id));
  return {
    keep: newestFirst
      .filter(({ id }) => !removed.has(id))
      .map((snapshot) => ({ snapshot, reasons: reasonsOf.get(snapshot.id) ?? [FUTURE] })),
    remove,
    unconfirmed: remove.filter(({ id }) => !confirmed.has(id)),
    spared: history.every(({ id }) => confirmed.has(id)) ? [] : spared,
    waiting,
  };
}

/** Those whose place got them less than a week ago and does not confirm their times, if it confirms not all others. */
function waitingAmong(
  doomed: readonly StoreSnapshot[],
  {
    history,
    confirmed,
    nowMs,
  }: {
    readonly history: readonly StoreSnapshot[];
    readonly confirmed: ReadonlySet<string>;
    readonly nowMs: number;
  },
): StoreSnapshot[] {
  if (history.filter(({ id }) => !confirmed.has(id)).length < 2) return [];
  return doomed.filter(
    ({ id, stored }) => !confirmed.has(id) && stored !== undefined && nowMs - stored.getTime() < WAIT_MS,
  );
}

/** A snapshot as retention sees it. */
interface Dated extends DatedSnapshot {
  readonly snapshot: StoreSnapshot;
}
