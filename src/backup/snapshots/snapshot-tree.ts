import { SqlsyncError } from '../../errors.ts';
import { lockBytePage } from '../../pages/page-types.ts';
import type { PageSize } from '../../pages/page-types.ts';
import { childCountOf, nodeIds, nodeLevel, NODE_FANOUT, rootLevelOf } from '../packs/node.ts';
import { ID_BYTES, fromHex, NO_PAGE, sameBytes, toHex } from '../packs/object-id.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import { damaged } from '../store-error.ts';

/** The root and the size of a tree. */
export interface TreeShape {
  readonly pageSize: number;
  readonly pageCount: number;
  /** Id of the root node; undefined for a database without pages. */
  readonly root: string | undefined;
}

/** How many nodes of the lowest level are kept; the reader keeps more. */
const MAX_KEPT_LEAVES = 256;

/** The tree of one stored snapshot: the id of each page. */
export class SnapshotTree {
  readonly pageCount: number;
  readonly rootLevel: number;
  readonly #reader: ObjectReader;
  readonly #root: Uint8Array;
  /** By level and index: the ids of a node's children. */
  readonly #nodes: Map<number, Uint8Array>[] = [];

  constructor(reader: ObjectReader, shape: TreeShape) {
    this.#reader = reader;
    this.pageCount = shape.pageCount;
    this.rootLevel = rootLevelOf(shape.pageCount);
    if ((shape.root === undefined) !== (shape.pageCount === 0)) {
      throw new SqlsyncError('STORE_DAMAGED', 'A snapshot has a root that does not fit its size', {
        hint: 'A faulty program wrote its record: restore another snapshot.',
      });
    }
    this.#root = shape.root === undefined ? NO_PAGE : fromHex(shape.root);
    for (let level = 0; level <= this.rootLevel; level++) this.#nodes.push(new Map());
  }

  /** The id of a page, from 1; a view. */
  pageId(page: number): Uint8Array {
    const slot = (page - 1) % NODE_FANOUT;
    return this.childIds(0, Math.floor((page - 1) / NODE_FANOUT)).subarray(
      slot * ID_BYTES,
      (slot + 1) * ID_BYTES,
    );
  }

  /** The id of a node; a view. */
  nodeId(level: number, index: number): Uint8Array {
    if (level === this.rootLevel) return this.#root;
    const slot = index % NODE_FANOUT;
    return this.childIds(level + 1, Math.floor(index / NODE_FANOUT)).subarray(
      slot * ID_BYTES,
      (slot + 1) * ID_BYTES,
    );
  }

  /** The ids of a node's children, one after another; a view. Throws SqlsyncError STORE_*. */
  childIds(level: number, index: number): Uint8Array {
    const kept = this.#nodes[level] as Map<number, Uint8Array>;
    const known = kept.get(index);
    if (known !== undefined) return known;
    const id = this.nodeId(level, index);
    const node = this.#reader.readNode(id);
    const ids = nodeIds(node);
    if (nodeLevel(node) !== level || ids.length !== childCountOf(this.pageCount, level, index) * ID_BYTES)
      throw damaged(
        'snapshots',
        `name the node ${toHex(id)}, which is of no tree of ${this.pageCount} pages`,
      );
    if (level === 0 && kept.size >= MAX_KEPT_LEAVES) kept.delete(kept.keys().next().value as number);
    kept.set(index, ids);
    return ids;
  }
}

/** Visits the nodes of a tree from the root, and the ids of pages below the nodes that it enters. */
export interface TreeVisitor {
  /** Called with every node's id before the node is read; returns false to skip it with everything below. */
  readonly enterNode: (id: Uint8Array) => boolean;
  /** Called after everything below a node that was entered. */
  readonly leaveNode?: (() => void) | undefined;
  /** Called with every page's id, a view, except the lock-byte page's. */
  readonly page: (id: Uint8Array) => void;
  /** Called instead of an error if a node cannot be read, with the number of pages that it stands for. */
  readonly unreadable?: ((pages: number) => void) | undefined;
}

/** Throws SqlsyncError STORE_* if a node cannot be read and the visitor has no `unreadable`. */
export function walkTree(reader: ObjectReader, shape: TreeShape, visitor: TreeVisitor): void {
  const tree = new SnapshotTree(reader, shape);
  if (shape.pageCount === 0) return;
  const locked = lockBytePage(shape.pageSize as PageSize);
  const visit = (level: number, index: number): void => {
    if (!visitor.enterNode(tree.nodeId(level, index))) return;
    visitBelow(level, index);
    visitor.leaveNode?.();
  };
  const visitBelow = (level: number, index: number): void => {
    const pagesPerChild = NODE_FANOUT ** level;
    let ids: Uint8Array;
    try {
      ids = tree.childIds(level, index);
    } catch (error) {
      if (visitor.unreadable === undefined) throw error;
      const before = index * pagesPerChild * NODE_FANOUT;
      return visitor.unreadable(Math.min(shape.pageCount - before, pagesPerChild * NODE_FANOUT));
    }
    for (let child = 0; child * ID_BYTES < ids.length; child++) {
      const below = index * NODE_FANOUT + child;
      if (level > 0) visit(level - 1, below);
      else if (below + 1 !== locked || !sameBytes(ids, NO_PAGE, ID_BYTES, child * ID_BYTES))
        visitor.page(ids.subarray(child * ID_BYTES, (child + 1) * ID_BYTES));
    }
  };
  visit(tree.rootLevel, 0);
}
