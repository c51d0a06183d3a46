import { SqlsyncError } from '../../errors.ts';

/** A loss of at least this many pages, and of more than this part of all pages, deserves a warning. */
const ALARMING_PERCENT = 90;
const ALARMING_PAGES = 64;

/** A copy that would become much smaller. */
export interface Shrinkage {
  /** The copy that still has the lost pages, as messages name it. */
  readonly copy: string;
  readonly pagesBefore: number;
  readonly pagesNow: number;
}

/**
 * True if a copy would become so much smaller that `checkShrinkage` warns or throws. An origin looks like that also for
 * a moment, while somebody puts a backup in its place.
 */
export function isGreatLoss({ pagesBefore, pagesNow }: Shrinkage, maxPercent: number | undefined): boolean {
  const lost = pagesBefore - pagesNow;
  if (lost <= 0) return false;
  const isLossOver = (percent: number): boolean => lost * 100 > pagesBefore * percent;
  if (maxPercent !== undefined) return isLossOver(maxPercent);
  return pagesNow === 0 || (lost >= ALARMING_PAGES && isLossOver(ALARMING_PERCENT));
}

/**
 * The warning about an origin that has lost all or nearly all of its pages since the last copy, as by an accident;
 * undefined if it looks normal. With a limit in percent (`--max-shrink`) it never warns, and throws SqlsyncError
 * ORIGIN_SHRUNK beyond the limit.
 */
export function checkShrinkage(shrinkage: Shrinkage, maxPercent: number | undefined): string | undefined {
  if (!isGreatLoss(shrinkage, maxPercent)) return undefined;
  const { copy, pagesBefore, pagesNow } = shrinkage;
  const what =
    pagesNow === 0
      ? `The origin is empty, and ${copy} has ${pagesBefore} pages`
      : `The origin has ${pagesNow} pages, and ${copy} has ${pagesBefore}`;
  if (maxPercent !== undefined) {
    throw new SqlsyncError('ORIGIN_SHRUNK', `${what}: more than ${maxPercent} % of them would be lost`, {
      hint: 'Nothing was changed. If the loss is intended, use a higher --max-shrink, or none.',
    });
  }
  return `${what}. --max-shrink would refuse such a copy.`;
}
