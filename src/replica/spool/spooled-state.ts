import type { PageCount, PageNumber, PageSize } from '../../pages/page-types.ts';
import { pageCount } from '../../pages/page-types.ts';
import type { PageSource } from '../../pages/page-source.ts';
import type { Spool } from './spool.ts';

/**
 * The old version for a run that continues from a spool: the spool's pages over those of the replica. Pages that lie
 * beyond the replica's end and that the spool lacks are zeros.
 */
export class SpooledState implements PageSource {
  readonly pageSize: PageSize;
  readonly #replica: PageSource;
  readonly #spool: Spool;

  /** The caller has cut the spool to the new size of the database. */
  constructor(replica: PageSource, spool: Spool) {
    this.pageSize = spool.pageSize;
    this.#replica = replica;
    this.#spool = spool;
  }

  get pageCount(): PageCount {
    return pageCount(Math.max(this.#replica.pageCount, this.#spool.held.last));
  }

  readPage(page: PageNumber): Uint8Array {
    const bytes = new Uint8Array(this.pageSize);
    this.readInto(page, bytes);
    return bytes;
  }

  readPages(first: PageNumber, count: number): Uint8Array {
    if (this.#runLength(first, count) === count && this.#isReplicas(first))
      return this.#replica.readPages(first, count);
    const run = new Uint8Array(count * this.pageSize);
    this.readInto(first, run);
    return run;
  }

  readInto(first: PageNumber, into: Uint8Array): void {
    const size = this.pageSize;
    for (let at = 0; at < into.length;) {
      const page = (first + at / size) as PageNumber;
      const part = into.subarray(at, at + this.#runLength(page, (into.length - at) / size) * size);
      if (this.#spool.held.has(page)) this.#spool.readInto(page, part);
      else if (this.#isReplicas(page)) this.#replica.readInto(page, part);
      else part.fill(0);
      at += part.length;
    }
  }

  close(): void {}

  /** How many pages from `first` on, at most `most`, come from one place. */
  #runLength(first: PageNumber, most: number): number {
    const { held } = this.#spool;
    const isHeld = held.has(first);
    const isReplicas = this.#isReplicas(first);
    let count = 1;
    while (
      count < most &&
      held.has(first + count) === isHeld &&
      (isHeld || this.#isInReplica(first + count) === isReplicas)
    )
      count++;
    return count;
  }

  #isReplicas(page: number): boolean {
    return !this.#spool.held.has(page) && this.#isInReplica(page);
  }

  #isInReplica(page: number): boolean {
    return page <= this.#replica.pageCount;
  }
}
