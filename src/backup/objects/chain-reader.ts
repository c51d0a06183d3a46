import { bitmapBytes } from '../../../protocol/page-batch.ts';
import { SqlsyncError } from '../../errors.ts';
import type { FrameCache } from './frame-cache.ts';
import type { Frame } from '../packs/frame.ts';
import { encodeNode, NODE_FANOUT } from '../packs/node.ts';
import type { NodeObject } from '../packs/node-frame.ts';
import { ID_BYTES, sameBytes } from '../packs/object-id.ts';
import type { ObjectIndex } from './object-index.ts';

/** Pages to read together. */
export interface PageRead {
  /** Their ids, one after another. */
  readonly ids: Uint8Array;
  readonly pageSize: number;
  /** Receives the pages, one after another. */
  readonly into: Uint8Array;
}

/**
 * Assembles pages and nodes from the best copy of everything, and does not look for another if that cannot be read. It
 * is the fast way; a caller takes the careful one if it fails.
 *
 * It reads many pages at once, level by level of their chains, so that each frame is decompressed once for all of them:
 * a page that many backups changed has its pieces in as many frames, and its neighbours have theirs in the same ones.
 */
export class ChainReader {
  readonly #index: ObjectIndex;
  readonly #frames: FrameCache;
  readonly #onSound: (object: number) => void;

  /** `onSound` gets each object that was assembled from trusted packs alone. */
  constructor(index: ObjectIndex, frames: FrameCache, onSound: (object: number) => void) {
    this.#index = index;
    this.#frames = frames;
    this.#onSound = onSound;
  }

  /**
   * Returns undefined if a page could not be read; `into` then holds garbage. Otherwise a flag for each page: 1 if its
   * bytes were hashed already, and have the id.
   */
  readPages(read: PageRead): Uint8Array | undefined {
    return this.#unlessRefused(() => this.#readPages(read));
  }

  /** As `readPages` for one page, beginning with this copy of it; -1 means none. */
  readPage(object: number, into: Uint8Array): boolean {
    if (object === -1) return false;
    return this.#unlessRefused(() => this.#readPage(object, into)) ?? false;
  }

  /** The bytes of a node; undefined if it could not be read. */
  readNode(object: number): Uint8Array | undefined {
    return this.#unlessRefused(() => this.#readNode(object));
  }

  /**
   * Begins to decompress, in other threads, the frames with the whole pages at the roots of these pages, and to hash
   * them if `isChecked`. Begins to read the frames of the deltas in between, if they lie elsewhere.
   */
  readAhead(ids: readonly Uint8Array[], isChecked: boolean): void {
    for (const id of ids) {
      for (const object of this.#index.chainOf(id)) {
        const frame = this.#index.frameNumberOf(object);
        if (this.#index.depthOf(object) === 0) this.#frames.load(frame, isChecked);
        else this.#frames.expect(frame);
      }
    }
  }

  #readPages({ ids, pageSize, into }: PageRead): Uint8Array | undefined {
    const index = this.#index;
    const count = ids.length / ID_BYTES;
    const maskBytes = bitmapBytes(pageSize);
    const masks = new Uint8Array(count * maskBytes);
    const firsts = new Int32Array(count);
    for (let i = 0; i < count; i++) firsts[i] = index.bestCopy(ids, undefined, i * ID_BYTES);
    if (firsts.includes(-1)) return undefined;
    const objects = firsts.slice();
    const isTrusted = new Uint8Array(count).fill(1);
    const hasId = new Uint8Array(count);
    const isWhole = (i: number): boolean => index.depthOf(objects[i] as number) === 0;
    /**
     * Puts in what the next object of a page says. Returns the base's id, undefined for a whole page, or false if that
     * is impossible.
     */
    const fill = (i: number): Uint8Array | undefined | false => {
      const object = objects[i] as number;
      const frame = this.#frameOf(object);
      if (frame.kind !== 'pages' || frame.pageSize !== pageSize) return false;
      if (!index.isTrusted(object)) isTrusted[i] = 0;
      const place = index.placeOf(object);
      const page = into.subarray(i * pageSize, (i + 1) * pageSize);
      frame.fill(place, page, masks.subarray(i * maskBytes, (i + 1) * maskBytes));
      const id = object === firsts[i] ? frame.wholeId(place) : undefined;
      if (id !== undefined && sameBytes(id, ids, ID_BYTES, 0, i * ID_BYTES)) hasId[i] = 1;
      return frame.baseOf(place);
    };
    const all = [...firsts.keys()];
    for (let open = all.filter((i) => !isWhole(i)); open.length > 0; open = open.filter((i) => !isWhole(i))) {
      for (const i of this.#byFrame(open, objects)) {
        const base = fill(i);
        if (base === undefined || base === false) return undefined;
        const below = index.bestCopy(base, index.depthOf(objects[i] as number));
        if (below === -1) return undefined;
        objects[i] = below;
      }
    }
    // At the end, so that each of these large frames is needed once.
    for (const i of this.#byFrame(all, objects)) if (fill(i) !== undefined) return undefined;
    for (let i = 0; i < count; i++) if (isTrusted[i] === 1) this.#onSound(firsts[i] as number);
    return hasId;
  }

  /** Places in `objects`, sorted so that objects of one frame follow one another. */
  #byFrame(places: readonly number[], objects: Int32Array): number[] {
    const frameOf = (place: number): number => this.#index.frameNumberOf(objects[place] as number);
    return places.toSorted((a, b) => frameOf(a) - frameOf(b));
  }

