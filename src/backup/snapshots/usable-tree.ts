import { toHex } from '../packs/object-id.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import { walkTree } from './snapshot-tree.ts';
import type { StoreContents } from '../files/store-files.ts';
import type { TreeShape } from './snapshot-tree.ts';

/**
 * The first object of a tree that something new may not rely on, because it or a base is only in packs that are marked,
 * missing or cut; as 64 hexadecimal digits. undefined if the whole tree is usable.
 */
export function firstUnusable(
  reader: ObjectReader,
  shape: TreeShape,
  isThere: (id: Uint8Array) => boolean = (id) => reader.usable(id) !== undefined,
): string | undefined {
  let found: string | undefined;
  const check = (id: Uint8Array): boolean => {
    if (found !== undefined) return false;
    if (!isThere(id)) found = toHex(id);
    return found === undefined;
  };
  try {
    walkTree(reader, shape, { enterNode: check, page: check });
  } catch {
    return shape.root;
  }
  return found;
}

/**
 * True if an index names every pack and every pack is trusted, so that no tree needs a look. A pack without an index
 * may be the remainder of a lost index.
 */
export function allUsable({ index, packFiles }: Pick<StoreContents, 'index' | 'packFiles'>): boolean {
  return (
    [...packFiles.keys()].every((id) => index.packs.has(id)) &&
    [...index.packs.values()].every(({ trusted }) => trusted)
  );
}
