import { SqlsyncError } from '../../errors.ts';

/** A loss of so many pages, and of more than this part of all, is worth a word. */
const ALARMING_PERCENT = 90;
const ALARMING_PAGES = 64;

/** A copy that would be much smaller than what it replaces. */
export interface Shrinkage {
  /** The copy that has the lost pages still, as a message names it. */
  readonly copy: string;
  readonly pagesBefore: number;
  readonly pagesNow: number;
}

/**
 * What the user should know of an origin that has lost all of its pages or nearly so since the last copy, as by an
 * accident; undefined if nothing of that kind is to be seen. With a limit in percent (`--max-shrink`) the user has said
 * what is an accident: throws SqlsyncError ORIGIN_SHRUNK beyond it, and says nothing within it.
 */
export function checkShrinkage(shrinkage: Shrinkage, maxPercent: number | undefined): string | undefined {
  const { copy, pagesBefore, pagesNow } = shrinkage;
  const lost = pagesBefore - pagesNow;
  if (lost <= 0) return undefined;
  const isLossOver = (percent: number): boolean => lost * 100 > pagesBefore * percent;
  const what =
    pagesNow === 0
      ? `The origin is empty, and ${copy} has ${pagesBefore} pages`
      : `The origin has ${pagesNow} pages, and ${copy} has ${pagesBefore}`;
  if (maxPercent !== undefined) {
    if (!isLossOver(maxPercent)) return undefined;
    throw new SqlsyncError('ORIGIN_SHRUNK', `${what}: more than ${maxPercent} % of them would be lost`, {
      hint: 'Nothing was changed. If that is meant, allow it with a higher --max-shrink, or without.',
    });
  }
  const isAlarming = pagesNow === 0 || (lost >= ALARMING_PAGES && isLossOver(ALARMING_PERCENT));
  return isAlarming ? `${what}. --max-shrink would refuse such a copy.` : undefined;
}
