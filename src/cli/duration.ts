import { SqlsyncError, sanitizeText } from '../errors.ts';

const UNIT_MS: Readonly<Record<string, number>> = {
  '': 1000,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** A week: beyond it a duration is a mistake. */
const MAX_MS = 7 * 86_400_000;

/** Milliseconds of `90`, `90s`, `1.5m`, `2h` or `1d`; a bare number is of seconds. Throws SqlsyncError USAGE. */
export function parseDuration(option: string, text: string): number {
  const [, number = '', unit = ''] = /^(\d+(?:\.\d+)?)([smhd]?)$/.exec(text) ?? [];
  const ms = Math.round(Number(number) * (UNIT_MS[unit] ?? NaN));
  if (number !== '' && ms <= MAX_MS) return ms;
  throw new SqlsyncError(
    'USAGE',
    `${option}: expected a duration up to a week but got "${sanitizeText(text, 100)}"`,
    {
      hint: 'A number of seconds, or one with a unit: 30s, 10m, 2h.',
    },
  );
}
