/**
 * Times as a calendar shows them. A snapshot belongs to the day, week or month that the clock of its machine showed,
 * wherever the policy is applied: the recorded offset decides, not the time zone of the reader.
 */
export interface CalendarTime {
  /** Milliseconds since 1970 UTC. */
  readonly epochMs: number;
  /** The difference of the recording clock to UTC. */
  readonly offsetMinutes: number;
  /**
   * True if it was recorded with an offset, and not as UTC (`Z`): it may then be of the time zone of this process, with
   * its summer time.
   */
  readonly hasOffset: boolean;
}

/** A span of the calendar: 1 month before 31 March is 3 March, or 2 March in a leap year. */
export interface CalendarSpan {
  readonly years: number;
  readonly months: number;
  readonly days: number;
  readonly hours: number;
}

const RFC_3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|([+-])(\d\d):(\d\d))$/;

/** The time of an RFC 3339 text, such as `2026-03-01T02:30:00+01:00`; undefined for other texts. */
export function parseCalendarTime(text: string): CalendarTime | undefined {
  const match = RFC_3339.exec(text);
  // Date supports milliseconds, and no more digits.
  const epochMs = Date.parse(text.replace(/(\.\d{3})\d+/, '$1'));
  if (match === null || Number.isNaN(epochMs) || !isDay(text.slice(0, 10))) return undefined;
  const [, sign, hours, minutes] = match;
  const offset = sign === undefined ? 0 : Number(hours) * 60 + Number(minutes);
  return { epochMs, offsetMinutes: sign === '-' ? -offset : offset, hasOffset: sign !== undefined };
}

/** True if the calendar has this day, `2026-11-21`: Date takes the 30th of February for the 2nd of March. */
export function isDay(text: string): boolean {
  const time = Date.parse(`${text}T00:00:00Z`);
  return !Number.isNaN(time) && new Date(time).toISOString().startsWith(text);
}

/** `time` as RFC 3339 on this machine's clock, for the record of a snapshot. */
export function formatCalendarTime(time: Date): string {
  const offset = -time.getTimezoneOffset();
  const clock = new Date(time.getTime() + offset * 60_000).toISOString().slice(0, -1);
  const size = Math.abs(offset);
  const zone = `${pad(Math.floor(size / 60))}:${pad(size % 60)}`;
  return `${clock}${offset < 0 ? '-' : '+'}${zone}`;
}

/** A time for people, which also works after `STORE#`: 2026-11-21 08:00:00+01:00. */
export function formatClock(time: Date): string {
  return formatCalendarTime(time).replace('T', ' ').replace(/\.\d+/, '');
}

/** A span such as `1y5m7d2h`; undefined for other texts. Each unit may occur once. */
export function parseCalendarSpan(text: string): CalendarSpan | undefined {
  const span = { years: 0, months: 0, days: 0, hours: 0 };
  const parts = text.trim().match(/\d{1,6}[ymdh]/g) ?? [];
  if (parts.length === 0 || parts.join('') !== text.trim()) return undefined;
  const seen = new Set<string>();
  for (const part of parts) {
    const unit = part.slice(-1);
    if (seen.has(unit)) return undefined;
    seen.add(unit);
    span[NAME_OF_UNIT[unit as 'y' | 'm' | 'd' | 'h']] = Number(part.slice(0, -1));
  }
  return span;
}

const NAME_OF_UNIT = { y: 'years', m: 'months', d: 'days', h: 'hours' } as const;

export function formatCalendarSpan({ years, months, days, hours }: CalendarSpan): string {
  const parts = [
    [years, 'y'],
    [months, 'm'],
    [days, 'd'],
    [hours, 'h'],
  ] as const;
  return parts.map(([count, unit]) => (count === 0 ? '' : `${count}${unit}`)).join('');
}

export function isEmptySpan({ years, months, days, hours }: CalendarSpan): boolean {
  return years === 0 && months === 0 && days === 0 && hours === 0;
}

/**
 * The time `span` before `time`, in milliseconds since 1970. Days in the time zone of this process have 23 or 25 hours
 * when summer time begins or ends. For other zones only the offset is known, so days have 24.
 */
export function beforeBy(time: CalendarTime, span: CalendarSpan): number {
  const clock = clockOf(time);
  const fields = [
    clock.getUTCFullYear() - span.years,
    clock.getUTCMonth() - span.months,
    clock.getUTCDate() - span.days,
    clock.getUTCHours(),
    clock.getUTCMinutes(),
    clock.getUTCSeconds(),
    clock.getUTCMilliseconds(),
  ] as const;
  const isOurZone = time.hasOffset && -new Date(time.epochMs).getTimezoneOffset() === time.offsetMinutes;
  const date = isOurZone ? new Date(...fields).getTime() : Date.UTC(...fields) - time.offsetMinutes * 60_000;
  return date - span.hours * 3_600_000;
}

/** Names of the periods that a time lies in; two times in the same period have the same name. */
export const PERIODS = {
  /** With the offset: when summer time ends, the clock shows one hour twice. */
  hour: (time: CalendarTime): string => `${clockOf(time).toISOString().slice(0, 13)}${time.offsetMinutes}`,
  day: (time: CalendarTime): string => clockOf(time).toISOString().slice(0, 10),
  week: (time: CalendarTime): string => isoWeek(clockOf(time)),
  month: (time: CalendarTime): string => clockOf(time).toISOString().slice(0, 7),
  year: (time: CalendarTime): string => clockOf(time).toISOString().slice(0, 4),
} as const;

/** A date whose UTC fields are what the recording clock showed. */
function clockOf({ epochMs, offsetMinutes }: CalendarTime): Date {
  return new Date(epochMs + offsetMinutes * 60_000);
}

/** The week of ISO 8601: it begins on Monday, and belongs to the year that its Thursday is in. */
function isoWeek(clock: Date): string {
  const day = (clock.getUTCDay() + 6) % 7;
  const thursday = new Date(
    Date.UTC(clock.getUTCFullYear(), clock.getUTCMonth(), clock.getUTCDate() - day + 3),
  );
  const year = thursday.getUTCFullYear();
  const week = Math.floor((thursday.getTime() - Date.UTC(year, 0, 1)) / (7 * 86_400_000)) + 1;
  return `${year}-W${week}`;
}

function pad(value: number): string {
  return String(value).padStart(2, '0');
}
