import { SqlsyncError } from '../../errors.ts';

/** A week: beyond it a number is a mistake, and Node's timers do not reach much farther. */
const MAX_SECONDS = 7 * 24 * 3600;

/** Where 0 would be no time at all. */
const MIN_SECONDS = 0.001;

/** A time that is not 0, in milliseconds; undefined where none was given. Throws SqlsyncError USAGE. */
export function limit(option: string, seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : milliseconds(option, seconds, MIN_SECONDS);
}

/** `seconds` in milliseconds. Throws SqlsyncError USAGE where they are out of range. */
export function milliseconds(option: string, seconds: number, least = 0): number {
  if (seconds >= least && seconds <= MAX_SECONDS) return Math.round(seconds * 1000);
  throw new SqlsyncError(
    'USAGE',
    `${option}: ${given(seconds, 'out of range')}expected a number of seconds from ${least} to ${MAX_SECONDS}`,
    { hint: 'A fraction, such as 0.5, will do; the longest is a week.' },
  );
}

/** What is no number was not kept by the parser. */
export function given(number: number, fault: string): string {
  return Number.isNaN(number) ? '' : `${number} is ${fault}; `;
}