  #readPage(start: number, into: Uint8Array): boolean {
    const done = new Uint8Array(bitmapBytes(into.length));
    for (let object = start; object !== -1;) {
      const frame = this.#frameOf(object);
      if (frame.kind !== 'pages' || frame.pageSize !== into.length) return false;
      const place = this.#placeOf(object);
      frame.fill(place, into, done);
      const base = frame.baseOf(place);
      if (base === undefined) return true;
      object = this.#index.bestCopy(base, this.#index.depthOf(object));
    }
    return false;
  }

  #readNode(start: number): Uint8Array | undefined {
    const index = this.#index;
    const children = new Uint8Array(NODE_FANOUT * ID_BYTES);
    const done = new Uint8Array(NODE_FANOUT / 8);
    let shape: NodeObject | undefined;
    let isTrusted = true;
    for (let object = start; ;) {
      const frame = this.#frameOf(object);
      if (frame.kind !== 'nodes') return undefined;
      const node = frame.object(this.#placeOf(object));
      shape ??= node;
      isTrusted &&= index.isTrusted(object);
      fillChildren(children, done, node);
      if (node.delta === undefined) {
        if (isTrusted) this.#onSound(start);
        return encodeNode(shape.level, children.subarray(0, shape.childCount * ID_BYTES));
      }
      object = index.bestCopy(node.delta.base, index.depthOf(object));
      if (object === -1) return undefined;
    }
  }

  /** Valid until the next call. */
  #frameOf(object: number): Frame {
    // No caller uses a part of an earlier frame any more.
    this.#frames.discardDropped();
    return this.#frames.get(this.#index.frameNumberOf(object));
  }

  #placeOf(object: number): number {
    return this.#index.placeOf(object);
  }

  #unlessRefused<T>(read: () => T): T | undefined {
    try {
      return read();
    } catch (error) {
      if (error instanceof SqlsyncError) return undefined;
      throw error;
    }
  }
}

/** Copies the ids of a node to their places, except for those that `done` names, and adds them to `done`. */
function fillChildren(children: Uint8Array, done: Uint8Array, { childCount, ids, delta }: NodeObject): void {
  let from = 0;
  for (let child = 0; child < childCount; child++) {
    const bit = 1 << (child & 7);
    if (delta !== undefined && ((delta.bitmap[child >> 3] as number) & bit) === 0) continue;
    if (((done[child >> 3] as number) & bit) === 0) {
      children.set(ids.subarray(from, from + ID_BYTES), child * ID_BYTES);
      done[child >> 3] = (done[child >> 3] as number) | bit;
    }
    from += ID_BYTES;
  }
}
