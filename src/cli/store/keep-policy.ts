import { parseCalendarSpan } from '../../backup/snapshots/calendar-time.ts';
import type { CalendarSpan } from '../../backup/snapshots/calendar-time.ts';
import { isEmptyPolicy } from '../../backup/prune/retention.ts';
import type { Grouping, KeepCount, RetentionPolicy } from '../../backup/prune/retention.ts';
import { SqlsyncError, sanitizeText } from '../../errors.ts';

/** The `--keep-…` options as yargs gives them. */
export interface KeepArguments {
  readonly keepLast?: string | undefined;
  readonly keepHourly?: string | undefined;
  readonly keepDaily?: string | undefined;
  readonly keepWeekly?: string | undefined;
  readonly keepMonthly?: string | undefined;
  readonly keepYearly?: string | undefined;
  readonly keepWithin?: string | undefined;
  readonly keepWithinHourly?: string | undefined;
  readonly keepWithinDaily?: string | undefined;
  readonly keepWithinWeekly?: string | undefined;
  readonly keepWithinMonthly?: string | undefined;
  readonly keepWithinYearly?: string | undefined;
  readonly keepTag?: string[] | undefined;
  readonly groupBy?: string | undefined;
}

/** As restic calls them, and in the singular. */
const GROUPINGS: Readonly<Record<string, Grouping[number]>> = {
  host: 'host',
  hosts: 'host',
  path: 'path',
  paths: 'path',
  tag: 'tags',
  tags: 'tags',
};

/** What `--group-by` says; none of them is one group of all. Throws SqlsyncError USAGE. */
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

/** The policy that was given, or undefined for none. Throws SqlsyncError USAGE, also for one that keeps nothing. */
export function policyOf(args: KeepArguments): RetentionPolicy | undefined {
  const rules = {
    last: count('--keep-last', args.keepLast),
    hourly: count('--keep-hourly', args.keepHourly),
    daily: count('--keep-daily', args.keepDaily),
    weekly: count('--keep-weekly', args.keepWeekly),
    monthly: count('--keep-monthly', args.keepMonthly),
    yearly: count('--keep-yearly', args.keepYearly),
    within: span('--keep-within', args.keepWithin),
    withinHourly: span('--keep-within-hourly', args.keepWithinHourly),
    withinDaily: span('--keep-within-daily', args.keepWithinDaily),
    withinWeekly: span('--keep-within-weekly', args.keepWithinWeekly),
    withinMonthly: span('--keep-within-monthly', args.keepWithinMonthly),
    withinYearly: span('--keep-within-yearly', args.keepWithinYearly),
    tags: args.keepTag?.map((list) => list.split(',')),
  };
  const given = Object.entries(rules).filter(([, rule]) => rule !== undefined);
  if (given.length === 0) return undefined;
  const policy = Object.fromEntries(given) as RetentionPolicy;
  if (!isEmptyPolicy(policy)) return policy;
  throw new SqlsyncError('USAGE', 'The policy is empty: all that it says is to keep nothing', {
    hint: 'Say what to keep, for example --keep-daily 7 --keep-weekly 5 --keep-monthly 12.',
  });
}

function count(option: string, text: string | undefined): KeepCount | undefined {
  if (text === undefined || text === 'unlimited') return text;
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new SqlsyncError(
    'USAGE',
    `${option}: expected a number or "unlimited" but got "${sanitizeText(text, 100)}"`,
    { hint: `For example ${option} 7.` },
  );
}

function span(option: string, text: string | undefined): CalendarSpan | undefined {
  if (text === undefined) return undefined;
  const parsed = parseCalendarSpan(text);
  if (parsed !== undefined) return parsed;
  throw new SqlsyncError('USAGE', `${option}: expected a span but got "${sanitizeText(text, 100)}"`, {
    hint: `Years, months, days and hours, for example ${option} 1y5m7d2h.`,
  });
}
