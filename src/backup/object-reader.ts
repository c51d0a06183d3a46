import { SqlsyncError } from '../errors.ts';
import { applyDelta } from '../pages/delta.ts';
import type { Backend } from './backend.ts';
import { decodeFrame } from './frame.ts';
import type { Frame, NodeObject, PageObject } from './frame.ts';
import { discard } from './frame-memory.ts';
import { encodeNode, nodeIds } from './node.ts';
import { ID_BYTES, idOf, sameBytes, toHex } from './object-id.ts';
import type { ObjectIndex } from './object-index.ts';
import type { Sealer } from './seal.ts';
import { damaged } from './store-error.ts';

/** Memory for decompressed frames: pages that are read in order need some frames of every backup that changed them. */
const CACHE_BYTES = 16 * 1024 * 1024;

/** What V8 needs for an object of a frame and its views, of which a frame of small deltas has more than of data. */
const OBJECT_BYTES = 512;

/** 16 MB, as many as 500,000 pages have. */
const MAX_KEPT_NODES = 8192;

interface CachedFrame {
  readonly frame: Frame;
  /** Where its objects lie. */
  readonly memory: Uint8Array;
  readonly bytes: number;
  usedAt: number;
  /** Somebody else has it too. */
  isLent: boolean;
}

/**
 * Reads pages and nodes by their ids: puts deltas together with their bases, and checks the result against the id. Of an
 * object that is in the store more than once, a damaged copy is passed over.
 */
export class ObjectReader {
  readonly index: ObjectIndex;
  readonly #backend: Backend;
  readonly #sealer: Sealer;
  readonly #cache = new Map<number, CachedFrame>();
  /** Nodes that were checked, by number of object: a tree's are the bases of the next one's. */
  readonly #nodes = new Map<number, Uint8Array>();
  #cachedBytes = 0;
  #tick = 0;
  /** Memory of frames that were dropped, of which the call that is under way may still have a part in hand. */
  #dropped: Uint8Array[] = [];

  constructor(index: ObjectIndex, backend: Backend, sealer: Sealer) {
    this.index = index;
    this.#backend = backend;
    this.#sealer = sealer;
  }

