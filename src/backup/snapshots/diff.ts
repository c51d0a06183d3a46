import { DatabaseReader } from '../../sqlite/database-reader.ts';
import { makeLocalCopy } from './local-copy.ts';
import { childCountOf, nodeCountOf, NODE_FANOUT, rootLevelOf } from '../packs/node.ts';
import { ID_BYTES, sameBytes } from '../packs/object-id.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import { SnapshotTree } from './snapshot-tree.ts';
import type { SnapshotDiff, StoreCallOptions, StoreSnapshot } from '../types.ts';

export interface DiffOptions extends StoreCallOptions {
  /** True to list which tables and indexes differ; it restores both snapshots to temporary files. */
  readonly owners?: boolean | undefined;
}

/** Compares two stored snapshots. Throws SqlsyncError STORE_*, INTERRUPTED. */
export async function diffSnapshots(
  reader: ObjectReader,
  a: StoreSnapshot,
  b: StoreSnapshot,
  options: DiffOptions = {},
): Promise<SnapshotDiff> {
  const pages = a.pageSize === b.pageSize ? differingPages(reader, a, b) : allPages(a, b);
  const objects =
    options.owners === true && pages.length > 0 ? await owners(reader, [a, b], pages, options) : [];
  return { differingPages: toRanges(pages), pagesInA: a.pageCount, pagesInB: b.pageCount, objects };
}

/** With different page sizes no page equals another. */
function allPages(a: StoreSnapshot, b: StoreSnapshot): number[] {
  return Array.from({ length: Math.max(a.pageCount, b.pageCount) }, (_, i) => i + 1);
}

/** Page numbers that differ or exist on one side only, ascending: trees of equal parts have equal nodes. */
function differingPages(reader: ObjectReader, a: StoreSnapshot, b: StoreSnapshot): number[] {
  const treeOfA = new SnapshotTree(reader, a);
  const treeOfB = new SnapshotTree(reader, b);
  const pages: number[] = [];
  const visit = (level: number, index: number): void => {
    const idsOfA = idsAt(treeOfA, level, index);
    const idsOfB = idsAt(treeOfB, level, index);
    for (let child = 0; child * ID_BYTES < Math.max(idsOfA.length, idsOfB.length); child++) {
      const at = child * ID_BYTES;
      const isInBoth = at < idsOfA.length && at < idsOfB.length;
      if (isInBoth && sameBytes(idsOfA, idsOfB, ID_BYTES, at, at)) continue;
      const below = index * NODE_FANOUT + child;
      if (level === 0) pages.push(below + 1);
      else visit(level - 1, below);
    }
  };
  const top = Math.max(rootLevelOf(a.pageCount), rootLevelOf(b.pageCount));
  visit(top, 0);
  return pages;
}

/** The ids of a node's children; on a level above a tree's root, as if the root had one parent. */
function idsAt(tree: SnapshotTree, level: number, index: number): Uint8Array {
  if (tree.pageCount === 0 || index >= Math.max(1, nodeCountOf(tree.pageCount, level)))
    return new Uint8Array(0);
  if (level <= tree.rootLevel)
    return tree.childIds(level, index).subarray(0, childCountOf(tree.pageCount, level, index) * ID_BYTES);
  return level === tree.rootLevel + 1 ? tree.nodeId(tree.rootLevel, 0) : new Uint8Array(ID_BYTES);
}

async function owners(
  reader: ObjectReader,
  [a, b]: readonly [StoreSnapshot, StoreSnapshot],
  pages: readonly number[],
  options: StoreCallOptions,
): Promise<SnapshotDiff['objects']> {
  const wanted = new Set(pages);
  const inA = await ownersIn(reader, a, wanted, options);
  const inB = await ownersIn(reader, b, wanted, options);
  const names = new Set([...inA.keys(), ...inB.keys()]);
  const objects = [...names].map((name) => ({
    name,
    pagesInA: inA.get(name) ?? 0,
    pagesInB: inB.get(name) ?? 0,
  }));
  return objects.sort((x, y) => Math.max(y.pagesInA, y.pagesInB) - Math.max(x.pagesInA, x.pagesInB));
}

async function ownersIn(
  reader: ObjectReader,
  snapshot: StoreSnapshot,
  wanted: ReadonlySet<number>,
  options: StoreCallOptions,
): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  if (snapshot.pageCount === 0) return counts;
  const copy = await makeLocalCopy(reader, snapshot, options);
  try {
    const database = new DatabaseReader(copy.path, { immutable: true });
    try {
      let free = [...wanted].filter((page) => page <= snapshot.pageCount).length;
      for (const { page, name } of database.pageOwners()) {
        if (!wanted.has(page)) continue;
        counts.set(name, (counts.get(name) ?? 0) + 1);
        free--;
      }
      if (free > 0) counts.set('(free)', free);
    } finally {
      database.close();
    }
  } finally {
    copy.remove();
  }
  return counts;
}

function toRanges(ascending: readonly number[]): [number, number][] {
  const ranges: [number, number][] = [];
  for (const page of ascending) {
    const last = ranges.at(-1);
    if (last !== undefined && last[1] === page - 1) last[1] = page;
    else ranges.push([page, page]);
  }
  return ranges;
}
