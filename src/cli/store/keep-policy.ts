import { parseCalendarSpan } from '../../backup/snapshots/calendar-time.ts';
import type { CalendarSpan } from '../../backup/snapshots/calendar-time.ts';
import { isEmptyPolicy } from '../../backup/prune/retention.ts';
import type { Grouping, KeepCount, RetentionPolicy } from '../../backup/prune/retention.ts';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import type { OptionValues } from '../options/command.ts';

/** The options of restic, with the same meaning. */
export const KEEP_OPTIONS = {
  'keep-last': { value: 'N', describe: 'Keep the newest N snapshots; or unlimited' },
  'keep-hourly': {
    value: 'N',
    describe: 'Keep the last snapshot of each of the newest N hours that have one; or unlimited',
  },
  'keep-daily': { value: 'N', describe: 'Keep the last of each of the newest N days; or unlimited' },
  'keep-weekly': { value: 'N', describe: 'Keep the last of each of the newest N weeks; or unlimited' },
  'keep-monthly': { value: 'N', describe: 'Keep the last of each of the newest N months; or unlimited' },
  'keep-yearly': { value: 'N', describe: 'Keep the last of each of the newest N years; or unlimited' },
  'keep-within': { value: 'SPAN', describe: 'Keep all within SPAN before the newest, such as 1y5m7d2h' },
  'keep-within-hourly': {
    value: 'SPAN',
    describe: 'Keep the last of each hour within SPAN before the newest',
  },
  'keep-within-daily': { value: 'SPAN', describe: 'Keep the last of each day within SPAN before the newest' },
  'keep-within-weekly': {
    value: 'SPAN',
    describe: 'Keep the last of each week within SPAN before the newest',
  },
  'keep-within-monthly': {
    value: 'SPAN',
    describe: 'Keep the last of each month within SPAN before the newest',
  },
  'keep-within-yearly': {
    value: 'SPAN',
    describe: 'Keep the last of each year within SPAN before the newest',
  },
  'keep-tag': { array: true, value: 'TAG', describe: 'Keep all that have this tag, or all of tag,tag' },
  'group-by': {
    value: 'WHAT',
    describe: 'Apply the policy to snapshots that have these in common: host, path, tags (default host,path)',
  },
} as const;

export type KeepArguments = Partial<OptionValues<typeof KEEP_OPTIONS>>;

/** As in restic, and in the singular. */
const GROUPINGS: Readonly<Record<string, Grouping[number]>> = {
  host: 'host',
  hosts: 'host',
  path: 'path',
  paths: 'path',
  tag: 'tags',
  tags: 'tags',
};

/** The grouping that `--group-by` sets; without fields, one group of all. Throws SqlsyncError USAGE. */
export function groupingOf({ groupBy }: Pick<KeepArguments, 'groupBy'>): Grouping | undefined {
  if (groupBy === undefined) return undefined;
  const names = groupBy.split(',').filter((name) => name !== '');
  return names.map((name) => {
    const known = Object.hasOwn(GROUPINGS, name) ? GROUPINGS[name] : undefined;
    if (known !== undefined) return known;
    throw new SqlsyncError(
      'USAGE',
      `--group-by: expected host, path or tags but got "${sanitizeText(name, 100)}"`,
      {
        hint: 'For example --group-by path, or host,path, which is the default; an empty text makes one group of all.',
      },
    );
  });
}

/** The given policy, or undefined for none. Throws SqlsyncError USAGE, also for a policy that keeps nothing. */
export function policyOf(args: KeepArguments): RetentionPolicy | undefined {
  const rules = {
    last: parseCount('--keep-last', args.keepLast),
    hourly: parseCount('--keep-hourly', args.keepHourly),
    daily: parseCount('--keep-daily', args.keepDaily),
    weekly: parseCount('--keep-weekly', args.keepWeekly),
    monthly: parseCount('--keep-monthly', args.keepMonthly),
    yearly: parseCount('--keep-yearly', args.keepYearly),
    within: parseSpan('--keep-within', args.keepWithin),
    withinHourly: parseSpan('--keep-within-hourly', args.keepWithinHourly),
    withinDaily: parseSpan('--keep-within-daily', args.keepWithinDaily),
    withinWeekly: parseSpan('--keep-within-weekly', args.keepWithinWeekly),
    withinMonthly: parseSpan('--keep-within-monthly', args.keepWithinMonthly),
    withinYearly: parseSpan('--keep-within-yearly', args.keepWithinYearly),
    tags: args.keepTag?.map((list) => list.split(',')),
  };
  const given = Object.entries(rules).filter(([, rule]) => rule !== undefined);
  if (given.length === 0) return undefined;
  const policy = Object.fromEntries(given) as RetentionPolicy;
  if (!isEmptyPolicy(policy)) return policy;
  throw new SqlsyncError('USAGE', 'The policy is empty: it would keep no snapshot', {
    hint: 'Name what to keep, for example --keep-daily 7 --keep-weekly 5 --keep-monthly 12.',
  });
}

function parseCount(option: string, text: string | undefined): KeepCount | undefined {
  if (text === undefined || text === 'unlimited') return text;
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new SqlsyncError(
    'USAGE',
    `${option}: expected a number or "unlimited" but got "${sanitizeText(text, 100)}"`,
    { hint: `For example ${option} 7.` },
  );
}

function parseSpan(option: string, text: string | undefined): CalendarSpan | undefined {
  if (text === undefined) return undefined;
  const parsed = parseCalendarSpan(text);
  if (parsed !== undefined) return parsed;
  throw new SqlsyncError('USAGE', `${option}: expected a span but got "${sanitizeText(text, 100)}"`, {
    hint: `Years, months, days and hours, for example ${option} 1y5m7d2h.`,
  });
}
