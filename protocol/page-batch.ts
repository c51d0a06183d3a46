import { ProtocolViolation } from './decode.ts';
import { BLOCK_BYTES, BLOCK_HASH_BITS } from './limits.ts';

/**
 * What a page of a `getPages` request may be a delta against: nothing, the version whose block hashes are in the
 * request's `blockHashes`, or the version that the origin agent sent last under this key. The index is the number that
 * travels.
 */
export const DELTA_BASES = ['none', 'hashed', 'sent'] as const;
export type DeltaBasis = (typeof DELTA_BASES)[number];

/** One page of a `getPages` request. */
export interface WantedPage {
  pageNumber: number;
  basis: DeltaBasis;
}

/**
 * One page of a `pages` answer: all of it, or the blocks that `bitmap` names (bit i of byte i/8 = block i), in
 * ascending order. The sender chooses `group`, from 1 to 255: blocks of one group stand together.
 */
export type BatchPage =
  { bitmap: undefined; data: Uint8Array } | { bitmap: Uint8Array; data: Uint8Array; group: number };

/** Ascending numbers as the gaps between them, as they travel; the first counts from 0. */
export function toGaps(ascending: readonly number[]): number[] {
  let previous = -1;
  return ascending.map((value) => {
    const gap = value - previous - 1;
    previous = value;
    return gap;
  });
}

/** The inverse of {@link toGaps}; throws if a number would reach `limit`. */
export function fromGaps(gaps: readonly number[], limit: number): number[] {
  let previous = -1;
  return gaps.map((gap) => {
    previous += gap + 1;
    if (previous >= limit)
      throw new ProtocolViolation(`number ${previous} in a list that ends below ${limit}`);
    return previous;
  });
}

/** The `pages` field of `getPages`: for each page three times the gap to the previous one, plus the number of its basis. */
export function encodeWanted(pages: readonly WantedPage[]): number[] {
  const gaps = toGaps(pages.map((page) => page.pageNumber));
  return pages.map((page, i) => (gaps[i] ?? 0) * DELTA_BASES.length + DELTA_BASES.indexOf(page.basis));
}

