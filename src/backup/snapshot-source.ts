import type { PageSource } from '../pages/page-source.ts';
import { lockBytePage, pageCount, pageSize } from '../pages/page-types.ts';
import type { PageCount, PageNumber, PageSize } from '../pages/page-types.ts';
import type { ObjectReader } from './object-reader.ts';
import { SnapshotTree } from './snapshot-tree.ts';
import type { TreeShape } from './snapshot-tree.ts';

/**
 * A stored snapshot, read page by page; every page is checked against its id, unless whoever reads checks what he makes of it: the
 * old version of a page is, by the hash of the new one.
 */
export class SnapshotSource implements PageSource {
  readonly pageSize: PageSize;
  readonly pageCount: PageCount;
  readonly tree: SnapshotTree;
  readonly #reader: ObjectReader;
  readonly #isChecked: boolean;
  readonly #locked: PageNumber;
  #run: Uint8Array = new Uint8Array(0);

  constructor(reader: ObjectReader, shape: TreeShape, isChecked = true) {
    this.#reader = reader;
    this.#isChecked = isChecked;
    this.tree = new SnapshotTree(reader, shape);
    this.pageSize = pageSize(shape.pageSize) as PageSize;
    this.pageCount = pageCount(shape.pageCount);
    this.#locked = lockBytePage(this.pageSize);
  }

  /** Throws SqlsyncError STORE_DAMAGED, STORE_FILE_MISSING, STORE_UNAVAILABLE. */
  readPage(page: PageNumber): Uint8Array {
    const bytes = new Uint8Array(this.pageSize);
    this.#read(page, bytes);
    return bytes;
  }

  readPages(first: PageNumber, count: number): Uint8Array {
    if (this.#run.length !== count * this.pageSize) this.#run = new Uint8Array(count * this.pageSize);
    this.readInto(first, this.#run);
    return this.#run;
  }

  readInto(first: PageNumber, into: Uint8Array): void {
    const size = this.pageSize;
    for (let i = 0; i * size < into.length; i++) {
      this.#read((first + i) as PageNumber, into.subarray(i * size, (i + 1) * size));
    }
  }

  close(): void {
    // Nothing is held.
  }

  #read(page: PageNumber, into: Uint8Array): void {
    if (page === this.#locked) into.fill(0);
    else if (this.#isChecked) this.#reader.readPage(this.tree.pageId(page), into);
    else this.#reader.readUncheckedPage(this.tree.pageId(page), into);
  }
}
