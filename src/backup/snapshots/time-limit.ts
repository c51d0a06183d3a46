import { createRequire } from 'node:module';
import { isDay } from './calendar-time.ts';

const TIME =
  /^(\d{4}-\d\d-\d\d)(?:[T ]((?:[01]\d|2[0-3]):[0-5]\d)(?::([0-5]\d)(?:\.(\d{1,9}))?)?(Z|[+-](?:0\d|1[0-4]):[0-5]\d)?)?$/;

/**
 * The last millisecond, since 1970, that a day, or a time without seconds, covers: `2026-11-21`, `2026-11-21T08:00`,
 * `2026-11-21T08:00:00+01:00`. Without an offset it is of this machine's clock. A day ends where the next one begins,
 * whichever hour that is. A time that the clock showed twice means the second one. A time that it skipped means the
 * moment of the change. undefined for other texts.
 */
export function lastMomentOf(text: string): number | undefined {
  const [, day, minute, seconds, decimals = '999', zone] = TIME.exec(text) ?? [];
  if (day === undefined || !isDay(day)) return undefined;
  if (minute === undefined) return endOfDay(day);
  const milliseconds = decimals.length < 3 ? decimals.padEnd(3, '9') : decimals.slice(0, 3);
  const clock = `${day}T${minute}:${seconds ?? '59'}.${milliseconds}`;
  return zone === undefined ? lastShown(clock) : Date.parse(`${clock}${zone}`);
}

function endOfDay(day: string): number {
  const calendar = calendarHere();
  if (calendar === undefined) {
    const date = new Date(`${day}T00:00`);
    return new Date(date.getFullYear(), date.getMonth(), date.getDate() + 1).getTime() - 1;
  }
  const { temporal, zone } = calendar;
  return temporal.PlainDate.from(day).add({ days: 1 }).toZonedDateTime(zone).epochMilliseconds - 1;
}

function lastShown(clock: string): number {
  const calendar = calendarHere();
  if (calendar === undefined) return new Date(clock).getTime();
  const { temporal, zone } = calendar;
  const wanted = temporal.PlainDateTime.from(clock);
  const later = wanted.toZonedDateTime(zone, { disambiguation: 'later' });
  if (later.toPlainDateTime().equals(wanted)) return later.epochMilliseconds;
  const turn = wanted.toZonedDateTime(zone, { disambiguation: 'earlier' }).getTimeZoneTransition('next');
  return (turn ?? later).epochMilliseconds - 1;
}

interface Calendar {
  readonly temporal: typeof Temporal;
  readonly zone: string;
}

/** undefined if the time zone of this machine has no name: Date then knows as much as we do. */
function calendarHere(): Calendar | undefined {
  const name = new Intl.DateTimeFormat().resolvedOptions().timeZone as string | undefined;
  // A path is a time zone for the system, but has no name for Intl.
  const zone = name ?? process.env['TZ']?.replace(/^:?.*\/zoneinfo\//, '');
  if (zone === undefined) return undefined;
  const temporal = loadTemporal();
  try {
    temporal.Now.zonedDateTimeISO(zone);
    return { temporal, zone };
  } catch {
    return undefined;
  }
}

/** Later versions of Node.js have it. */
function loadTemporal(): typeof Temporal {
  const { Temporal: own } = globalThis as { Temporal?: typeof Temporal };
  if (own !== undefined) return own;
  const require = createRequire(import.meta.url);
  return (require('temporal-polyfill') as { readonly Temporal: typeof Temporal }).Temporal;
}
