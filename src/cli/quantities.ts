import { SqlsyncError, sanitizeText } from '../errors.ts';

const MS_OF_UNIT: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const POWER_OF_UNIT: Readonly<Record<string, number>> = { k: 1, m: 2, g: 3, t: 4 };

/** A week: beyond it a number is a mistake, and Node's timers do not reach much farther. */
const MAX_MS = 7 * 24 * 3_600_000;

/**
 * A duration in milliseconds: a number of seconds, or with the unit ms, s, m (minutes) or h.
 *
 * @throws {SqlsyncError} USAGE where it is none, is shorter than a millisecond, or longer than a week.
 */
export function parseDuration(option: string, text: string): number {
  const [, number, unit = 's'] = /^(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h)?$/i.exec(text.trim()) ?? [];
  const ms = Math.round(Number(number) * (MS_OF_UNIT[unit.toLowerCase()] ?? 1));
  if (ms >= 1 && ms <= MAX_MS) return ms;
  throw new SqlsyncError(
    'USAGE',
    `${option}: "${sanitizeText(text, 50)}" is not a duration from 1 ms to 168 h`,
    { hint: 'Give seconds, or a unit: 500ms, 30s, 5m, 1h.' },
  );
}

/**
 * A size in bytes: a number of bytes, or with the unit K, M, G or T (also KiB …) of 1024, KB, MB … of 1000.
 *
 * @throws {SqlsyncError} USAGE where it is none, or less than a byte.
 */
export function parseSize(option: string, text: string): number {
  const [, number, letter, suffix] = /^(\d+(?:\.\d*)?|\.\d+)(?:([kmgt])(b|ib)?|b)?$/i.exec(text.trim()) ?? [];
  const base = suffix?.toLowerCase() === 'b' ? 1000 : 1024;
  const power = letter === undefined ? 0 : (POWER_OF_UNIT[letter.toLowerCase()] ?? 0);
  const bytes = Math.round(Number(number) * base ** power);
  if (bytes >= 1 && Number.isSafeInteger(bytes)) return bytes;
  throw new SqlsyncError('USAGE', `${option}: "${sanitizeText(text, 50)}" is not a size of 1 byte or more`, {
    hint: 'Give bytes, or a unit: 64M is 64 MiB, 100MB a hundred million bytes, 2G.',
  });
}
