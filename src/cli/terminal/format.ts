const UNITS = ['B', 'kB', 'MB', 'GB', 'TB'] as const;

/** Bytes in decimal units with three digits: 999 B, 1.05 MB, 23.4 GB. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value.toFixed(0) : threeDigits(value)} ${UNITS[unit]}`;
}

/** Milliseconds as people say them: 12 ms, 3.42 s, 4 min 05 s, 2 h 13 min. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${threeDigits(ms / 1000)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${pad(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${pad(Math.floor((seconds % 3600) / 60))} min`;
}

/** A remaining time, as an estimate: 10 s, 4 min, 2 h 13 min. */
export function formatTimeLeft(ms: number): string {
  const seconds = Math.max(1, Math.ceil(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} min`;
}

/** A whole number with separators: 256,000. Without `toLocaleString`, which loads the tables of all languages. */
export function formatCount(count: number): string {
  return String(count).replace(/\B(?=(?:\d{3})+$)/g, ',');
}

/** The pages of two databases: 3 pages, or 3 pages in the first, 5 in the second. */
export function formatPagesOfBoth(first: number, second: number): string {
  const pages = formatPages(first);
  return first === second ? pages : `${pages} in the first, ${formatCount(second)} in the second`;
}

/** A count with its noun: 1 page, 36,400 pages. */
export function formatPages(count: number): string {
  return `${formatCount(count)} page${count === 1 ? '' : 's'}`;
}

/** A share of a whole, in percent; never 0 % for something, nor 100 % for less than all. */
export function formatShare(part: number, whole: number): string {
  if (whole === 0 || part === 0) return '0 %';
  const percent = (part / whole) * 100;
  if (part === whole) return '100 %';
  if (percent < 0.01) return '< 0.01 %';
  return `${Math.min(percent, 99.9).toFixed(percent < 1 ? 2 : 1)} %`;
}

/**
 * Ranges of pages for people: 1, 4–9, 12 and 3 more. `count` is the number of all ranges, if `ranges` only has the
 * first ones.
 */
export function describeRanges(
  ranges: readonly (readonly [first: number, last: number])[],
  limit: number,
  { more = '', count = ranges.length }: { readonly more?: string; readonly count?: number } = {},
): string {
  const shown = ranges
    .slice(0, limit)
    .map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`));
  const hidden = count - shown.length;
  const how = shown.length < ranges.length ? more : '';
  return `${shown.join(', ')}${hidden > 0 ? ` and ${hidden} more ranges${how}` : ''}`;
}

function threeDigits(value: number): string {
  return value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0);
}

function pad(value: number): string {
  return String(value).padStart(2, '0');
}

/** `1 snapshot`, `2 snapshots`. */
export function counted(count: number, noun: string, plural: string = `${noun}s`): string {
  return `${formatCount(count)} ${count === 1 ? noun : plural}`;
}
