import { toHex } from '../packs/object-id.ts';
import type { ObjectIndex } from '../objects/object-index.ts';
import type { KnownPack } from '../objects/trust.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import { walkTree } from '../snapshots/snapshot-tree.ts';
import { Soundness } from '../objects/soundness.ts';
import { NO_OBJECT } from '../objects/trust.ts';
import { damaged, throwIfAborted } from '../store-error.ts';
import type { StoreCallOptions, StoreSnapshot } from '../types.ts';

/**
 * Decides, by object number, which objects are needed: those of snapshots, and the bases of deltas. Of several copies
 * it picks the one that a reader would use, so that one copy is enough.
 */
export class LiveObjects {
  readonly #index: ObjectIndex;
  /** The base of each delta; `NO_OBJECT` for whole objects, and for deltas that cannot be assembled. */
  readonly #bases: Uint32Array;
  /** 1 for a copy that can be assembled; only objects with several copies were tried. */
  readonly #sound: Uint8Array;
  /** 1 for objects that snapshots need, including bases. */
  readonly #live: Uint8Array;

  /**
   * Throws SqlsyncError STORE_DAMAGED if a snapshot needs an object that is missing: then nothing may be deleted.
   *
   * @param judge - reads the store itself: a good copy on this host must not keep a damaged one in the store.
   */
  constructor(
    reader: ObjectReader,
    judge: ObjectReader,
    snapshots: readonly StoreSnapshot[],
    options: StoreCallOptions,
  ) {
    this.#index = reader.index;
    const { objectCount } = reader.index;
    this.#bases = new Uint32Array(objectCount).fill(NO_OBJECT);
    this.#sound = new Uint8Array(objectCount);
    this.#live = new Uint8Array(objectCount);
    this.#findBases(reader, judge, options);
    for (const [done, snapshot] of snapshots.entries()) {
      throwIfAborted(options.signal);
      options.onProgress?.({ phase: 'read', done, total: snapshots.length });
      this.#markTree(reader, snapshot);
    }
    this.#addBases(this.#live);
  }

  /**
   * The part of each pack, 0 to 1, that is live or the base of something in `kept` packs, by pack id. Within a frame
   * every object counts the same. Bases count because they are copied with the rest: otherwise the copy would be as
   * wasteful, and be copied again.
   */
  ratios(kept: Iterable<KnownPack>): Map<string, number> {
    const ratios = new Map<string, number>();
    const inUse = this.#live.slice();
    for (const { firstObject, objectCount } of kept) {
      for (const base of this.#bases.subarray(firstObject, firstObject + objectCount))
        if (base !== NO_OBJECT) inUse[base] = 1;
    }
    this.#addBases(inUse);
    for (const { id, firstFrame, frameCount } of this.#index.packs.values()) {
      let total = 0;
      let used = 0;
      for (const frame of this.#index.frames.slice(firstFrame, firstFrame + frameCount)) {
        const { length, firstObject, objectCount } = frame;
        let count = 0;
        for (let i = 0; i < objectCount; i++) count += inUse[firstObject + i] as number;
        total += length;
        // If all objects are needed, counts exactly 1, and not nearly 1.
        used += count === objectCount ? length : (length * count) / objectCount;
      }
      ratios.set(id, total === 0 ? 0 : used / total);
    }
    return ratios;
  }

  /** True if everything in a pack can be assembled, live or not. */
  isSound(pack: KnownPack): boolean {
    const end = pack.firstObject + pack.objectCount;
    return !this.#sound.subarray(pack.firstObject, end).includes(0);
  }

  /**
   * 1 for live objects, and for everything in `kept` packs with its bases: a new backup relies on any object in a pack
   * that stays, even on former garbage.
   */
  neededWith(kept: Iterable<KnownPack>): Uint8Array {
    const needed = this.#live.slice();
    for (const { firstObject, objectCount } of kept) needed.fill(1, firstObject, firstObject + objectCount);
    this.#addBases(needed);
    return needed;
  }

  #findBases(reader: ObjectReader, judge: ObjectReader, { signal }: StoreCallOptions): void {
    const { index } = reader;
    // One of several copies is kept and the others go, so it must be a right one.
    const counts = (object: number): boolean =>
      index.copies(index.idOf(object)).length === 1 || judge.isRight(object);
    const soundness = new Soundness(reader, counts, false);
    for (const { firstObject, objectCount } of this.#index.frames) {
      throwIfAborted(signal);
      for (let object = firstObject; object < firstObject + objectCount; object++) {
        if (!soundness.isSound(object)) continue;
        this.#sound[object] = 1;
        this.#bases[object] = soundness.baseOf(object);
      }
    }
  }

  #markTree(reader: ObjectReader, snapshot: StoreSnapshot): void {
    /** Returns false if it was already live; then all nodes below it are live too. */
    const mark = (id: Uint8Array): boolean => {
      const object = this.#index.copies(id).find((copy) => this.#sound[copy] === 1);
      if (object === undefined) {
        throw damaged('indexes', `do not name the object ${toHex(id)}, which snapshot ${snapshot.id} needs`);
      }
      if (this.#live[object] === 1) return false;
      this.#live[object] = 1;
      return true;
    };
    walkTree(reader, snapshot, { enterNode: mark, page: mark });
  }

  /** From the deepest on, so that one pass is enough. */
  #addBases(needed: Uint8Array): void {
    for (let depth = this.#index.maxDepth(); depth > 0; depth--) {
      for (let object = 0; object < needed.length; object++) {
        if (needed[object] !== 1 || this.#index.depthOf(object) !== depth) continue;
        const base = this.#bases[object] as number;
        if (base !== NO_OBJECT) needed[base] = 1;
      }
    }
  }
}
