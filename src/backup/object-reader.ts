import { SqlsyncError } from '../errors.ts';
import { applyDelta } from '../pages/delta.ts';
import type { Backend } from './backend.ts';
import { CopyJudge } from './copy-judge.ts';
import type { ObjectParts } from './copy-judge.ts';
import { decodeFrame } from './frame.ts';
import type { Frame, NodeObject, PageObject } from './frame.ts';
import { discard } from './frame-memory.ts';
import { assembleNode, assemblePage } from './assemble.ts';
import { idOf, sameBytes, toHex } from './object-id.ts';
import type { ObjectIndex } from './object-index.ts';
import type { Sealer } from './seal.ts';
import { damaged } from './store-error.ts';
import type { StoreDamage } from './store-error.ts';

/** Memory for decompressed frames: pages that are read in order need some frames of every backup that changed them. */
const CACHE_BYTES = 16 * 1024 * 1024;

/** What V8 needs for an object of a frame and its views, of which a frame of small deltas has more than of data. */
const OBJECT_BYTES = 512;

/** 16 MB, as many as 500,000 pages have. */
const MAX_KEPT_NODES = 8192;

const NOTHING = new Uint8Array(0);

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
 * Reads pages and nodes by their ids: puts deltas together with their bases, and checks the result against the id. Where it is
 * another one, each copy of it and its bases is looked at, and those that are damaged are passed over.
 */
