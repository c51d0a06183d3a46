import { SqlsyncError, sanitizeText } from '../../errors.ts';

const MS_OF_UNIT: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};
const POWER_OF_UNIT: Readonly<Record<string, number>> = { b: 0, k: 1, m: 2, g: 3, t: 4 };

/** A week: a larger number is a mistake, and Node's timers do not reach much farther. */
const MAX_MS = 7 * 86_400_000;

/**
 * A duration in milliseconds: a number of seconds, or with the unit ms, s, m (minutes), h or d. Accepts zero only if
 * `mayBeZero` is set.
 *
 * @throws {SqlsyncError} USAGE if the text is not a duration, or longer than a week.
 */
export function parseDuration(option: string, text: string, mayBeZero: boolean = false): number {
  const [, number, unit = 's'] = /^(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h|d)?$/i.exec(text.trim()) ?? [];
  const ms = Math.round(Number(number) * (MS_OF_UNIT[unit.toLowerCase()] ?? 1));
  if (ms >= (mayBeZero && Number(number) === 0 ? 0 : 1) && ms <= MAX_MS) return ms;
  throw new SqlsyncError(
    'USAGE',
    `${option}: "${sanitizeText(text, 50)}" is not a duration from ${mayBeZero ? '0' : '1 ms'} to 7 days`,
    { hint: 'Give seconds, or a unit: 500ms, 30s, 5m, 2h, 1d.' },
  );
}

/**
 * A size in bytes: a number of bytes, or with the unit K, M, G or T (also KiB …) of 1024, KB, MB … of 1000.
 *
 * @throws {SqlsyncError} USAGE if the text is not a size, or less than a byte.
 */
export function parseSize(option: string, text: string): number {
  const bytes = Math.round(bytesOf(text.trim(), 'b'));
  if (bytes >= 1 && Number.isSafeInteger(bytes)) return bytes;
  throw new SqlsyncError('USAGE', `${option}: "${sanitizeText(text, 50)}" is not a size of 1 byte or more`, {
    hint: 'Give bytes, or a unit: 64M is 64 MiB, 100MB a hundred million bytes, 2G.',
  });
}

/**
 * A rate as in rsync's --bwlimit, in bytes per second; undefined for 0, no limit. The units are those of a size; a
 * number without a unit is in KiB. Rounded to whole KiB.
 *
 * @throws {SqlsyncError} USAGE if the text is not a rate, or less than half a KiB.
 */
export function parseRate(option: string, text: string): number | undefined {
  const bytes = bytesOf(text, 'k');
  if (bytes === 0) return undefined;
  if (bytes >= 512) return Math.max(1, Math.round(bytes / 1024)) * 1024;
  const fault = Number.isNaN(bytes) ? 'is not a rate' : 'is less than 512 bytes per second';
  throw new SqlsyncError('USAGE', `${option}: "${sanitizeText(text, 50)}" ${fault}`, {
    hint: 'Give KiB per second, or a unit: 1.5m is 1.5 MiB per second, 10MB ten million bytes, 0 no limit.',
  });
}

/** NaN if the text is not a size. */
function bytesOf(text: string, defaultUnit: 'b' | 'k'): number {
  const [, number, unit = defaultUnit, suffix = ''] =
    /^(\d+(?:\.\d*)?|\.\d+)(?:(b$|[kmgt])(b|ib)?)?$/i.exec(text) ?? [];
  const base = suffix.toLowerCase() === 'b' ? 1000 : 1024;
  return Number(number) * base ** (POWER_OF_UNIT[unit.toLowerCase()] ?? 0);
}

/** @throws {SqlsyncError} USAGE if the text is not a whole number from `least` to `most`. */
export function parseWholeNumber(
  option: string,
  text: string,
  { least, most, hint }: { readonly least: number; readonly most: number; readonly hint: string },
): number {
  const number = /^\d{1,15}$/.test(text.trim()) ? Number(text) : NaN;
  if (number >= least && number <= most) return number;
  const range = most === Infinity ? `from ${least} on` : `from ${least} to ${most}`;
  throw new SqlsyncError('USAGE', `${option}: "${sanitizeText(text, 50)}" is not a whole number ${range}`, {
    hint,
  });
}

/** A whole percentage, with or without its sign. Throws SqlsyncError USAGE for anything else. */
export function parsePercent(option: string, text: string): number {
  return parseWholeNumber(option, text.replace(/\s*%$/, ''), {
    least: 0,
    most: 100,
    hint: 'Give a whole percentage, such as 50.',
  });
}
