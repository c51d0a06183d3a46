import { NODE_FANOUT, nodeIds, nodeLevel } from '../packs/node.ts';
import { BASE_ID_BYTES, ID_BYTES, toHex } from '../packs/object-id.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import type { PackWriter } from '../objects/pack-writer.ts';
import { walkTree } from '../snapshots/snapshot-tree.ts';
import type { TreeShape } from '../snapshots/snapshot-tree.ts';
import { damaged, throwIfAborted } from '../store-error.ts';
import type { StoreCallOptions } from '../types.ts';
import { MAX_PAGE_DEPTH } from './store-sink.ts';
import { MAX_NODE_DEPTH } from '../snapshots/tree-writer.ts';

/** Objects between two looks at the writer: pages of 4 KiB of one frame. */
const OBJECTS_PER_STEP = 256;

/** No page has so few bytes. */
const NODE = 1;

/**
 * Copies what snapshots of one store need, and another store lacks. A delta stays a delta if the other store has its
 * base by then; otherwise the object becomes whole. Each is checked against its id before it is written.
 */
export class ObjectCopy {
  readonly #from: ObjectReader;
  readonly #to: ObjectReader;
  readonly #writer: PackWriter;
  /** By the number of an object in the source, once its id was met: `NODE`, or the binary logarithm of the page size. */
  readonly #seen: Uint8Array;
  #missing: number[] = [];

  constructor(from: ObjectReader, to: ObjectReader, writer: PackWriter) {
    this.#from = from;
    this.#to = to;
    this.#writer = writer;
    this.#seen = new Uint8Array(from.index.objectCount);
  }

  /** Adds what a snapshot needs. Throws SqlsyncError STORE_* if the source lacks some of it. */
  need(shape: TreeShape): void {
    const meet = (id: Uint8Array, kind: number): boolean => {
      const object = this.#from.index.bestCopy(id);
      if (object === -1)
        throw damaged('indexes', `do not name the object ${toHex(id)}, which a snapshot needs`);
      if (this.#seen[object] !== 0) return false;
      this.#seen[object] = kind;
      if (this.#to.usable(id) === undefined) this.#missing.push(object);
      // Also below a node that is there: nothing proves that its children are.
      return true;
    };
    const page = Math.log2(shape.pageSize);
    walkTree(this.#from, shape, { enterNode: (id) => meet(id, NODE), page: (id) => meet(id, page) });
  }

  /** Writes what is missing to packs; the caller finishes the writer. Throws SqlsyncError STORE_*, INTERRUPTED. */
  async run({ signal, onProgress }: StoreCallOptions): Promise<void> {
    const { index } = this.#from;
    // Bases before their deltas, and in the order of their packs.
    const objects = this.#missing.toSorted((a, b) => index.depthOf(a) - index.depthOf(b) || a - b);
    this.#missing = [];
    for (const [done, object] of objects.entries()) {
      if (done % OBJECTS_PER_STEP === 0) {
        throwIfAborted(signal);
        onProgress?.({ phase: 'write', done, total: objects.length });
        await this.#writer.ready();
      }
      this.#copy(object);
    }
  }

  #copy(object: number): void {
    const { index } = this.#from;
    const id = index.idOf(object).slice();
    const kind = this.#seen[object] as number;
    const frame = this.#from.readFrameOrNothing(index.frameNumberOf(object));
    const isIntact = frame !== undefined && (frame.kind === 'nodes') === (kind === NODE);
    if (!isIntact || !this.#from.isRight(object)) return this.#copyWhole(id, kind);
    const place = index.placeOf(object);
    const base = frame.baseOf(place);
    const depth = base === undefined ? 0 : this.#depthOn(base, index.depthOf(object));
    if (depth === undefined || depth > (kind === NODE ? MAX_NODE_DEPTH : MAX_PAGE_DEPTH))
      return this.#copyWhole(id, kind);
    if (frame.kind === 'pages') this.#writer.addPage(id, frame.object(place), depth, frame.pageSize);
    else this.#writer.addNode(id, frame.object(place), depth);
  }

  /** The depth that a delta on this base has in the other store; undefined if that has no usable copy of the base. */
  #depthOn(base: Uint8Array, depth: number): number | undefined {
    const known = this.#from.index.copies(base.slice(0, BASE_ID_BYTES), depth)[0];
    const there = known === undefined ? undefined : this.#to.usable(this.#from.index.idOf(known).slice());
    return there === undefined ? undefined : this.#to.index.depthOf(there) + 1;
  }

  /** From any copy that is right, if this one is damaged. */
  #copyWhole(id: Uint8Array, kind: number): void {
    if (kind === NODE) this.#copyNode(id);
    else this.#copyPage(id, 2 ** kind);
  }

  #copyPage(id: Uint8Array, pageSize: number): void {
    const data = new Uint8Array(pageSize);
    this.#from.readPage(id, data);
    this.#writer.addPage(id, { page: { bitmap: undefined, data }, base: undefined }, 0, pageSize);
  }

  #copyNode(id: Uint8Array): void {
    const node = this.#from.readNode(id).slice();
    const ids = nodeIds(node);
    if (ids.length % ID_BYTES !== 0 || ids.length > NODE_FANOUT * ID_BYTES)
      throw damaged('indexes', `name the object ${toHex(id)} as a node, which it is not`);
    const whole = { level: nodeLevel(node), childCount: ids.length / ID_BYTES, ids, delta: undefined };
    this.#writer.addNode(id, whole, 0);
  }
}
