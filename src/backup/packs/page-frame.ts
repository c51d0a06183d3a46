import { BLOCK_BYTES } from '../../../protocol/limits.ts';
import { bitmapBytes, layOutBatch } from '../../../protocol/page-batch.ts';
import type { BatchLayout, BatchPage } from '../../../protocol/page-batch.ts';
import type { PageSize } from '../../pages/page-types.ts';
import { BASE_ID_BYTES, ID_BYTES, idOf } from './object-id.ts';

/** A page as a frame stores it: whole, or the changed blocks and the beginning of the base's id. */
export interface PageObject {
  readonly page: BatchPage;
  /** `BASE_ID_BYTES`; undefined for a whole page. */
  readonly base: Uint8Array | undefined;
}

/** Before the bases: the numbers of pages and of deltas. */
const HEADER_BYTES = 8;

/**
 * A decompressed frame of pages, not parsed into objects: the layout takes a few bytes per page, whereas an object for
 * each page would take more than most deltas have.
 */
export class PageFrame {
  readonly kind = 'pages';
  readonly pageSize: PageSize;
  readonly objectCount: number;
  /** The memory that it takes. */
  readonly bytes: number;
  readonly #body: Uint8Array;
  readonly #batch: Uint8Array;
  readonly #layout: BatchLayout;
  /** For each page the number of deltas before it. */
  readonly #deltasBefore: Uint32Array;
  readonly #ids: Uint8Array | undefined;

  /** `ids` is what `wholeIds` of the same body gave, if it is known. Throws an Error for an invalid body. */
  constructor(body: Uint8Array, size: PageSize, ids?: Uint8Array) {
    const view = new DataView(body.buffer, body.byteOffset, body.length);
    const count = view.getUint32(0, true);
    const deltas = view.getUint32(4, true);
    const batchAt = HEADER_BYTES + deltas * BASE_ID_BYTES;
    const smallest = Math.min(size, 1 + bitmapBytes(size));
    if (batchAt > body.length || count * smallest > body.length) throw new Error('more pages than bytes');
    this.pageSize = size;
    this.objectCount = count;
    this.#body = body;
    this.#ids = ids;
    this.#batch = body.subarray(batchAt);
    this.#layout = layOutBatch(this.#batch, size, count);
    this.#deltasBefore = new Uint32Array(count);
    let before = 0;
    for (let i = 0; i < count; i++) {
      this.#deltasBefore[i] = before;
      if (this.#batch[i] !== 0) before++;
    }
    if (before !== deltas) throw new Error('another number of bases than of deltas');
    this.bytes = body.length + this.#layout.blocks.byteLength + count * 12 + (ids?.length ?? 0);
  }

  /** A view of the beginning of a base's id; undefined for a whole page. */
  baseOf(i: number): Uint8Array | undefined {
    if (this.#batch[i] === 0) return undefined;
    const at = HEADER_BYTES + (this.#deltasBefore[i] as number) * BASE_ID_BYTES;
    return this.#body.subarray(at, at + BASE_ID_BYTES);
  }

  /** The ids of the whole pages, by their bytes, each at its place among all pages. */
  wholeIds(): Uint8Array {
    const ids = new Uint8Array(this.objectCount * ID_BYTES);
    for (const [i, at] of this.#layout.offsets.entries())
      if (this.#batch[i] === 0) ids.set(idOf(this.#batch.subarray(at, at + this.pageSize)), i * ID_BYTES);
    return ids;
  }

  /** The id of a whole page, by its bytes; undefined for a delta, and if nobody has hashed the page yet. */
  wholeId(i: number): Uint8Array | undefined {
    return this.#batch[i] === 0 ? this.#ids?.subarray(i * ID_BYTES, (i + 1) * ID_BYTES) : undefined;
  }

  /** The page as stored here, by views if possible. */
  object(i: number): PageObject {
    const at = this.#layout.offsets[i] as number;
    const base = this.baseOf(i);
    if (base === undefined)
      return { page: { bitmap: undefined, data: this.#batch.subarray(at, at + this.pageSize) }, base };
    const bitmap = this.#batch.subarray(at, at + bitmapBytes(this.pageSize));
    const blocks = this.#layout.blocks.subarray(this.#layout.firstBlocks[i], this.#layout.firstBlocks[i + 1]);
    const data = new Uint8Array(blocks.length * BLOCK_BYTES);
    for (let k = 0; k < blocks.length; k++)
      this.#copy(blocks[k] as number, BLOCK_BYTES, data, k * BLOCK_BYTES);
    return { page: { bitmap, data, group: this.#batch[i] as number }, base };
  }

  /**
   * Copies this page's blocks into `into`, except for those that the bitmap `done` already names, and adds its own to
   * `done`: so a page is assembled from its newest delta to its whole base.
   */
  fill(i: number, into: Uint8Array, done: Uint8Array): void {
    const at = this.#layout.offsets[i] as number;
    if (this.#batch[i] === 0) return this.#fillWhole(at, into, done);
    let block = this.#layout.firstBlocks[i] as number;
    for (let byte = 0; byte < done.length; byte++) {
      const bits = this.#batch[at + byte] as number;
      if (bits === 0) continue;
      const known = done[byte] as number;
      for (let bit = 0; bit < 8; bit++) {
        if ((bits & (1 << bit)) === 0) continue;
        const from = this.#layout.blocks[block++] as number;
        if ((known & (1 << bit)) === 0) this.#copy(from, BLOCK_BYTES, into, (byte * 8 + bit) * BLOCK_BYTES);
      }
      done[byte] = known | bits;
    }
  }

  /** Adds the blocks of a delta to a bitmap. */
  addBlocks(i: number, bitmap: Uint8Array): void {
    const at = this.#layout.offsets[i] as number;
    for (let byte = 0; byte < bitmap.length; byte++)
      bitmap[byte] = (bitmap[byte] as number) | (this.#batch[at + byte] as number);
  }

  #fillWhole(at: number, into: Uint8Array, done: Uint8Array): void {
    if (done.every((byte) => byte === 0)) return this.#copy(at, this.pageSize, into, 0);
    for (let block = 0; block * BLOCK_BYTES < this.pageSize; block++) {
      if (((done[block >> 3] as number) & (1 << (block & 7))) !== 0) continue;
      this.#copy(at + block * BLOCK_BYTES, BLOCK_BYTES, into, block * BLOCK_BYTES);
    }
  }

  #copy(from: number, length: number, into: Uint8Array, to: number): void {
    into.set(this.#batch.subarray(from, from + length), to);
  }
}
