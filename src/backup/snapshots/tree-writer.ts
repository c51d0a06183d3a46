import { encodeNode, nodeCountOf, nodeIds, childCountOf, NODE_FANOUT, rootLevelOf } from '../packs/node.ts';
import { BASE_ID_BYTES, ID_BYTES, idOf, sameBytes, toHex } from '../packs/object-id.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import type { PackWriter } from '../objects/pack-writer.ts';
import type { SnapshotTree } from './snapshot-tree.ts';

/** The most deltas on deltas for one node; each costs a reader some microseconds. */
export const MAX_NODE_DEPTH = 32;

/** Where a leaf has no id yet. */
const NO_ID = new Uint8Array(ID_BYTES);

/** A node is written whole if more than this part of it changed. */
const WHOLE_NODE_RATIO = 0.75;

/**
 * The tree of a new snapshot: the parent's, with the ids of changed pages. Takes ids in any order, then writes the
 * nodes that are not in the store yet.
 */
export class TreeWriter {
  readonly #pageCount: number;
  readonly #parent: SnapshotTree | undefined;
  readonly #reader: ObjectReader;
  /** Leaves with changed pages, by index: the ids of all their pages. */
  readonly #leaves = new Map<number, Uint8Array>();

  constructor(pageCount: number, parent: SnapshotTree | undefined, reader: ObjectReader) {
    this.#pageCount = pageCount;
    this.#parent = parent;
    this.#reader = reader;
  }

  /** The parent's id of a page; a view. undefined if it has no such page. */
  parentId(page: number): Uint8Array | undefined {
    return this.#parent === undefined || page > this.#parent.pageCount
      ? undefined
      : this.#parent.pageId(page);
  }

  /** Returns true if this changes the page, and no earlier call has. */
  setPage(page: number, id: Uint8Array): boolean {
    const index = Math.floor((page - 1) / NODE_FANOUT);
    let leaf = this.#leaves.get(index);
    if (leaf === undefined) {
      leaf = this.#inherited(index);
      this.#leaves.set(index, leaf);
    }
    const at = ((page - 1) % NODE_FANOUT) * ID_BYTES;
    const known = this.parentId(page) ?? NO_ID;
    const isFirst = sameBytes(leaf.subarray(at, at + ID_BYTES), known) && !sameBytes(id, known);
    leaf.set(id, at);
    return isFirst;
  }

  /** Writes all new nodes; returns the root's id, undefined for a database without pages. */
  write(writer: PackWriter): string | undefined {
    if (this.#pageCount === 0) return undefined;
    const top = rootLevelOf(this.#pageCount);
    let below: Uint8Array = new Uint8Array(0);
    for (let level = 0; level <= top; level++) {
      const count = nodeCountOf(this.#pageCount, level);
      const ids = new Uint8Array(count * ID_BYTES);
      for (let index = 0; index < count; index++) {
        const children =
          level === 0
            ? this.#leafIds(index)
            : below.subarray(
                index * NODE_FANOUT * ID_BYTES,
                (index * NODE_FANOUT + childCountOf(this.#pageCount, level, index)) * ID_BYTES,
              );
        ids.set(
          children === undefined
            ? (this.#parent as SnapshotTree).nodeId(0, index)
            : this.#writeNode(writer, level, index, children),
          index * ID_BYTES,
        );
      }
      below = ids;
    }
    return toHex(below);
  }

  /** The ids of a leaf's pages; undefined if they are the parent's. */
  #leafIds(index: number): Uint8Array | undefined {
    const leaf = this.#leaves.get(index);
    if (leaf !== undefined) return leaf;
    const parent = this.#parent;
    if (parent === undefined) return this.#inherited(index);
    const isSame =
      nodeCountOf(parent.pageCount, 0) > index &&
      childCountOf(parent.pageCount, 0, index) === childCountOf(this.#pageCount, 0, index);
    return isSame ? undefined : this.#inherited(index);
  }

  /** A leaf as far as the parent has it; the rest is the lock-byte page, or will be set. */
  #inherited(index: number): Uint8Array {
    const ids = new Uint8Array(childCountOf(this.#pageCount, 0, index) * ID_BYTES);
    const parent = this.#parent;
    if (parent !== undefined && index < nodeCountOf(parent.pageCount, 0))
      ids.set(parent.childIds(0, index).subarray(0, ids.length));
    return ids;
  }

  #writeNode(writer: PackWriter, level: number, index: number, children: Uint8Array): Uint8Array {
    const id = idOf(encodeNode(level, children));
    if (this.#reader.isStored(id, this.#isParents(level, index, id))) return id;
    const childCount = children.length / ID_BYTES;
    const base = this.#baseFor(level, index, children);
    if (base === undefined) {
      writer.addNode(id, { level, childCount, ids: children.slice(), delta: undefined }, 0);
    } else {
      const { bitmap, ids } = differences(base.ids, children);
      const delta = { base: base.id.slice(0, BASE_ID_BYTES), bitmap };
      writer.addNode(id, { level, childCount, ids, delta }, base.depth + 1);
    }
    return id;
  }

  #isParents(level: number, index: number, id: Uint8Array): boolean {
    const parent = this.#parent;
    if (parent === undefined || level > parent.rootLevel || index >= nodeCountOf(parent.pageCount, level))
      return false;
    return sameBytes(parent.nodeId(level, index), id);
  }

  /** The node against which to write the new one as a delta; undefined if it is better written whole. */
  #baseFor(
    level: number,
    index: number,
    children: Uint8Array,
  ): { id: Uint8Array; ids: Uint8Array; depth: number } | undefined {
    const parent = this.#parent;
    if (parent === undefined || level > parent.rootLevel || index >= nodeCountOf(parent.pageCount, level))
      return undefined;
    let id = parent.nodeId(level, index);
    let ids = parent.childIds(level, index);
    const { reliesOnParent } = this.#reader;
    let object = this.#reader.usable(id, reliesOnParent);
    if (!reliesOnParent && object !== undefined && this.#reader.index.depthOf(object) >= MAX_NODE_DEPTH) {
      id = this.#reader.rootOf(id);
      ids = nodeIds(this.#reader.readNode(id));
      object = this.#reader.usable(id);
    }
    if (object === undefined || this.#reader.index.depthOf(object) >= MAX_NODE_DEPTH) return undefined;
    const { ids: changed } = differences(ids, children);
    if (changed.length > children.length * WHOLE_NODE_RATIO) return undefined;
    return { id, ids, depth: this.#reader.index.depthOf(object) };
  }
}

/** Which children differ from those of the base, or do not exist there. */
function differences(base: Uint8Array, children: Uint8Array): { bitmap: Uint8Array; ids: Uint8Array } {
  const bitmap = new Uint8Array(NODE_FANOUT / 8);
  const ids: Uint8Array[] = [];
  for (let at = 0, child = 0; at < children.length; at += ID_BYTES, child++) {
    if (at < base.length && sameBytes(base, children, ID_BYTES, at, at)) continue;
    bitmap[child >> 3] = (bitmap[child >> 3] as number) | (1 << (child & 7));
    ids.push(children.subarray(at, at + ID_BYTES));
  }
  return { bitmap, ids: new Uint8Array(Buffer.concat(ids)) };
}
