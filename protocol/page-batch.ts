import { ProtocolViolation } from './decode.ts';
import { BLOCK_BYTES, BLOCK_HASH_BITS } from './limits.ts';

/** One page of a `getPages` request. With `hasBlocks` its block hashes stand in the request's `blockHashes`. */
export interface WantedPage {
  pageNumber: number;
  hasBlocks: boolean;
}

/**
 * One page of a `pages` answer: all of it, or the blocks that `bitmap` names (bit i of byte i/8 = block i), in ascending
 * order. `group` is the sender's choice, from 1 to 255: blocks of one group stand together.
 */
export type BatchPage =
  { bitmap: undefined; data: Uint8Array } | { bitmap: Uint8Array; data: Uint8Array; group: number };

/** Ascending numbers as the gaps between them (the first counts from 0), which is what travels. */
export function toGaps(ascending: readonly number[]): number[] {
  let previous = -1;
  return ascending.map((value) => {
    const gap = value - previous - 1;
    previous = value;
    return gap;
  });
}

/** The inverse of {@link toGaps}; throws where a number would reach `limit`. */
export function fromGaps(gaps: readonly number[], limit: number): number[] {
  let previous = -1;
  return gaps.map((gap) => {
    previous += gap + 1;
    if (previous >= limit)
      throw new ProtocolViolation(`number ${previous} in a list that ends below ${limit}`);
    return previous;
  });
}

/** The `pages` field of `getPages`: for each page twice the gap to the one before it, plus 1 with block hashes. */
export function encodeWanted(pages: readonly WantedPage[]): number[] {
  const gaps = toGaps(pages.map((page) => page.pageNumber));
  return pages.map((page, i) => (gaps[i] ?? 0) * 2 + (page.hasBlocks ? 1 : 0));
}

/** The inverse of {@link encodeWanted} for a database of `pageCount` pages. Throws ProtocolViolation. */
export function decodeWanted(values: readonly number[], pageCount: number): WantedPage[] {
  const numbers = fromGaps(
    values.map((value) => Math.floor(value / 2)),
    pageCount + 1,
  );
  return numbers.map((pageNumber, i) => {
    if (pageNumber === 0) throw new ProtocolViolation('page 0 was asked for; pages count from 1');
    return { pageNumber, hasBlocks: (values[i] ?? 0) % 2 === 1 };
  });
}

export function blocksPerPage(pageSize: number): number {
  return pageSize / BLOCK_BYTES;
}

/** Bytes of the block hashes of one page. */
export function blockHashBytes(pageSize: number): number {
  return (blocksPerPage(pageSize) * BLOCK_HASH_BITS) / 8;
}

export function bitmapBytes(pageSize: number): number {
  return Math.ceil(blocksPerPage(pageSize) / 8);
}

/**
 * A batch: one kind byte a page (0 full, else a delta and its group), the bitmaps of the deltas, the full pages, then
 * the blocks of the deltas: group by group, within it first the pages' blocks 0, then 1, and so on. Like bytes so come
 * to stand together; measured on an INSERT of 1 %, that saves 1 % of the bytes.
 */
export function encodeBatch(pages: readonly BatchPage[]): Uint8Array {
  let length = pages.length;
  for (const page of pages) length += (page.bitmap?.length ?? 0) + page.data.length;
  const batch = new Uint8Array(length);
  let at = pages.length;
  for (const [i, page] of pages.entries()) {
    if (page.bitmap === undefined) continue;
    batch[i] = page.group;
    batch.set(page.bitmap, at);
    at += page.bitmap.length;
  }
  for (const page of pages) {
    if (page.bitmap !== undefined) continue;
    batch.set(page.data, at);
    at += page.data.length;
  }
  forEachBlock(pages, ({ data }, from) => {
    batch.set(data.subarray(from, from + BLOCK_BYTES), at);
    at += BLOCK_BYTES;
  });
  return batch;
}

type Delta = Extract<BatchPage, { group: number }>;

