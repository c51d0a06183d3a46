import { BLOCK_BYTES } from '../../protocol/limits.ts';
import { bitmapBytes, blocksPerPage } from '../../protocol/page-batch.ts';
import type { BatchPage } from '../../protocol/page-batch.ts';
import { blockHashAt } from './block-hash.ts';

/** A page travels whole if more than this part of it changed: the bitmap and block hashes would not pay. */
const FULL_PAGE_RATIO = 0.75;

/**
 * The page as a delta against the version whose block hashes the peer sent, or whole if most of it changed. `hashes`
 * belong to the page and `oldHashes` to that version: `blockHashBytes(page.length)` bytes each.
 */
export function makeDelta(page: Uint8Array, hashes: Uint8Array, oldHashes: Uint8Array): BatchPage {
  const blocks = blocksPerPage(page.length);
  const bitmap = new Uint8Array(bitmapBytes(page.length));
  const changed: number[] = [];
  for (let block = 0; block < blocks; block++) {
    if (blockHashAt(hashes, block) === blockHashAt(oldHashes, block)) continue;
    bitmap[block >> 3] = (bitmap[block >> 3] ?? 0) | (1 << (block & 7));
    changed.push(block);
  }
  if (changed.length > blocks * FULL_PAGE_RATIO) return { bitmap: undefined, data: page };
  // Buffers come from Node's pool: tens of thousands of small allocations would keep the garbage collector busy.
  const pooled = Buffer.allocUnsafe(changed.length * BLOCK_BYTES);
  const data = new Uint8Array(pooled.buffer, pooled.byteOffset, pooled.length);
  for (const [i, block] of changed.entries()) {
    data.set(page.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES), i * BLOCK_BYTES);
  }
  return { bitmap, data, group: groupOf(page) };
}

/** The first byte of a b-tree page names its type: interior and leaf pages of indexes and tables. */
const BTREE_TYPES: ReadonlySet<number | undefined> = new Set([2, 5, 10, 13]);

/** Pages of one type have similar bytes at similar places, so they compress best together. */
export function groupOf(page: Uint8Array): number {
  const type = page[0];
  return BTREE_TYPES.has(type) ? (type as number) : 1;
}

/** Puts the blocks of a delta into `page` (the old version, which becomes the new one). */
export function applyDelta(page: Uint8Array, bitmap: Uint8Array, data: Uint8Array): void {
  let from = 0;
  for (let block = 0; block < blocksPerPage(page.length); block++) {
    if (((bitmap[block >> 3] ?? 0) & (1 << (block & 7))) === 0) continue;
    page.set(data.subarray(from, from + BLOCK_BYTES), block * BLOCK_BYTES);
    from += BLOCK_BYTES;
  }
}
