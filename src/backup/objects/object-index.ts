import type { IndexedPack } from '../packs/index-file.ts';
import { BASE_ID_BYTES, fromHex, ID_BYTES, sameBytes, toHex } from '../packs/object-id.ts';
import type { KnownFrame, KnownPack, PackTrust } from './trust.ts';

/** Growth factor of the arrays; old and new ones exist together for a moment. */
const GROWTH = 1.25;

const SPARE_OBJECTS = 64 * 1024;

/** The place of an object that was just added; its pack is not known yet. */
const PENDING = 0xffffffff;

/**
 * All objects of a store by their ids: flat arrays and a hash table, about 50 bytes per object, and 16 more per delta.
 * Each object has a number; copies of one object are objects with the same id.
 */
export class ObjectIndex {
  readonly packs: Map<string, KnownPack> = new Map();
  readonly frames: KnownFrame[] = [];
  #count = 0;
  #ids: Uint8Array = new Uint8Array(0);
  #depths: Uint8Array = new Uint8Array(0);
  #frameOf: Uint32Array = new Uint32Array(0);
  /** The place of each delta's base in `#bases`, plus 1; 0 for whole objects. */
  #baseAt: Uint32Array = new Uint32Array(0);
  /** The beginnings of ids of bases, one after another. */
  #bases: Uint8Array = new Uint8Array(0);
  #deltaCount = 0;
  /** Object numbers plus 1, at the place of the id's first four bytes or after it. */
  #table: Uint32Array = new Uint32Array(16);

  get objectCount(): number {
    return this.#count;
  }

  get deltaCount(): number {
    return this.#deltaCount;
  }

  /** Reserves room for this many more objects, deltas among them, and for some of a new backup. */
  reserve(objects: number, deltas: number): void {
    this.#grow(this.#count + objects + SPARE_OBJECTS);
    this.#growBases(this.#deltaCount + deltas);
  }