export class ObjectReader {
  readonly index: ObjectIndex;
  readonly #backend: Backend;
  readonly #sealer: Sealer;
  readonly #judge: CopyJudge;
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
    this.#judge = new CopyJudge(index, backend, (object) => this.#partsOf(object));
  }

  /** The files that were found to be damaged so far, by name, and how. */
  get found(): ReadonlyMap<string, StoreDamage> {
    return this.#judge.found;
  }

  /** Fills `into` with the page of this id. Throws SqlsyncError STORE_DAMAGED, STORE_FILE_MISSING, STORE_UNAVAILABLE. */
  readPage(id: Uint8Array, into: Uint8Array): void {
    this.#discardDropped();
    if (this.#isPutTogether(this.index.bestCopy(id), into) && sameBytes(idOf(into), id)) return;
    take(this.#judge.rightCopy(id).bytes, into, id);
  }

  /** The same without the check against the id, for whoever checks what he makes of it. */
  readUncheckedPage(id: Uint8Array, into: Uint8Array): void {
    this.#discardDropped();
    if (this.#isPutTogether(this.index.bestCopy(id), into)) return;
    take(this.#judge.anyCopy(id).bytes, into, id);
  }

  /** The bytes of the node of this id. */
  readNode(id: Uint8Array): Uint8Array {
    this.#discardDropped();
    const best = this.#checkedNode(this.index.bestCopy(id));
    if (best !== undefined) return best;
    const { object, bytes } = this.#judge.rightCopy(id);
    this.#keepNode(object, bytes);
    return bytes;
  }

  /** Checks one copy of an object. Throws what `readPage` and `readNode` throw. */
  checkObject(object: number, scratch: (pageSize: number) => Uint8Array): void {
    this.#discardDropped();
    const frame = this.#frameOrNothing(this.index.frameNumberOf(object));
    if (frame?.kind === 'nodes') {
      this.#nodes.delete(object);
      if (this.#checkedNode(object) !== undefined) return;
    } else if (frame?.kind === 'pages') {
      const page = scratch(frame.pageSize);
      if (this.#isPutTogether(object, page) && sameBytes(idOf(page), this.index.idOf(object))) return;
    }
    const fault = this.#judge.faultOf(object);
    if (fault !== undefined) throw fault;
  }

  /** Whether one copy of an object can be put together to what its id says. Throws SqlsyncError STORE_UNAVAILABLE. */
  isRight(object: number): boolean {
    try {
      this.checkObject(object, (pageSize) => new Uint8Array(pageSize));
      return true;
    } catch (error) {
      if (error instanceof SqlsyncError && error.code !== 'STORE_UNAVAILABLE') return false;
      throw error;
    }
  }

  /** Looks closely at one copy: what is wrong with it is in `found` then. */
  lookAt(object: number): void {
    this.#judge.faultOf(object);
  }

  /** The size of the page of this id, as its frame has it; undefined where that cannot be read. */
  pageSizeOf(id: Uint8Array): number | undefined {
    this.#discardDropped();
    const best = this.index.bestCopy(id);
    const frame = best === -1 ? undefined : this.#frameOrNothing(this.index.frameNumberOf(best));
    return frame?.kind === 'pages' ? frame.pageSize : undefined;
  }

  /** False where it cannot be, from the copies that are taken first: those are looked at closely then. */
  #isPutTogether(object: number, into: Uint8Array): boolean {
    try {
      if (object === -1) return false;
      this.#putTogether(object, into);
      return true;
    } catch (error) {
      if (error instanceof SqlsyncError) return false;
      throw error;
    }
  }

  /** undefined where the same is the case, or it is not right. */
  #checkedNode(object: number): Uint8Array | undefined {
    try {
      if (object === -1) return undefined;
      const node = this.#nodeOf(object);
      if (this.#nodes.get(object) === node) return node;
      if (!sameBytes(idOf(node), this.index.idOf(object))) return undefined;
      this.#keepNode(object, node);
      return node;
    } catch (error) {
      if (error instanceof SqlsyncError) return undefined;
      throw error;
    }
  }

  #keepNode(object: number, node: Uint8Array): void {
    if (this.#nodes.size >= MAX_KEPT_NODES) this.#nodes.delete(this.#nodes.keys().next().value as number);
    this.#nodes.set(object, node);
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

  #putTogether(object: number, into: Uint8Array): void {
    const { page, base } = this.#pageObject(object);
    if (page.data.length > into.length || (base === undefined && page.data.length !== into.length))
      throw this.#wrong(object);
    if (page.bitmap === undefined) {
      into.set(page.data);
      return;
    }
    this.#putTogether(this.#baseOf(object, base as Uint8Array), into);
    applyDelta(into, page.bitmap, page.data);
  }

  #nodeOf(object: number): Uint8Array {
    const kept = this.#nodes.get(object);
    if (kept !== undefined) return kept;
    const node = this.#nodeObject(object);
    const base = node.delta === undefined ? NOTHING : this.#nodeOf(this.#baseOf(object, node.delta.base));
    return assembleNode(node, base);
  }

  /** The copy of a delta's base that is taken first. */
  #baseOf(object: number, base: Uint8Array): number {
    const best = this.index.bestCopy(base, this.index.depthOf(object));
    if (best === -1) throw damaged('indexes', `do not name the object ${toHex(base)}, which is needed`);
    return best;
  }

  #partsOf(object: number): ObjectParts {
    const frame = this.#frame(this.index.frameNumberOf(object));
    if (frame.kind === 'nodes') {
      const node = this.#nodeObject(object);
      return { base: node.delta?.base, assemble: (old) => assembleNode(node, old) };
    }
    const { page, base } = this.#pageObject(object);
    return { base, assemble: (old) => assemblePage(page, old, frame.pageSize) };
  }

  #rootOf(id: Uint8Array, baseOf: (object: number) => Uint8Array | undefined): Uint8Array {
    let object = this.#soundCopy(id);
    if (object === undefined)
      throw damaged('indexes', `do not name the object ${toHex(id)}, which is needed`);
    for (;;) {
      const base = baseOf(object);
      if (base === undefined) return this.index.idOf(object).slice();
      const below = this.#soundCopy(base, this.index.depthOf(object));
      if (below === undefined) throw this.#judge.lostBase(object, base);
      object = below;
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

function take(bytes: Uint8Array, into: Uint8Array, id: Uint8Array): void {
  if (bytes.length !== into.length)
    throw damaged(
      'snapshots',
      `name the page ${toHex(id)}, which has ${bytes.length} bytes, as one of ${into.length}`,
    );
  into.set(bytes);
}
