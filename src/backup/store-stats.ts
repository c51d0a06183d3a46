import { STORE_FOLDERS } from './backends/backend.ts';
import { walkTree } from './snapshots/snapshot-tree.ts';
import { throwIfAborted } from './store-error.ts';
import type { StoreAccess } from './files/store-files.ts';
import { withLists } from './files/store-lists.ts';
import type { StoreLists } from './files/store-lists.ts';
import type { StoreCallOptions, StoreStats } from './types.ts';

/** Throws SqlsyncError STORE_*, INTERRUPTED. */
export function storeStats(access: StoreAccess, options: StoreCallOptions): Promise<StoreStats> {
  return withLists(access, {}, (lists) => statsOf(access, lists, options));
}

async function statsOf(
  access: StoreAccess,
  { snapshots, contents: { index, reader, packFiles } }: StoreLists,
  options: StoreCallOptions,
): Promise<StoreStats> {
  const seen = new Uint8Array(index.objectCount);
  let rawBytes = 0;
  let uniqueBytes = 0;
  for (const [done, snapshot] of snapshots.entries()) {
    throwIfAborted(options.signal);
    options.onProgress?.({ phase: 'read', done, total: snapshots.length });
    rawBytes += snapshot.pageCount * snapshot.pageSize;
    const isNew = (id: Uint8Array): boolean => {
      const object = index.numberOf(id);
      if (object === -1 || seen[object] === 1) return false;
      seen[object] = 1;
      return true;
    };
    walkTree(reader, snapshot, {
      enterNode: isNew,
      page: (id) => {
        if (isNew(id)) uniqueBytes += snapshot.pageSize;
      },
    });
  }
  let storedBytes = 0;
  for (const folder of STORE_FOLDERS)
    for (const { bytes } of await access.backend.list(folder)) storedBytes += bytes;
  return {
    snapshots: snapshots.length,
    databases: new Set(snapshots.map(({ host, path }) => `${host}\0${path}`)).size,
    rawBytes,
    uniqueBytes,
    storedBytes,
    packs: packFiles.size,
    objects: index.objectCount,
    ratio: storedBytes === 0 ? 0 : rawBytes / storedBytes,
  };
}
