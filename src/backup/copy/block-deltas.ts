import { randomInt } from 'node:crypto';
import { BLOCK_BYTES } from '../../../protocol/limits.ts';
import { bitmapBytes } from '../../../protocol/page-batch.ts';
import { SqlsyncError } from '../../errors.ts';
import { applyDelta, groupOf } from '../../pages/delta.ts';
import type { PageDelta } from '../../pages/page-source.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import { idOf, sameBytes } from '../packs/object-id.ts';
import type { BlockCache } from './block-cache.ts';

/** How many deltas are compared with their real bases before a snapshot counts. */
const MAX_SAMPLES = 16;

/** A delta against the page `base`. */
interface Sample {
  readonly id: Uint8Array;
  readonly base: Uint8Array;
  readonly delta: PageDelta;
}

/** A delta that was made of cached hashes does not give its page. */
export class WrongBlocksError extends SqlsyncError {
  constructor() {
    super('INTERNAL', 'The cache of block hashes had hashes that no page of the store has', {
      hint: 'The cache was emptied. Check the memory of this host, then run sqlsync again.',
    });
  }
}

/** Makes the deltas of one backup of the hashes of blocks that earlier backups left, and leaves those of its own. */
export class BlockDeltas {
  readonly #cache: BlockCache;
  readonly #looksUp: boolean;
  /** Hashes of old versions of pages that are on their way, by page. */
  readonly #old = new Map<number, Uint8Array>();
  readonly #samples: Sample[] = [];
  #made = 0;
  #isClosed = false;

  /** `looksUp` is false for a backup that relies on nothing that earlier ones hashed. */
  constructor(cache: BlockCache, looksUp: boolean) {
    this.#cache = cache;
    this.#looksUp = looksUp;
  }

  /** True if `deltaOf` can do without the old version of a page, whose id is `oldId`. */
  knows(page: number, oldId: Uint8Array): boolean {
    if (!this.#looksUp) return false;
    if (this.#old.has(page)) return true;
    const hashes = this.#cache.find(page, oldId);
    if (hashes !== undefined) this.#old.set(page, hashes);
    return hashes !== undefined;
  }

  /**
   * Makes the delta of a page from the block hashes that `knows` found; undefined if it found none. Remembers the hashes
   * of the new version.
   */
  deltaOf(page: number, id: Uint8Array, bytes: Uint8Array): PageDelta | undefined {
    const hashes = this.#cache.hash(bytes);
    this.#cache.learn(page, id, hashes);
    const old = this.#old.get(page);
    this.#old.delete(page);
    if (old === undefined) return undefined;
    const bitmap = new Uint8Array(bitmapBytes(bytes.length));
    for (let block = 0; block * BLOCK_BYTES < bytes.length; block++) {
      if (sameBytes(hashes, old, 8, block * 8, block * 8)) continue;
      bitmap[block >> 3] = (bitmap[block >> 3] as number) | (1 << (block & 7));
    }
    return { bitmap, data: blocksIn(bytes, bitmap), group: groupOf(bytes) };
  }

  /** Keeps a copy of some of the deltas that are stored, each with the same chance, for `check`. */
  sample(id: Uint8Array, base: Uint8Array, { bitmap, data, group }: PageDelta): void {
    const place = this.#made++ < MAX_SAMPLES ? this.#samples.length : randomInt(this.#made);
    if (place < MAX_SAMPLES)
      this.#samples[place] = { id, base, delta: { bitmap: bitmap.slice(), data: data.slice(), group } };
  }

  /** Compares the sampled deltas with their bases. Throws WrongBlocksError, and SqlsyncError STORE_*. */
  check(reader: ObjectReader, pageSize: number): void {
    const page = new Uint8Array(pageSize);
    for (const { id, base, delta } of this.#samples) {
      // The base may itself be on its way to a pack.
      if (reader.index.bestCopy(base) === -1) continue;
      reader.readPage(base, page);
      applyDelta(page, delta.bitmap, delta.data);
      if (sameBytes(idOf(page), id)) continue;
      this.#cache.clear();
      throw new WrongBlocksError();
    }
  }

  /** Keeps what was learned if the snapshot is stored. */
  close(isStored: boolean): void {
    if (!this.#isClosed) this.#cache.close(isStored);
    this.#isClosed = true;
  }
}

/** The blocks of a page that a bitmap names, one after another. */
export function blocksIn(page: Uint8Array, bitmap: Uint8Array): Uint8Array {
  const blocks: Uint8Array[] = [];
  for (let block = 0; block * BLOCK_BYTES < page.length; block++)
    if (((bitmap[block >> 3] as number) & (1 << (block & 7))) !== 0)
      blocks.push(page.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES));
  return Buffer.concat(blocks);
}