  /** Adds a pack as an index file describes it; ignores a known pack. */
  addPack(pack: IndexedPack, { present, trusted }: PackTrust): void {
    const id = toHex(pack.id);
    if (this.packs.has(id)) return;
    const known: KnownPack = {
      id,
      salt: pack.salt,
      bytes: pack.bytes,
      present,
      trusted,
      firstFrame: this.frames.length,
      frameCount: pack.frames.length,
      firstObject: this.#count,
      objectCount: pack.depths.length,
    };
    this.packs.set(id, known);
    this.#grow(this.#count + pack.depths.length);
    this.#ids.set(pack.ids, this.#count * ID_BYTES);
    this.#depths.set(pack.depths, this.#count);
    this.#growBases(this.#deltaCount + pack.bases.length / BASE_ID_BYTES);
    this.#bases.set(pack.bases, this.#deltaCount * BASE_ID_BYTES);
    for (const [i, depth] of pack.depths.entries())
      this.#baseAt[this.#count + i] = depth === 0 ? 0 : ++this.#deltaCount;
    for (const frame of pack.frames) {
      this.frames.push({ ...frame, pack: known, firstObject: this.#count });
      for (let n = 0; n < frame.objectCount; n++) {
        this.#frameOf[this.#count] = this.frames.length - 1;
        this.#insert(this.#count++);
      }
    }
  }

  /**
   * Adds an object that is on its way to a pack; returns its number.
   *
   * @param base - the beginning of the id of a delta's base; undefined for a whole object.
   */
  addPending(id: Uint8Array, depth: number, base: Uint8Array | undefined): number {
    if ((base !== undefined) !== depth > 0) throw new Error(`an object of depth ${depth} with another base`);
    this.#grow(this.#count + 1);
    this.#baseAt[this.#count] = 0;
    if (base !== undefined) {
      this.#growBases(this.#deltaCount + 1);
      this.#bases.set(base.subarray(0, BASE_ID_BYTES), this.#deltaCount * BASE_ID_BYTES);
      this.#baseAt[this.#count] = ++this.#deltaCount;
    }
    this.#ids.set(id, this.#count * ID_BYTES);
    this.#depths[this.#count] = depth;
    this.#frameOf[this.#count] = PENDING;
    this.#insert(this.#count);
    return this.#count++;
  }

  /** The id of an object; a view. */
  idOf(object: number): Uint8Array {
    return this.#ids.subarray(object * ID_BYTES, (object + 1) * ID_BYTES);
  }

  depthOf(object: number): number {
    return this.#depths[object] as number;
  }

  /** The beginning of the id of a delta's base, as its index says; a view. undefined for a whole object. */
  baseOf(object: number): Uint8Array | undefined {
    const at = this.#baseAt[object] as number;
    return at === 0 ? undefined : this.#bases.subarray((at - 1) * BASE_ID_BYTES, at * BASE_ID_BYTES);
  }

  maxDepth(): number {
    return this.#depths.subarray(0, this.#count).reduce((most, depth) => Math.max(most, depth), 0);
  }

  /** A pack as an index file describes it. */
  describe(pack: KnownPack): IndexedPack {
    const { firstObject, objectCount, firstFrame, frameCount } = pack;
    const end = firstObject + objectCount;
    // The bases of a pack came one after another.
    const baseAt = this.#baseAt.subarray(firstObject, end).filter((at) => at !== 0);
    const firstBase = (baseAt[0] ?? 1) - 1;
    return {
      id: fromHex(pack.id),
      salt: pack.salt,
      bytes: pack.bytes,
      frames: this.frames.slice(firstFrame, firstFrame + frameCount),
      ids: this.#ids.slice(firstObject * ID_BYTES, end * ID_BYTES),
      depths: this.#depths.slice(firstObject, end),
      bases: this.#bases.slice(firstBase * BASE_ID_BYTES, (firstBase + baseAt.length) * BASE_ID_BYTES),
    };
  }

  /** undefined for an object that is on its way to a pack. */
  frameOf(object: number): KnownFrame | undefined {
    const frame = this.#frameOf[object] as number;
    return frame === PENDING ? undefined : this.frames[frame];
  }

  /** undefined for an object that is on its way to a pack. */
  packOf(object: number): KnownPack | undefined {
    return this.frameOf(object)?.pack;
  }

  /** The place of an object within its frame. */
  placeOf(object: number): number {
    return object - (this.frames[this.frameNumberOf(object)] as KnownFrame).firstObject;
  }

  frameNumberOf(object: number): number {
    return this.#frameOf[object] as number;
  }

  /** The least deep copy that counts, also among those on their way to a pack; undefined if none counts. */
  shallowest(id: Uint8Array, counts: (object: number) => boolean): number | undefined {
    let best: number | undefined;
    this.#each(id, 0, ID_BYTES, (object) => {
      if (best !== undefined && this.depthOf(object) >= this.depthOf(best)) return;
      if (counts(object)) best = object;
    });
    return best;
  }

