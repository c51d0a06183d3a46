import { SqlsyncError, sanitizeText } from '../../errors.ts';
import {
  PERIODS,
  beforeBy,
  formatCalendarSpan,
  isEmptySpan,
  parseCalendarTime,
} from '../snapshots/calendar-time.ts';
import type { CalendarSpan, CalendarTime } from '../snapshots/calendar-time.ts';

/** How many of a kind to keep; `unlimited` keeps one of every period. */
export type KeepCount = number | 'unlimited';

/**
 * Which snapshots to keep, in the terms and with the meaning of `restic forget`. A snapshot is kept if any rule keeps
 * it.
 */
export interface RetentionPolicy {
  /** The newest snapshots, this many. */
  readonly last?: KeepCount;
  /** The newest snapshot of each of the newest hours, days, weeks (ISO 8601), … that have one. */
  readonly hourly?: KeepCount;
  readonly daily?: KeepCount;
  readonly weekly?: KeepCount;
  readonly monthly?: KeepCount;
  readonly yearly?: KeepCount;
  /** All snapshots newer than this span before the newest of the group. */
  readonly within?: CalendarSpan;
  /** Among those, the newest of each hour, day, … */
  readonly withinHourly?: CalendarSpan;
  readonly withinDaily?: CalendarSpan;
  readonly withinWeekly?: CalendarSpan;
  readonly withinMonthly?: CalendarSpan;
  readonly withinYearly?: CalendarSpan;
  /** All snapshots that have every tag of one of these lists; the tag '' means "no tags". */
  readonly tags?: readonly (readonly string[])[];
}

/** What retention needs to know of a snapshot. */
export interface DatedSnapshot {
  readonly id: string;
  /** RFC 3339 with the offset of the clock that recorded it. */
  readonly time: string;
  readonly host: string;
  /** The path of the database on that host. */
  readonly path: string;
  readonly tags: readonly string[];
  /** Its place among snapshots of the same time; by default the id decides. */
  readonly place?: number;
}

/** The fields that define a group, to which a policy is applied: without any, all snapshots are one group. */
export type Grouping = readonly ('host' | 'path' | 'tags')[];

/** One group per database. */
export const DEFAULT_GROUPING: Grouping = ['host', 'path'];

/** The common fields of a group; undefined for fields that do not define it. */
export interface GroupKey {
  readonly host: string | undefined;
  readonly path: string | undefined;
  readonly tags?: readonly string[] | undefined;
}

/** The snapshots of one group, newest first in both lists. */
export interface RetentionGroup<S extends DatedSnapshot> extends GroupKey {
  /** With the rules that keep each: `daily snapshot`, `within 7d`, `has tags [release]`. */
  readonly keep: readonly { readonly snapshot: S; readonly reasons: readonly string[] }[];
  readonly remove: readonly S[];
}

/** True if no rule could keep anything. */
export function isEmptyPolicy(policy: RetentionPolicy): boolean {
  const { tags = [], ...rules } = policy;
  return tags.length === 0 && Object.values(rules).every((rule) => isEmptyRule(rule));
}

/**
 * Decides for each snapshot whether `policy` keeps it, and why: for each group separately, by default for each database
 * (host and path). Pure except for the time zone of the process, in which days are counted back. A snapshot of the
 * future, beyond `nowMs`, does not count as the newest.
 *
 * Throws SqlsyncError USAGE if the policy is empty or would leave a group without any snapshot.
 */
export function applyRetention<S extends DatedSnapshot>(
  snapshots: readonly S[],
  policy: RetentionPolicy,
  nowMs: number = Date.now(),
  groupBy: Grouping = DEFAULT_GROUPING,
): RetentionGroup<S>[] {
  if (isEmptyPolicy(policy)) {
    throw new SqlsyncError('USAGE', 'The policy is empty: it would keep no snapshot at all', {
      hint: 'Name what to keep, for example --keep-daily 7 --keep-weekly 5 --keep-monthly 12.',
    });
  }
  return groupSnapshots(snapshots, groupBy).map((group) => applyToGroup(group, policy, nowMs));
}