/** The inverse of {@link encodeWanted} for a database of `pageCount` pages. Throws ProtocolViolation. */
export function decodeWanted(values: readonly number[], pageCount: number): WantedPage[] {
  const numbers = fromGaps(
    values.map((value) => Math.floor(value / DELTA_BASES.length)),
    pageCount + 1,
  );
  return numbers.map((pageNumber, i) => {
    if (pageNumber === 0) throw new ProtocolViolation('page 0 was asked for; pages count from 1');
    return { pageNumber, basis: DELTA_BASES[(values[i] ?? 0) % DELTA_BASES.length] ?? 'none' };
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
 * A batch: one kind byte per page (0 full, else a delta and its group), the bitmaps of the deltas, the full pages, then
 * the blocks of the deltas, group by group: within a group the pages' blocks 0 first, then their blocks 1, and so on.
 * So similar bytes stand together, which saves 1 % of the bytes, measured on an INSERT of 1 %.
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

/** The most bytes of a batch that answers `wanted`: every page full. */
export function maxBatchBytes(pageSize: number, pages: number): number {
  return pages * (1 + bitmapBytes(pageSize) + pageSize);
}

/** Where the parts of its pages lie in a batch. */
export interface BatchLayout {
  /** For each page the offset of its bytes, for a delta the offset of its bitmap. */
  readonly offsets: Uint32Array;
  /** For each page its first entry in `blocks`, where a whole page has none; one more at the end. */
  readonly firstBlocks: Uint32Array;
  /** Offsets of the changed blocks, page by page, ascending within each. */
  readonly blocks: Uint32Array;
}

/** The layout of a batch of `count` pages. Throws ProtocolViolation if its length does not match these pages. */
export function layOutBatch(batch: Uint8Array, pageSize: number, count: number): BatchLayout {
  if (batch.length < count) throw new ProtocolViolation('a page batch shorter than its list of kinds');
  const bitmapLength = bitmapBytes(pageSize);
  const groups = groupsOf(batch, count);
  let wholeAt = count;
  for (const [, pages] of groups) wholeAt += pages.length * bitmapLength;
  if (wholeAt > batch.length) throw tooShort();
  const offsets = new Uint32Array(count);
  const firstBlocks = new Uint32Array(count + 1);
  let bitmapAt = count;
  let blocks = 0;
  for (let page = 0; page < count; page++) {
    firstBlocks[page] = blocks;
    if (batch[page] === 0) {
      offsets[page] = wholeAt;
      wholeAt += pageSize;
    } else {
      offsets[page] = bitmapAt;
      blocks += countBits(batch, bitmapAt, bitmapLength, blocksPerPage(pageSize));
      bitmapAt += bitmapLength;
    }
  }
  firstBlocks[count] = blocks;
  if (wholeAt + blocks * BLOCK_BYTES > batch.length) throw tooShort();
  if (wholeAt + blocks * BLOCK_BYTES !== batch.length)
    throw new ProtocolViolation('a page batch with bytes after its last block');
  const layout = { offsets, firstBlocks, blocks: new Uint32Array(blocks) };
  placeBlocks(batch, layout, { groups, pageSize, at: wholeAt });
  return layout;
}

/** The deltas of a batch, group by group. */
function groupsOf(batch: Uint8Array, count: number): [group: number, pages: number[]][] {
  const groups = new Map<number, number[]>();
  for (let page = 0; page < count; page++) {
    const group = batch[page] as number;
    if (group === 0) continue;
    const pages = groups.get(group);
    if (pages === undefined) groups.set(group, [page]);
    else pages.push(page);
  }
  return [...groups].sort(([a], [b]) => a - b);
}

/** In the order of the batch: see `encodeBatch`. */
function placeBlocks(
  batch: Uint8Array,
  { offsets, firstBlocks, blocks }: BatchLayout,
  from: { groups: readonly [number, readonly number[]][]; pageSize: number; at: number },
): void {
  const next = firstBlocks.slice();
  let { at } = from;
  for (const [, pages] of from.groups) {
    for (let block = 0; block < blocksPerPage(from.pageSize); block++) {
      const bit = 1 << (block & 7);
      for (const page of pages) {
        if (((batch[(offsets[page] as number) + (block >> 3)] as number) & bit) === 0) continue;
        blocks[next[page] as number] = at;
        (next[page] as number)++;
        at += BLOCK_BYTES;
      }
    }
  }
}

/** The pages of a batch that answers `wanted`; full pages and bitmaps are views on it. Throws ProtocolViolation. */
export function decodeBatch(batch: Uint8Array, pageSize: number, wanted: readonly WantedPage[]): BatchPage[] {
  refuseUnaskedDeltas(batch, wanted);
  const { offsets, firstBlocks, blocks } = layOutBatch(batch, pageSize, wanted.length);
  const data = new Uint8Array(blocks.length * BLOCK_BYTES);
  for (const [i, from] of blocks.entries())
    data.set(batch.subarray(from, from + BLOCK_BYTES), i * BLOCK_BYTES);
  return wanted.map((_, i): BatchPage => {
    const at = offsets[i] as number;
    const group = batch[i] as number;
    if (group === 0) return { bitmap: undefined, data: batch.subarray(at, at + pageSize) };
    const [first, end] = [firstBlocks[i] as number, firstBlocks[i + 1] as number];
    return {
      bitmap: batch.subarray(at, at + bitmapBytes(pageSize)),
      data: data.subarray(first * BLOCK_BYTES, end * BLOCK_BYTES),
      group,
    };
  });
}

function tooShort(): ProtocolViolation {
  return new ProtocolViolation('a page batch that ends too early');
}

function refuseUnaskedDeltas(batch: Uint8Array, wanted: readonly WantedPage[]): void {
  for (const [i, { pageNumber, basis }] of wanted.entries()) {
    if ((batch[i] ?? 0) === 0 || basis !== 'none') continue;
    throw new ProtocolViolation(`a delta for page ${pageNumber}, which was asked for whole`);
  }
}

/** Counts the bits of a bitmap at `at` in `bytes`. */
function countBits(bytes: Uint8Array, at: number, length: number, limit: number): number {
  let count = 0;
  for (let i = 0; i < length; i++) {
    const byte = bytes[at + i] as number;
    const room = limit - i * 8;
    const beyond = room < 8 ? byte >> room : 0;
    if (beyond !== 0) {
      const block = limit + Math.log2(beyond & -beyond);
      throw new ProtocolViolation(`a delta that names block ${block} of ${limit}`);
    }
    for (let rest = byte; rest !== 0; rest &= rest - 1) count++;
  }
  return count;
}
