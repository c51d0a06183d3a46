import { SqlsyncError } from '../../errors.ts';
import { assembleNode, assemblePage } from './assemble.ts';
import { ChainReader } from './chain-reader.ts';
import type { PageRead } from './chain-reader.ts';
import { CopyJudge } from './copy-judge.ts';
import type { ObjectParts } from './copy-judge.ts';
import type { Frame } from '../packs/frame.ts';
import { FrameCache } from './frame-cache.ts';
import type { FramePlaces } from './frame-cache.ts';
import { ID_BYTES, idOf, sameBytes, toHex } from '../packs/object-id.ts';
import type { ObjectIndex } from './object-index.ts';
import type { ReadPlan } from './read-plan.ts';
import { Soundness } from './soundness.ts';
import { damaged, StoreDamage } from '../store-error.ts';

/** 16 MB, for the nodes of 500,000 pages. */
const MAX_KEPT_NODES = 8192;

/**
 * Reads pages and nodes by their ids: assembles deltas with their bases, and checks the result against the id. If it
 * does not match, looks at each copy of it and of its bases, and avoids the damaged ones.
 */
export class ObjectReader {
  readonly index: ObjectIndex;
  readonly #frames: FrameCache;
  readonly #chains: ChainReader;
  readonly #judge: CopyJudge;
  readonly #soundness: Soundness;
  /** Checked nodes, by object number: the nodes of one tree are the bases of the next tree's. */
  readonly #nodes = new Map<number, Uint8Array>();

  /**
   * True for a backup that knows the store only from an earlier run: it relies on the objects of its parent, each in
   * its place, and on nothing else.
   */
  readonly reliesOnParent: boolean;

  constructor(index: ObjectIndex, place: FramePlaces, reliesOnParent = false) {
    this.index = index;
    this.reliesOnParent = reliesOnParent;
    this.#frames = new FrameCache(index, place);
    this.#soundness = new Soundness(this, (object) => index.isTrusted(object));
    this.#chains = new ChainReader(index, this.#frames, (object) => this.#soundness.learnSound(object));
    this.#judge = new CopyJudge(index, place.files, (object) => this.#partsOf(object));
  }

  /** The packs found so far that have deltas on other bases than their indexes say. */
  get misindexed(): ReadonlySet<string> {
    return this.#frames.misindexed;
  }

  /** The damaged files found so far, by name, with the damage. */
  get found(): ReadonlyMap<string, StoreDamage> {
    return this.#judge.found;
  }

  /**
   * The copy of an object that new ones may rely on: the least deep of the usable ones; undefined if none is.
   *
   * @param hasUsable - true if the caller knows that one copy is usable. A single copy is then not judged, which would
   * read the deltas that it is made of.
   */
  usable(id: Uint8Array, hasUsable: boolean = false): number | undefined {
    const [only, ...others] = hasUsable ? this.index.copies(id) : [];
    if (only !== undefined && others.length === 0) return only;
    return this.index.shallowest(id, (object) => this.#isUsable(object));
  }

  /**
   * True if a new snapshot need not write the object of this id.
   *
   * @param isParents - true if the parent has it in the same place.
   */
  isStored(id: Uint8Array, isParents: boolean): boolean {
    if (!this.reliesOnParent) return this.usable(id) !== undefined;
    const isOwn = (object: number): boolean => this.index.frameOf(object) === undefined;
    return isParents || this.index.shallowest(id, isOwn) !== undefined;
  }

  #isUsable(object: number): boolean {
    return this.index.isTrusted(object) && this.#soundness.isSound(object);
  }