  /** The first of `copies`, or -1; allocates nothing, for millions of calls. The id is in `id` at `at`. */
  bestCopy(id: Uint8Array, below = 256, at = 0): number {
    const idBytes = id.length === BASE_ID_BYTES ? BASE_ID_BYTES : ID_BYTES;
    const mask = this.#table.length - 1;
    let best = -1;
    for (let slot = hashAt(id, at) & mask; this.#table[slot] !== 0; slot = (slot + 1) & mask) {
      const object = (this.#table[slot] as number) - 1;
      if (this.depthOf(object) >= below || this.#frameOf[object] === PENDING) continue;
      if (!sameBytes(this.#ids, id, idBytes, object * ID_BYTES, at)) continue;
      if (best === -1 || this.#compare(object, best) < 0) best = object;
    }
    return best;
  }

  /** The object of this id and the bases that it is made of: what a reader will need, if nothing is damaged. */
  chainOf(id: Uint8Array): number[] {
    const chain: number[] = [];
    for (let object = this.bestCopy(id); object !== -1;) {
      chain.push(object);
      const base = this.baseOf(object);
      object = base === undefined ? -1 : this.bestCopy(base, this.depthOf(object));
    }
    return chain;
  }

  /** The readable copies, best first: less deep, and in unmarked packs. Only those of less depth than `below`. */
  copies(id: Uint8Array, below = 256): number[] {
    const found: number[] = [];
    const idBytes = id.length === BASE_ID_BYTES ? BASE_ID_BYTES : ID_BYTES;
    this.#each(id, 0, idBytes, (object) => {
      if (this.#frameOf[object] !== PENDING && this.depthOf(object) < below) found.push(object);
    });
    if (found.length > 1) found.sort((a, b) => this.#compare(a, b));
    return found;
  }

  /** The first object with this id, or -1: one number for all copies. */
  numberOf(id: Uint8Array, at = 0): number {
    let first = -1;
    this.#each(id, at, ID_BYTES, (object) => {
      if (first === -1) first = object;
    });
    return first;
  }

  /**
   * Decides which of two copies comes first. Never by the order in which indexes were loaded: of two simultaneous
   * prunes, one may see other indexes than the other, and each would delete the copy that the other one keeps.
   *
   * The depth comes before the mark, so that a prune never keeps a deeper copy than the one that it deletes: a delta
   * that it does not know yet may have been made on that one.
   */
  #compare(a: number, b: number): number {
    const byRank = this.#rank(a) - this.#rank(b);
    if (byRank !== 0) return byRank;
    const [packA, packB] = [this.packOf(a)?.id ?? '', this.packOf(b)?.id ?? ''];
    if (packA === packB) return a - b;
    return packA < packB ? -1 : 1;
  }

  #rank(object: number): number {
    return (this.isPresent(object) ? 0 : 512) + 2 * this.depthOf(object) + (this.isTrusted(object) ? 0 : 1);
  }

  /** True for an object in a present pack, or on its way to a pack. */
  isPresent(object: number): boolean {
    return this.packOf(object)?.present !== false;
  }

  /** True for an object in a trusted pack, or on its way to a pack. */
  isTrusted(object: number): boolean {
    return this.packOf(object)?.trusted !== false;
  }

  #each(id: Uint8Array, at: number, idBytes: number, visit: (object: number) => void): void {
    const mask = this.#table.length - 1;
    for (let slot = hashAt(id, at) & mask; ; slot = (slot + 1) & mask) {
      const entry = this.#table[slot] as number;
      if (entry === 0) return;
      if (sameBytes(this.#ids, id, idBytes, (entry - 1) * ID_BYTES, at)) visit(entry - 1);
    }
  }

  #insert(object: number): void {
    const mask = this.#table.length - 1;
    let slot = hashAt(this.#ids, object * ID_BYTES) & mask;
    while (this.#table[slot] !== 0) slot = (slot + 1) & mask;
    this.#table[slot] = object + 1;
  }

  #grow(objects: number): void {
    if (objects > this.#depths.length) {
      const capacity = Math.max(objects + 64, Math.ceil(this.#depths.length * GROWTH));
      this.#ids = enlarged(this.#ids, new Uint8Array(capacity * ID_BYTES));
      this.#depths = enlarged(this.#depths, new Uint8Array(capacity));
      this.#frameOf = enlarged(this.#frameOf, new Uint32Array(capacity));
      this.#baseAt = enlarged(this.#baseAt, new Uint32Array(capacity));
    }
    if (objects * 4 <= this.#table.length * 3) return;
    this.#table = new Uint32Array(2 ** Math.ceil(Math.log2((objects * 4) / 3 + 1)));
    for (let object = 0; object < this.#count; object++) this.#insert(object);
  }

  #growBases(bases: number): void {
    if (bases * BASE_ID_BYTES <= this.#bases.length) return;
    const capacity = Math.max(
      bases + SPARE_OBJECTS,
      Math.ceil((this.#bases.length / BASE_ID_BYTES) * GROWTH),
    );
    this.#bases = enlarged(this.#bases, new Uint8Array(capacity * BASE_ID_BYTES));
  }
}

function enlarged<T extends Uint8Array | Uint32Array>(from: T, to: T): T {
  to.set(from);
  return to;
}

/** The first four bytes: ids are hashes already. */
function hashAt(id: Uint8Array, at: number): number {
  return (
    ((id[at] as number) |
      ((id[at + 1] as number) << 8) |
      ((id[at + 2] as number) << 16) |
      ((id[at + 3] as number) << 24)) >>>
    0
  );
}