/** The groups, sorted by their common fields; the snapshots of each stay in order. */
export function groupSnapshots<S extends Pick<DatedSnapshot, 'host' | 'path' | 'tags'>>(
  snapshots: readonly S[],
  groupBy: Grouping,
): (GroupKey & { readonly members: readonly S[] })[] {
  const keyOf = ({ host, path, tags }: S): GroupKey => ({
    host: groupBy.includes('host') ? host : undefined,
    path: groupBy.includes('path') ? path : undefined,
    ...(groupBy.includes('tags') ? { tags: tags.toSorted() } : {}),
  });
  const groups = Map.groupBy(snapshots, (snapshot) => {
    const { host, path, tags } = keyOf(snapshot);
    return JSON.stringify([host, path, tags]);
  });
  return [...groups.entries()]
    .sort(([a], [b]) => compareText(a, b))
    .map(([, members]) => {
      const { host, path, tags } = keyOf(members[0] as S);
      return { host, path, tags, members };
    });
}

/** The name of a group for messages: `db1:/srv/app.db`, with the fields that define the group. */
export function describeGroupKey({ host, path, tags }: GroupKey): string {
  const place = [host, path].filter((part) => part !== undefined).join(':');
  const tagged = tags === undefined ? '' : tags.length === 0 ? 'without tags' : `tagged ${tags.join(',')}`;
  return sanitizeText([place, tagged].filter((part) => part !== '').join(' '), 1000) || 'all snapshots';
}

function applyToGroup<S extends DatedSnapshot>(
  { members, ...key }: GroupKey & { readonly members: readonly S[] },
  policy: RetentionPolicy,
  nowMs: number,
): RetentionGroup<S> {
  const { keep, remove } = decide(members, policy, nowMs);
  if (keep.length > 0) return { ...key, keep, remove };
  throw new SqlsyncError(
    'USAGE',
    `The policy would remove every snapshot of ${describeGroupKey(key)} (${members.length})`,
    { hint: 'Add a rule that keeps some, such as --keep-last 1, or name the snapshots to forget.' },
  );
}

/** As `applyRetention`, for the snapshots of one group, of which the policy may keep none. */
export function decide<S extends DatedSnapshot>(
  members: readonly S[],
  policy: RetentionPolicy,
  nowMs: number,
): Pick<RetentionGroup<S>, 'keep' | 'remove'> {
  const dated = newestFirst(members);
  const rules = rulesOf(policy, latestOf(dated, nowMs));
  const keep: { snapshot: S; reasons: string[] }[] = [];
  const remove: S[] = [];
  for (const [i, { snapshot, time }] of dated.entries()) {
    const isOldest = i === dated.length - 1;
    const reasons = rules.flatMap((rule) => rule({ snapshot, time, number: i, isOldest }) ?? []);
    if (reasons.length > 0) keep.push({ snapshot, reasons });
    else remove.push(snapshot);
  }
  return { keep, remove };
}

interface Candidate {
  readonly snapshot: DatedSnapshot;
  readonly time: CalendarTime;
  /** 0 is the newest of the group. */
  readonly number: number;
  readonly isOldest: boolean;
}

/** The reason to keep a candidate, if there is one. Candidates come newest first. */
type Rule = (candidate: Candidate) => string | string[] | undefined;

