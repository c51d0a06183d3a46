import { SqlsyncError, systemErrorCode } from '../../errors.ts';
import type { PageNumber } from '../../pages/page-types.ts';
import { StoredOrigin } from '../snapshots/stored-origin.ts';
import { StoreDamage } from '../store-error.ts';

/** A stored snapshot with missing parts: a lost page reads as zeros, and is recorded. */
export class SalvageSource extends StoredOrigin {
  readonly lost: Set<number> = new Set();

  override readInto(first: PageNumber, into: Uint8Array): void {
    try {
      super.readInto(first, into);
      return;
    } catch (error) {
      if (!isLoss(error)) throw error;
    }
    const size = this.pageSize;
    for (let i = 0; i * size < into.length; i++) {
      const page = into.subarray(i * size, (i + 1) * size);
      try {
        super.readInto((first + i) as PageNumber, page);
      } catch (error) {
        if (!isLoss(error)) throw error;
        page.fill(0);
        this.lost.add(first + i);
      }
    }
  }

  /** The needed frames are unknown if a part of the tree is lost. */
  override readAhead(pages: readonly number[]): void {
    try {
      super.readAhead(pages);
    } catch (error) {
      if (!isLoss(error)) throw error;
    }
  }
}

/** True for damaged, missing or unreadable data; false for errors that may pass. */
function isLoss(error: unknown): boolean {
  if (error instanceof StoreDamage) return true;
  return error instanceof SqlsyncError && systemErrorCode(error.cause) === 'EIO';
}
