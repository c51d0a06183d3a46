import type { PageSource } from '../../pages/page-source.ts';
import { lockBytePage, pageCount, pageSize } from '../../pages/page-types.ts';
import type { PageCount, PageNumber, PageSize } from '../../pages/page-types.ts';
import { ID_BYTES } from '../packs/object-id.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import { SnapshotPlan } from './snapshot-plan.ts';
import { SnapshotTree } from './snapshot-tree.ts';
import type { TreeShape } from './snapshot-tree.ts';

/** One in this many pages is looked at, to find out which frames are needed. */
const READ_AHEAD_STEP = 16;

/**
 * A stored snapshot, read page by page. Checks every page against its id, unless the caller checks what it makes of it:
 * the hash of a new page also checks the old version that it is made of.
 */
export class SnapshotSource implements PageSource {
  readonly pageSize: PageSize;
  readonly pageCount: PageCount;
  readonly tree: SnapshotTree;
  readonly #reader: ObjectReader;
  readonly #isChecked: boolean;
  readonly #locked: PageNumber;
  #plan: SnapshotPlan | undefined;
  #run: Uint8Array = new Uint8Array(0);

  /** `isChecked` is false for a caller that checks what it makes of the pages. */
  constructor(reader: ObjectReader, shape: TreeShape, isChecked: boolean = true) {
    this.#reader = reader;
    this.#isChecked = isChecked;
    this.tree = new SnapshotTree(reader, shape);
    this.pageSize = pageSize(shape.pageSize) as PageSize;
    this.pageCount = pageCount(shape.pageCount);
    this.#locked = lockBytePage(this.pageSize);
  }

  /** Says that all pages will be read, in order: what they need of another host is then requested in time. */
  readsInOrder(): void {
    const [nodes, pages] = [this.#reader.newPlan(), this.#reader.newPlan()];
    if (nodes !== undefined && pages !== undefined)
      this.#plan = new SnapshotPlan(this.tree, this.pageSize, { nodes, pages });
  }

  /** Throws SqlsyncError STORE_DAMAGED, STORE_FILE_MISSING, STORE_UNAVAILABLE. */
  readPage(page: PageNumber): Uint8Array {
    const bytes = new Uint8Array(this.pageSize);
    this.readInto(page, bytes);
    return bytes;
  }

  readPages(first: PageNumber, count: number): Uint8Array {
    if (this.#run.length !== count * this.pageSize) this.#run = new Uint8Array(count * this.pageSize);
    this.readInto(first, this.#run);
    this.readAhead(pagesFrom(first + count, Math.min(count, this.pageCount - first - count + 1)));
    return this.#run;
  }

  readInto(first: PageNumber, into: Uint8Array): void {
    this.readScattered(pagesFrom(first, into.length / this.pageSize), into);
  }

  readScattered(pages: readonly number[], into: Uint8Array): void {
    const size = this.pageSize;
    const locked = pages.indexOf(this.#locked);
    if (locked !== -1) {
      this.readScattered(pages.slice(0, locked), into.subarray(0, locked * size));
      into.fill(0, locked * size, (locked + 1) * size);
      return this.readScattered(pages.slice(locked + 1), into.subarray((locked + 1) * size));
    }
    if (pages.length === 0) return;
    this.readAhead(pages);
    const ids = new Uint8Array(pages.length * ID_BYTES);
    for (const [i, page] of pages.entries()) ids.set(this.tree.pageId(page), i * ID_BYTES);
    this.#reader.readPages({ ids, pageSize: size, into }, this.#isChecked);
  }

  /** A frame holds hundreds of neighbours, so a few of the pages show which frames will be needed. */
  readAhead(pages: readonly number[]): void {
    const [first] = pages;
    if (first !== undefined) this.#plan?.reach(first);
    const ids: Uint8Array[] = [];
    for (let i = 0; i < pages.length; i += READ_AHEAD_STEP) {
      const page = pages[i] as number;
      if (page !== this.#locked) ids.push(this.tree.pageId(page).slice());
    }
    this.#reader.readAhead(ids, this.#isChecked);
  }

  close(): void {
    // There is nothing to release.
  }
}

function pagesFrom(first: number, count: number): number[] {
  return Array.from({ length: Math.max(0, count) }, (_, i) => first + i);
}
