import { ProtocolViolation } from './decode.ts';
import { BLOCK_BYTES, BLOCK_HASH_BYTES } from './limits.ts';

/** One page of a `getPages` request. With `hasBlocks` its block hashes stand in the request's `blockHashes`. */
export interface WantedPage {
  pageNumber: number;
  hasBlocks: boolean;
}

/** One page of a `pages` answer: all of it, or the blocks that `bitmap` names (bit i of byte i/8 = block i). */
export type BatchPage = { bitmap: undefined; data: Uint8Array } | { bitmap: Uint8Array; data: Uint8Array };

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
  return blocksPerPage(pageSize) * BLOCK_HASH_BYTES;
}

export function bitmapBytes(pageSize: number): number {
  return Math.ceil(blocksPerPage(pageSize) / 8);
}

/**
 * A batch: one kind byte a page (0 full, 1 delta), then the bitmaps of the deltas, then the data of all pages.
 * Kinds and bitmaps stand together because they compress better that way.
 */
export function encodeBatch(pages: readonly BatchPage[]): Uint8Array {
  let length = pages.length;
  for (const page of pages) length += (page.bitmap?.length ?? 0) + page.data.length;
  const batch = new Uint8Array(length);
  let at = pages.length;
  for (const [i, page] of pages.entries()) {
    if (page.bitmap === undefined) continue;
    batch[i] = 1;
    batch.set(page.bitmap, at);
    at += page.bitmap.length;
  }
  for (const page of pages) {
    batch.set(page.data, at);
    at += page.data.length;
  }
  return batch;
}

/** The bytes that a batch answering `wanted` has at the most: every page full. */
export function maxBatchBytes(pageSize: number, pages: number): number {
  return pages * (1 + bitmapBytes(pageSize) + pageSize);
}

/** The pages of a batch that answers `wanted`, as views on it. Throws ProtocolViolation. */
export function decodeBatch(batch: Uint8Array, pageSize: number, wanted: readonly WantedPage[]): BatchPage[] {
  const bitmapLength = bitmapBytes(pageSize);
  const deltas = countDeltas(batch, wanted);
  let bitmapAt = wanted.length;
  let dataAt = wanted.length + deltas * bitmapLength;
  const pages = wanted.map((_, i): BatchPage => {
    let bitmap: Uint8Array | undefined;
    let length = pageSize;
    if (batch[i] === 1) {
      bitmap = batch.subarray(bitmapAt, bitmapAt + bitmapLength);
      bitmapAt += bitmapLength;
      length = countBits(bitmap, blocksPerPage(pageSize)) * BLOCK_BYTES;
    }
    if (dataAt + length > batch.length) throw new ProtocolViolation('a page batch that ends too early');
    const data = batch.subarray(dataAt, dataAt + length);
    dataAt += length;
    return { bitmap, data };
  });
  if (dataAt !== batch.length) throw new ProtocolViolation('a page batch with bytes after its last page');
  return pages;
}

function countDeltas(batch: Uint8Array, wanted: readonly WantedPage[]): number {
  if (batch.length < wanted.length)
    throw new ProtocolViolation('a page batch shorter than its list of kinds');
  let deltas = 0;
  for (const [i, page] of wanted.entries()) {
    const kind = batch[i];
    if (kind === 1 && page.hasBlocks) deltas++;
    else if (kind !== 0)
      throw new ProtocolViolation(`kind ${kind} for page ${page.pageNumber} in a page batch`);
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
