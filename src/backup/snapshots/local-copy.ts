import { closeSync, fsyncSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { copyPages } from '../../pages/copy-pages.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import { SnapshotSource } from './snapshot-source.ts';
import { makeTemporaryFolder, temporaryError } from '../../beside/temporary-folder.ts';
import { throwIfAborted } from '../store-error.ts';
import type { StoreCallOptions, StoreSnapshot } from '../types.ts';

/** A copy of a snapshot in a separate folder. */
export interface LocalCopy {
  /** Absolute path of the database; no other file lies beside it. */
  readonly path: string;
  remove(): void;
}

/**
 * Writes a snapshot to a temporary file of this host, to query or check it. The caller removes it. Throws SqlsyncError
 * STORE_*, TEMP_UNAVAILABLE, INTERRUPTED.
 *
 * @param parent - where the temporary folder is made; by default the system's.
 */
export async function makeLocalCopy(
  reader: ObjectReader,
  snapshot: StoreSnapshot,
  options: StoreCallOptions = {},
  parent?: string,
): Promise<LocalCopy> {
  const bytes = snapshot.pageCount * snapshot.pageSize;
  const folder = makeTemporaryFolder(bytes, parent);
  try {
    const path = join(folder.path, 'snapshot.db');
    await writeTo(path, reader, snapshot, options);
    return { path, remove: () => folder.remove() };
  } catch (error) {
    folder.remove();
    throw temporaryError(error, bytes, parent);
  }
}

async function writeTo(
  path: string,
  reader: ObjectReader,
  snapshot: StoreSnapshot,
  { signal, onProgress }: StoreCallOptions,
): Promise<void> {
  const source = new SnapshotSource(reader, snapshot);
  source.readsInOrder();
  const descriptor = openSync(path, 'wx+', 0o600);
  try {
    await copyPages(source, descriptor, {
      onRun(first) {
        throwIfAborted(signal);
        onProgress?.({ phase: 'read', done: first - 1, total: source.pageCount });
      },
    });
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
