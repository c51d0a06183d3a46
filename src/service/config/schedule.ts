import { Cron } from 'croner';
import { parseDuration } from '../../cli/options/quantities.ts';

/** When a target gets its copies. */
export type Schedule =
  | { readonly kind: 'interval'; readonly text: string; readonly everyMs: number }
  | { readonly kind: 'cron'; readonly text: string }
  | { readonly kind: 'follow'; readonly text: 'follow' };

const LEAST_INTERVAL_MS = 1000;

/** The five fields of cron, or one of its names. */
const CRON = /^(?:@(?:hourly|daily|weekly|monthly|yearly|annually|midnight)|\S+(?:\s+\S+){4})$/;

/** Undefined for a text that is no schedule. Throws SqlsyncError USAGE for one that is no time either. */
export function parseSchedule(text: string): Schedule | undefined {
  const trimmed = text.trim();
  if (trimmed === 'follow') return { kind: 'follow', text: 'follow' };
  if (CRON.test(trimmed)) return parseCron(trimmed);
  const everyMs = parseDuration('schedule', trimmed);
  return everyMs < LEAST_INTERVAL_MS ? undefined : { kind: 'interval', text: trimmed, everyMs };
}

/** In the nights when clocks change, moments are neither left out nor doubled, as Vixie's cron does it. */
const CRON_RULES = { fixedTimeRule: 'no-wildcard' } as const;

/** Undefined also for a moment that never comes, such as 31 February. */
function parseCron(text: string): Schedule | undefined {
  try {
    return new Cron(text, CRON_RULES).nextRun() === null ? undefined : { kind: 'cron', text };
  } catch {
    return undefined;
  }
}

/** The first moment after `afterMs`, in ms since 1970, by the clock of this host. */
function nextCron({ text }: { readonly text: string }, afterMs: number): number | undefined {
  return new Cron(text, CRON_RULES).nextRun(new Date(afterMs))?.getTime();
}

/**
 * When a target is due that had its last run at `lastMs`, in ms since 1970. However many moments have passed since, a
 * target is due once. Infinity for one that follows.
 *
 * @param spreadMs - how much later than its moment a cron expression is due, so that not all are at once.
 */
export function dueAfter(schedule: Schedule, lastMs: number, spreadMs: number): number {
  if (schedule.kind === 'follow') return Infinity;
  if (schedule.kind === 'interval') return lastMs + schedule.everyMs;
  const next = nextCron(schedule, lastMs - spreadMs);
  return next === undefined ? Infinity : next + spreadMs;
}