/** In the order in which restic names the reasons. */
function rulesOf(policy: RetentionPolicy, latest: CalendarTime | undefined): Rule[] {
  const since = (span: CalendarSpan): number => (latest === undefined ? -Infinity : beforeBy(latest, span));
  const { hour, day, week, month, year } = PERIODS;
  const rules: (Rule | undefined)[] = [
    ({ snapshot }) => tagReasons(snapshot.tags, policy.tags ?? []),
    withinRule(policy.within, since),
    countRule('last', policy.last, (_, number) => String(number)),
    countRule('hourly', policy.hourly, hour),
    countRule('daily', policy.daily, day),
    countRule('weekly', policy.weekly, week),
    countRule('monthly', policy.monthly, month),
    countRule('yearly', policy.yearly, year),
    periodWithinRule('hourly', policy.withinHourly, since, hour),
    periodWithinRule('daily', policy.withinDaily, since, day),
    periodWithinRule('weekly', policy.withinWeekly, since, week),
    periodWithinRule('monthly', policy.withinMonthly, since, month),
    periodWithinRule('yearly', policy.withinYearly, since, year),
  ];
  return rules.filter((rule) => rule !== undefined);
}

function tagReasons(own: readonly string[], lists: readonly (readonly string[])[]): string[] {
  return lists.filter((list) => hasTags(own, list)).map((list) => `has tags [${list.join(', ')}]`);
}

function hasTags(own: readonly string[], wanted: readonly string[]): boolean {
  for (const tag of wanted) {
    if (tag === '' && own.length === 0) return true;
    if (!own.includes(tag)) return false;
  }
  return true;
}

function withinRule(span: CalendarSpan | undefined, since: (span: CalendarSpan) => number): Rule | undefined {
  if (span === undefined || isEmptySpan(span)) return undefined;
  const from = since(span);
  return ({ time }) => (time.epochMs > from ? `within ${formatCalendarSpan(span)}` : undefined);
}

/** Until the count is reached, the oldest snapshot of the group counts too: it keeps as much history as exists. */
function countRule(
  kind: string,
  count: KeepCount | undefined,
  periodOf: (time: CalendarTime, number: number) => string,
): Rule | undefined {
  if (count === undefined || count === 0) return undefined;
  let left = count === 'unlimited' ? Infinity : count;
  let last: string | undefined;
  return ({ time, number, isOldest }) => {
    if (left <= 0) return undefined;
    const period = periodOf(time, number);
    const isNew = period !== last;
    if (!isNew && !isOldest) return undefined;
    left--;
    last = period;
    return isNew ? `${kind} snapshot` : `oldest ${kind} snapshot`;
  };
}

function periodWithinRule(
  kind: string,
  span: CalendarSpan | undefined,
  since: (span: CalendarSpan) => number,
  periodOf: (time: CalendarTime) => string,
): Rule | undefined {
  if (span === undefined || isEmptySpan(span)) return undefined;
  const from = since(span);
  let last: string | undefined;
  return ({ time, isOldest }) => {
    const period = periodOf(time);
    const isNew = period !== last;
    if (time.epochMs <= from || (!isNew && !isOldest)) return undefined;
    last = period;
    return `${isNew ? kind : `oldest ${kind}`} within ${formatCalendarSpan(span)}`;
  };
}

function newestFirst<S extends DatedSnapshot>(group: readonly S[]): { snapshot: S; time: CalendarTime }[] {
  return group
    .map((snapshot) => ({ snapshot, time: timeOf(snapshot) }))
    .sort(
      (a, b) =>
        b.time.epochMs - a.time.epochMs ||
        (b.snapshot.place ?? 0) - (a.snapshot.place ?? 0) ||
        compareText(a.snapshot.id, b.snapshot.id),
    );
}

/** The newest that is not in the future: one wrong clock must not make all others old. */
function latestOf(dated: readonly { time: CalendarTime }[], nowMs: number): CalendarTime | undefined {
  return dated.find(({ time }) => time.epochMs < nowMs)?.time;
}

function timeOf({ id, time }: DatedSnapshot): CalendarTime {
  const parsed = parseCalendarTime(time);
  if (parsed !== undefined) return parsed;
  throw new TypeError(`snapshot ${id} has no RFC 3339 time but ${time}`);
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function isEmptyRule(rule: KeepCount | CalendarSpan): boolean {
  return typeof rule === 'object' ? isEmptySpan(rule) : rule === 0;
}
