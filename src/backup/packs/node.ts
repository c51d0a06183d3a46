import { ID_BYTES } from './object-id.ts';

/** Children of a node of a snapshot's tree. */
export const NODE_FANOUT = 64;

const HEADER_BYTES = 2;

/** The bytes of a node; its id is their hash. `ids` are at most `NODE_FANOUT`, one after another. */
export function encodeNode(level: number, ids: Uint8Array): Uint8Array {
  const node = new Uint8Array(HEADER_BYTES + ids.length);
  node[0] = level;
  node[1] = ids.length / ID_BYTES;
  node.set(ids, HEADER_BYTES);
  return node;
}

export function nodeLevel(node: Uint8Array): number {
  return node[0] as number;
}

/** The ids of a node's children, one after another; a view. */
export function nodeIds(node: Uint8Array): Uint8Array {
  return node.subarray(HEADER_BYTES);
}

/** The number of nodes of a level in the tree of a database of `pageCount` pages; level 0 stands above the pages. */
export function nodeCountOf(pageCount: number, level: number): number {
  return Math.ceil(pageCount / NODE_FANOUT ** (level + 1));
}

/** The level of the root. */
export function rootLevelOf(pageCount: number): number {
  let level = 0;
  while (nodeCountOf(pageCount, level) > 1) level++;
  return level;
}

/** The number of children of one node. */
export function childCountOf(pageCount: number, level: number, index: number): number {
  const below = level === 0 ? pageCount : nodeCountOf(pageCount, level - 1);
  return Math.min(NODE_FANOUT, below - index * NODE_FANOUT);
}
