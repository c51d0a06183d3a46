import { lockBytePage, pageCount } from '../../pages/page-types.ts';
import type { PageCount, PageNumber } from '../../pages/page-types.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import { StoredOrigin } from '../snapshots/stored-origin.ts';
import { damaged } from '../store-error.ts';
import type { StoreSnapshot } from '../types.ts';
import type { Overlay } from './stored-steps.ts';

/** A stored snapshot with steps laid over it. */
export class SteppedOrigin extends StoredOrigin {
  override readonly pageCount: PageCount;
  readonly #base: StoreSnapshot;
  readonly #overlay: Overlay;
  readonly #lockByte: number;

  constructor(reader: ObjectReader, base: StoreSnapshot, overlay: Overlay) {
    super(reader, base);
    this.#base = base;
    this.#overlay = overlay;
    this.#lockByte = lockBytePage(this.pageSize);
    this.pageCount = pageCount(overlay.pageCount);
  }

  override readScattered(pages: readonly number[], into: Uint8Array): void {
    const size = this.pageSize;
    const rest: number[] = [];
    for (const [i, page] of pages.entries()) {
      const bytes = this.#overlay.pages.get(page);
      if (bytes === undefined) rest.push(page);
      else into.set(bytes, i * size);
    }
    if (rest.length === 0) return;
    for (const page of rest) this.#refuseLost(page);
    if (rest.length === pages.length) return super.readScattered(pages, into);
    const old = new Uint8Array(rest.length * size);
    super.readScattered(rest, old);
    let at = 0;
    for (const [i, page] of pages.entries())
      if (!this.#overlay.pages.has(page)) into.set(old.subarray(at * size, ++at * size), i * size);
  }

  override readAhead(pages: readonly number[]): void {
    const { basePages, pages: laid } = this.#overlay;
    super.readAhead(pages.filter((page) => page <= basePages && !laid.has(page)));
  }

  /** A page that the snapshot does not have must be in a step; so must one that was gone in between. */
  #refuseLost(page: number): void {
    if (page <= this.#overlay.basePages || (page as PageNumber) === this.#lockByte) return;
    throw damaged('steps', `lack page ${page} of the database after snapshot ${this.#base.id}`);
  }
}
