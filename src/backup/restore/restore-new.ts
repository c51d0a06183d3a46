import { parseHeader } from '../../pages/header.ts';
import { removeOwnLeftovers } from '../../beside/leftovers.ts';
import { NewReplica } from '../../replica/new/new-replica.ts';
import type { BeforePublish } from '../../replica/new/new-replica.ts';
import { inspectReplica } from '../../replica/open-replica.ts';
import { hostName } from '../../files/machine.ts';
import type { SinkTarget } from '../../pages/page-source.ts';
import { CopyReport } from '../../sync/local/copy-report.ts';
import { ReplicaMovedError } from '../../replica/replica-error.ts';
import { DEFAULT_BUSY_TIMEOUT_MS } from '../../sync/runs/run-options.ts';
import type { RestoreOptions } from '../options.ts';
import type { StoredOrigin } from '../snapshots/stored-origin.ts';
import { damaged, throwIfAborted } from '../store-error.ts';
import type { StoreSnapshot } from '../types.ts';

/**
 * Restores to a new file on this host. There is nothing to compare with, and each page is checked against its id, so a
 * second agent would only cost time. Returns false without doing anything if something is already there, even if only
 * what an interrupted run left. Throws SqlsyncError STORE_*, REPLICA_*, BUSY, INTERRUPTED; the file then does not
 * exist.
 *
 * @param path - absolute.
 */
export async function restoreNew(
  source: StoredOrigin,
  snapshot: StoreSnapshot,
  path: string,
  options: RestoreOptions & {
    readonly onSinkWarning: (warning: string) => void;
    /** If set, all pages are written, even over what an interrupted run left. */
    readonly beforePublish?: BeforePublish | undefined;
  },
): Promise<boolean> {
  const { signal, followLinks = false, beforePublish } = options;
  const isSalvage = beforePublish !== undefined;
  if (source.pageCount === 0) return false;
  const place = inspectReplica(path, { dryRun: false, followLinks });
  if (place.file !== undefined || (place.hasOldPages && !isSalvage)) return false;
  const { pageSize: size, pageCount: pages } = source;
  const target = { pageSize: size, pageCount: pages, fileMode: snapshot.fileMode, ...originOf(snapshot) };
  const busyTimeoutMs = options.busyTimeoutMs ?? DEFAULT_BUSY_TIMEOUT_MS;
  const sink = await openUnlessMade(place.path, target, {
    busyTimeoutMs,
    signal,
    mark: undefined,
    beforePublish,
    replaces: undefined,
  });
  if (sink === undefined) return false;
  try {
    // Another run may have begun here and ended since we looked.
    if (sink.resumed && !isSalvage) {
      await sink.abort();
      return false;
    }
    await copyAll(source, sink, snapshot, { ...options, isSalvage });
    throwIfAborted(signal);
    await sink.commit();
  } catch (error) {
    await sink.abort();
    throw error;
  }
  removeOwnLeftovers(place.path);
  for (const warning of [...place.warnings, ...sink.warnings]) options.onSinkWarning(warning);
  return true;
}

/** The owner, if the snapshot is from this host: user ids of another host may be other users here. */
function originOf({ fileOwner, path }: StoreSnapshot): Pick<SinkTarget, 'fileOwner' | 'originPath'> {
  return fileOwner?.host === hostName() ? { fileOwner, originPath: path } : {};
}

/** undefined if another run has made the file meanwhile. */
async function openUnlessMade(...args: Parameters<typeof NewReplica.open>): Promise<NewReplica | undefined> {
  try {
    return await NewReplica.open(...args);
  } catch (error) {
    if (error instanceof ReplicaMovedError) return undefined;
    throw error;
  }
}

async function copyAll(
  source: StoredOrigin,
  sink: NewReplica,
  snapshot: StoreSnapshot,
  { signal, onProgress, isSalvage }: RestoreOptions & { readonly isSalvage: boolean },
): Promise<void> {
  const { pageSize } = source;
  const report = new CopyReport(source, onProgress);
  // A salvage goes on where the tree cannot be read.
  if (!isSalvage) source.readsInOrder();
  await sink.copyFrom(source, {
    onRun(first, bytes) {
      throwIfAborted(signal);
      if (first === 1 && !isSalvage && parseHeader(bytes)?.pageSize !== pageSize)
        throw damaged(
          `snapshots/${snapshot.id}`,
          `names a page 1 that is not that of a database with pages of ${pageSize} bytes`,
        );
      report.run(first, bytes);
    },
  });
  report.end();
}