  /**
   * Fills `into` with the page of this id. Throws SqlsyncError STORE_DAMAGED, STORE_FILE_MISSING, STORE_UNAVAILABLE.
   */
  readPage(id: Uint8Array, into: Uint8Array): void {
    this.#frames.discardDropped();
    if (this.#chains.readPage(this.index.bestCopy(id), into) && sameBytes(idOf(into), id)) return;
    take(this.#judge.rightCopy(id).bytes, into, id);
  }

  /**
   * Reads many pages at once, which takes far less time than one by one. `isChecked` is false for a caller that checks
   * what it makes of them. Throws what `readPage` throws.
   */
  readPages(read: PageRead, isChecked: boolean): void {
    const { ids, pageSize, into } = read;
    const hasId = this.#chains.readPages(read);
    const isRead = hasId !== undefined;
    if (isRead && !isChecked) return;
    for (let i = 0; i * pageSize < into.length; i++) {
      if (hasId?.[i] === 1) continue;
      const page = into.subarray(i * pageSize, (i + 1) * pageSize);
      const id = ids.subarray(i * ID_BYTES, (i + 1) * ID_BYTES);
      if (isRead && sameBytes(idOf(page), id)) continue;
      if (isChecked) this.readPage(id, page);
      else this.#readUncheckedPage(id, page);
    }
  }

  /** Begins to read, in other threads, the parts of these pages, for `readPages` with the same `isChecked`. */
  readAhead(ids: readonly Uint8Array[], isChecked: boolean): void {
    this.#chains.readAhead(ids, isChecked);
  }

  /** A plan of what will be read from another host; undefined for a store on this host. */
  newPlan(): ReadPlan | undefined {
    return this.#frames.newPlan();
  }

  /** The bytes of the node of this id. */
  readNode(id: Uint8Array): Uint8Array {
    this.#frames.discardDropped();
    const object = this.index.bestCopy(id);
    const best = this.#checkedNode(object) ?? this.#nodeInStore(object);
    if (best !== undefined) return best;
    const right = this.#judge.rightCopy(id);
    this.#keepNode(right.object, right.bytes);
    return right.bytes;
  }

  /** As `#checkedNode`, if that went by copies on this host; these are then removed. */
  #nodeInStore(object: number): Uint8Array | undefined {
    return this.#frames.removeKept() ? this.#checkedNode(object) : undefined;
  }

  /** Checks one copy of an object. Throws what `readPage` and `readNode` throw. */
  checkObject(object: number, scratch: (pageSize: number) => Uint8Array): void {
    this.#frames.discardDropped();
    const frame = this.#frames.getOrNothing(this.index.frameNumberOf(object));
    if (frame?.kind === 'nodes') {
      this.#nodes.delete(object);
      if ((this.#checkedNode(object) ?? this.#nodeInStore(object)) !== undefined) return;
    } else if (frame?.kind === 'pages') {
      const page = scratch(frame.pageSize);
      if (this.#chains.readPage(object, page) && sameBytes(idOf(page), this.index.idOf(object))) return;
    }
    const fault = this.#judge.faultOf(object);
    if (fault !== undefined) throw fault;
  }

  /**
   * The bytes of one copy of an object; undefined if it, or a base of it, is damaged. Throws SqlsyncError
   * STORE_UNAVAILABLE.
   */
  readCopy(object: number): Uint8Array | undefined {
    const fault = this.#judge.faultOf(object);
    if (fault === undefined) return this.#judge.bytesOf(object);
    if (fault instanceof StoreDamage) return undefined;
    throw fault;
  }

  /** True if one copy of an object can be assembled to what its id says. Throws SqlsyncError STORE_UNAVAILABLE. */
  isRight(object: number): boolean {
    try {
      this.checkObject(object, (pageSize) => new Uint8Array(pageSize));
      return true;
    } catch (error) {
      if (error instanceof SqlsyncError && error.code !== 'STORE_UNAVAILABLE') return false;
      throw error;
    }
  }

  /** Looks closely at one copy; `found` then holds what is wrong with it. */
  lookAt(object: number): void {
    this.#judge.faultOf(object);
  }

  /** The size of the page of this id, as its frame has it; undefined if that cannot be read. */
  pageSizeOf(id: Uint8Array): number | undefined {
    this.#frames.discardDropped();
    const best = this.index.bestCopy(id);
    const frame = best === -1 ? undefined : this.#frames.getOrNothing(this.index.frameNumberOf(best));
    return frame?.kind === 'pages' ? frame.pageSize : undefined;
  }

  /** Assembled from the preferred copies; undefined if that fails, or the result is wrong. */
  #checkedNode(object: number): Uint8Array | undefined {
    const kept = this.#nodes.get(object);
    if (kept !== undefined) return kept;
    const node = object === -1 ? undefined : this.#chains.readNode(object);
    if (node === undefined || !sameBytes(idOf(node), this.index.idOf(object))) return undefined;
    this.#keepNode(object, node);
    return node;
  }

  #keepNode(object: number, node: Uint8Array): void {
    if (this.#nodes.size >= MAX_KEPT_NODES) this.#nodes.delete(this.#nodes.keys().next().value as number);
    this.#nodes.set(object, node);
  }

  /**
   * The id of the whole object at the end of an object's chain. Adds to `changed` all blocks in which a page may differ
   * from it: those of the deltas in between, which take less reading than the pages themselves.
   */
  rootOf(id: Uint8Array, changed?: Uint8Array): Uint8Array {
    this.#frames.discardDropped();
    let object = this.#soundCopy(id);
    if (object === undefined)
      throw damaged('indexes', `do not name the object ${toHex(id)}, which is needed`);
    while (this.index.depthOf(object) > 0) {
      const frame = this.#frames.get(this.index.frameNumberOf(object));
      const place = this.index.placeOf(object);
      const base = frame.baseOf(place);
      if (base === undefined) break;
      if (changed !== undefined && frame.kind === 'pages') frame.addBlocks(place, changed);
      const below = this.#soundCopy(base, this.index.depthOf(object));
      if (below === undefined) throw this.#judge.lostBase(object, base);
      object = below;
    }
    return this.index.idOf(object).slice();
  }

  /** The objects of a frame, as they are. */
  readFrame(number: number): Frame {
    const frame = this.#frames.get(number);
    this.#frames.lend(number);
    return frame;
  }

  /** As `readFrame`; undefined if it cannot be read. */
  readFrameOrNothing(number: number): Frame | undefined {
    const frame = this.#frames.getOrNothing(number);
    if (frame !== undefined) this.#frames.lend(number);
    return frame;
  }

  #readUncheckedPage(id: Uint8Array, into: Uint8Array): void {
    this.#frames.discardDropped();
    if (this.#chains.readPage(this.index.bestCopy(id), into)) return;
    take(this.#judge.anyCopy(id).bytes, into, id);
  }

  #partsOf(object: number): ObjectParts {
    const frame = this.#frames.get(this.index.frameNumberOf(object));
    const place = this.index.placeOf(object);
    if (frame.kind === 'nodes') {
      const node = frame.object(place);
      return { base: node.delta?.base, assemble: (old) => assembleNode(node, old) };
    }
    const { page, base } = frame.object(place);
    return { base, assemble: (old) => assemblePage(page, old, frame.pageSize) };
  }

  #soundCopy(id: Uint8Array, below?: number): number | undefined {
    const copies = this.index.copies(id, below);
    if (copies.length === 1) return copies[0];
    return copies.find((copy) => this.#isUsable(copy)) ?? copies[0];
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