/** Visits the blocks of all deltas in the order of the batch, with the offset of each in its page's data. */
function forEachBlock(pages: readonly BatchPage[], visit: (page: Delta, from: number) => void): void {
  const groups = new Map<number, Delta[]>();
  for (const page of pages) {
    if (page.bitmap === undefined) continue;
    const group = groups.get(page.group);
    if (group === undefined) groups.set(page.group, [page]);
    else group.push(page);
  }
  for (const [, group] of [...groups].sort(([a], [b]) => a - b)) {
    const offsets = new Uint32Array(group.length);
    const blocks = Math.max(...group.map(({ bitmap }) => bitmap.length)) * 8;
    for (let block = 0; block < blocks; block++) {
      for (let i = 0; i < group.length; i++) {
        const page = group[i] as Delta;
        if (((page.bitmap[block >> 3] ?? 0) & (1 << (block & 7))) === 0) continue;
        visit(page, offsets[i] as number);
        offsets[i] = (offsets[i] as number) + BLOCK_BYTES;
      }
    }
  }
}

/** The bytes that a batch answering `wanted` has at the most: every page full. */
export function maxBatchBytes(pageSize: number, pages: number): number {
  return pages * (1 + bitmapBytes(pageSize) + pageSize);
}

/** The pages of a batch that answers `wanted`; full pages and bitmaps as views on it. Throws ProtocolViolation. */
export function decodeBatch(batch: Uint8Array, pageSize: number, wanted: readonly WantedPage[]): BatchPage[] {
  const bitmapLength = bitmapBytes(pageSize);
  const deltas = countDeltas(batch, wanted);
  let bitmapAt = wanted.length;
  let at = wanted.length + deltas * bitmapLength;
  if (at > batch.length) throw tooShort();
  const blockCounts: number[] = [];
  let blocks = 0;
  for (let i = 0; i < deltas; i++) {
    const start = wanted.length + i * bitmapLength;
    const count = countBits(batch.subarray(start, start + bitmapLength), blocksPerPage(pageSize));
    blockCounts.push(count);
    blocks += count;
  }
  const wholeEnd = at + (wanted.length - deltas) * pageSize;
  if (wholeEnd + blocks * BLOCK_BYTES > batch.length) throw tooShort();
  if (wholeEnd + blocks * BLOCK_BYTES !== batch.length)
    throw new ProtocolViolation('a page batch with bytes after its last block');
  const data = new Uint8Array(blocks * BLOCK_BYTES);
  let dataAt = 0;
  const pages = wanted.map((_, i): BatchPage => {
    const group = batch[i] as number;
    if (group === 0) {
      at += pageSize;
      return { bitmap: undefined, data: batch.subarray(at - pageSize, at) };
    }
    const bitmap = batch.subarray(bitmapAt, bitmapAt + bitmapLength);
    const length = (blockCounts[(bitmapAt - wanted.length) / bitmapLength] as number) * BLOCK_BYTES;
    bitmapAt += bitmapLength;
    dataAt += length;
    return { bitmap, data: data.subarray(dataAt - length, dataAt), group };
  });
  forEachBlock(pages, (page, to) => {
    page.data.set(batch.subarray(at, at + BLOCK_BYTES), to);
    at += BLOCK_BYTES;
  });
  return pages;
}

function tooShort(): ProtocolViolation {
  return new ProtocolViolation('a page batch that ends too early');
}

function countDeltas(batch: Uint8Array, wanted: readonly WantedPage[]): number {
  if (batch.length < wanted.length)
    throw new ProtocolViolation('a page batch shorter than its list of kinds');
  let deltas = 0;
  for (const [i, page] of wanted.entries()) {
    const kind = batch[i];
    if (kind === 0) continue;
    if (!page.hasBlocks)
      throw new ProtocolViolation(`a delta for page ${page.pageNumber}, of which no block hashes were sent`);
    deltas++;
  }
  return deltas;
}

function countBits(bitmap: Uint8Array, limit: number): number {
  let count = 0;
  for (let block = 0; block < bitmap.length * 8; block++) {
    if (((bitmap[block >> 3] ?? 0) & (1 << (block & 7))) === 0) continue;
    if (block >= limit) throw new ProtocolViolation(`a delta that names block ${block} of ${limit}`);
    count++;
  }
  return count;
}
