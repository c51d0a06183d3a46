import type { StoreCallOptions, StoreSnapshot } from '../../backup/types.ts';
import type { Output } from '../terminal/output.ts';
import { chooseSnapshot, parseSnapshotReference } from './snapshot-choice.ts';
import type { FilterArguments } from './snapshot-choice.ts';
import { storeAccessOf } from './store-password.ts';
import type { AccessArguments } from './store-password.ts';
import { openStoreAt } from './store-command.ts';

/**
 * Runs `work` with a temporary copy, at `path`, of the snapshot that `reference` (`STORE[#WHICH]`) names. Throws
 * SqlsyncError.
 */
export async function withSnapshotCopy<T>(
  reference: string,
  filter: FilterArguments & AccessArguments,
  output: Output,
  options: StoreCallOptions,
  work: (path: string, snapshot: StoreSnapshot) => Promise<T>,
): Promise<T> {
  const { store: folder, which } = parseSnapshotReference(reference);
  const store = await openStoreAt(folder, storeAccessOf(filter, folder, output, options.signal));
  const all = await store.snapshots({ onWarning: (warning) => output.warning(warning) });
  const snapshot = chooseSnapshot(all, which, filter, (warning) => output.warning(warning));
  const copy = await store.localCopy(snapshot, options);
  try {
    return await work(copy.path, snapshot);
  } finally {
    copy.remove();
  }
}