  /** Fills `into` with the page of this id. Throws SqlsyncError STORE_DAMAGED, STORE_FILE_MISSING, STORE_UNAVAILABLE. */
  readPage(id: Uint8Array, into: Uint8Array): void {
    this.#discardDropped();
    this.#firstGood(id, 256, (object) => {
      this.#putTogether(object, into);
      if (!sameBytes(idOf(into), id)) throw this.#wrong(object);
    });
  }

  /** The same without the check against the id, for whoever checks what he makes of it. */
  readUncheckedPage(id: Uint8Array, into: Uint8Array): void {
    this.#discardDropped();
    this.#firstGood(id, 256, (object) => this.#putTogether(object, into));
  }

  /** The bytes of the node of this id. */
  readNode(id: Uint8Array): Uint8Array {
    this.#discardDropped();
    return this.#firstGood(id, 256, (object) => this.#checkedNode(object));
  }

  /** Checks one copy of an object. Throws what `readPage` and `readNode` throw. */
  checkObject(object: number, scratch: (pageSize: number) => Uint8Array): void {
    this.#discardDropped();
    const frame = this.#frame(this.index.frameNumberOf(object));
    if (frame.kind === 'nodes') {
      this.#nodes.delete(object);
      this.#checkedNode(object);
      return;
    }
    const page = scratch(frame.pageSize);
    this.#putTogether(object, page);
    if (!sameBytes(idOf(page), this.index.idOf(object))) throw this.#wrong(object);
  }

  #checkedNode(object: number): Uint8Array {
    const node = this.#nodeOf(object);
    if (this.#nodes.get(object) === node) return node;
    if (!sameBytes(idOf(node), this.index.idOf(object))) throw this.#wrong(object);
    if (this.#nodes.size >= MAX_KEPT_NODES) this.#nodes.delete(this.#nodes.keys().next().value as number);
    this.#nodes.set(object, node);
    return node;
  }

  /** The whole page at the end of the chain that a page is put together from: its id, and its bytes in `into`. */
  rootOfPage(id: Uint8Array, into: Uint8Array): Uint8Array {
    const root = this.#rootOf(id, (object) => this.#pageObject(object).base);
    this.readPage(root, into);
    return root;
  }

  /** The same for a node; undefined bases are whole nodes. */
  rootOfNode(id: Uint8Array): Uint8Array {
    return this.#rootOf(id, (object) => this.#nodeObject(object).delta?.base);
  }

  /** Visits the deltas of a frame, with the beginnings of their bases' ids as views; none of a frame that cannot be read. */
  forEachBase(number: number, visit: (object: number, base: Uint8Array) => void): void {
    this.#discardDropped();
    const frame = this.#frameOrNothing(number);
    if (frame === undefined) return;
    const first = this.#firstObjectOf(number);
    for (let i = 0; i < frame.objects.length; i++) {
      const base = frame.kind === 'pages' ? frame.objects[i]?.base : frame.objects[i]?.delta?.base;
      if (base !== undefined) visit(first + i, base);
    }
  }

  /** The objects of a frame, as they are. */
  readFrame(number: number): Frame {
    const frame = this.#frame(number);
    this.#lend(number);
    return frame;
  }

  /** The same; undefined where it cannot be read. */
  readFrameOrNothing(number: number): Frame | undefined {
    const frame = this.#frameOrNothing(number);
    if (frame !== undefined) this.#lend(number);
    return frame;
  }

  #lend(number: number): void {
    (this.#cache.get(number) as CachedFrame).isLent = true;
  }

  #frameOrNothing(number: number): Frame | undefined {
    try {
      return this.#frame(number);
    } catch (error) {
      if (error instanceof SqlsyncError && error.code !== 'STORE_UNAVAILABLE') return undefined;
      throw error;
    }
  }

  #firstGood<T>(id: Uint8Array, below: number, read: (object: number) => T): T {
    let failure: Error | undefined;
    const best = this.index.bestCopy(id, below);
    try {
      if (best !== -1) return read(best);
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error));
    }
    for (const object of this.index.copies(id, below)) {
      if (object === best) continue;
      try {
        return read(object);
      } catch (error) {
        failure ??= error instanceof Error ? error : new Error(String(error));
      }
    }
    throw failure ?? damaged('indexes', `do not name the object ${toHex(id)}, which is needed`);
  }

  #putTogether(object: number, into: Uint8Array): void {
    const { page, base } = this.#pageObject(object);
    if (page.data.length > into.length || (base === undefined && page.data.length !== into.length))
      throw this.#wrong(object);
    if (page.bitmap === undefined) {
      into.set(page.data);
      return;
    }
    this.#firstGood(base as Uint8Array, this.index.depthOf(object), (below) =>
      this.#putTogether(below, into),
    );
    applyDelta(into, page.bitmap, page.data);
  }

  #nodeOf(object: number): Uint8Array {
    const kept = this.#nodes.get(object);
    if (kept !== undefined) return kept;
    const { level, childCount, ids, delta } = this.#nodeObject(object);
    if (delta === undefined) return encodeNode(level, ids);
    const base = this.#firstGood(delta.base, this.index.depthOf(object), (below) => this.#nodeOf(below));
    const old = nodeIds(base);
    const children = new Uint8Array(childCount * ID_BYTES);
    children.set(old.subarray(0, children.length));
    let from = 0;
    for (let child = 0; child < childCount; child++) {
      if (((delta.bitmap[child >> 3] as number) & (1 << (child & 7))) === 0) continue;
      children.set(ids.subarray(from, from + ID_BYTES), child * ID_BYTES);
      from += ID_BYTES;
    }
    return encodeNode(level, children);
  }

  #rootOf(id: Uint8Array, baseOf: (object: number) => Uint8Array | undefined): Uint8Array {
    let object = this.#soundCopy(id);
    for (;;) {
      if (object === undefined) throw damaged('indexes', `do not name the object ${toHex(id)}`);
      const base = baseOf(object);
      if (base === undefined) return this.index.idOf(object).slice();
      object = this.#soundCopy(base, this.index.depthOf(object));
    }
  }

  #soundCopy(id: Uint8Array, below?: number): number | undefined {
    const copies = this.index.copies(id, below);
    return copies.find((copy) => this.index.isUsable(copy)) ?? copies[0];
  }

  #pageObject(object: number): PageObject {
    const number = this.index.frameNumberOf(object);
    const frame = this.#frame(number);
    const found = frame.kind === 'pages' ? frame.objects[object - this.#firstObjectOf(number)] : undefined;
    if (found === undefined) throw this.#wrong(object);
    return found;
  }

  #nodeObject(object: number): NodeObject {
    const number = this.index.frameNumberOf(object);
    const frame = this.#frame(number);
    const found = frame.kind === 'nodes' ? frame.objects[object - this.#firstObjectOf(number)] : undefined;
    if (found === undefined) throw this.#wrong(object);
    return found;
  }

  #firstObjectOf(frame: number): number {
    return (this.index.frames[frame] as { firstObject: number }).firstObject;
  }

  #frame(number: number): Frame {
    const cached = this.#cache.get(number);
    if (cached !== undefined) {
      cached.usedAt = ++this.#tick;
      return cached.frame;
    }
    const { plain, file } = this.#sealedFrame(number);
    const decoded = decodeFrame(plain, file);
    this.#keep(number, decoded);
    return decoded.frame;
  }

  #sealedFrame(number: number): { plain: Uint8Array; file: string } {
    const place = this.index.frames[number];
    if (place === undefined) throw new Error(`there is no frame ${number}`);
    const file = `packs/${place.pack.id}`;
    const sealed = this.#backend.getNow(file, { offset: place.offset, length: place.length });
    if (sealed.length !== place.length) throw damaged(file, 'is shorter than its index says');
    return { plain: this.#sealer.open('frame', sealed), file };
  }

  #keep(number: number, { frame, memory }: Pick<CachedFrame, 'frame' | 'memory'>): void {
    const place = this.index.frames[number];
    const bytes = (place?.rawBytes ?? 0) + frame.objects.length * OBJECT_BYTES;
    if (place !== undefined && frame.objects.length !== place.objectCount)
      throw damaged(
        `packs/${place.pack.id}`,
        'has a frame with another number of objects than its index says',
      );
    while (this.#cachedBytes + bytes > CACHE_BYTES && this.#cache.size > 0) this.#dropOldest();
    this.#cache.set(number, { frame, memory, bytes, usedAt: ++this.#tick, isLent: false });
    this.#cachedBytes += bytes;
  }

  #dropOldest(): void {
    let oldest: [number, CachedFrame] | undefined;
    for (const each of this.#cache) {
      if (oldest === undefined || each[1].usedAt < oldest[1].usedAt) oldest = each;
    }
    if (oldest === undefined) return;
    this.#cache.delete(oldest[0]);
    this.#cachedBytes -= oldest[1].bytes;
    if (!oldest[1].isLent) this.#dropped.push(oldest[1].memory);
  }

  /** Comes first in every call from outside, when none has a part of a frame in hand. */
  #discardDropped(): void {
    if (this.#dropped.length === 0) return;
    for (const memory of this.#dropped) discard(memory);
    this.#dropped = [];
  }

  #wrong(object: number): Error {
    const pack = this.index.frameOf(object)?.pack.id ?? '';
    return damaged(`packs/${pack}`, `does not hold the object ${toHex(this.index.idOf(object))} as it was`);
  }
}
