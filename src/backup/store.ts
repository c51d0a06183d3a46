import { checkStore } from './check.ts';
import { encodeChecked } from './checked-json.ts';
import { diffSnapshots } from './diff.ts';
import type { DiffOptions } from './diff.ts';
import { findSnapshot } from './find-snapshot.ts';
import { makeLocalCopy } from './local-copy.ts';
import type { LocalCopy } from './local-copy.ts';
import { isHexId } from './object-id.ts';
import { initStoreFolder, openStoreFolder } from './open-store.ts';
import type { InitOptions } from './config.ts';
import { pruneStore } from './prune.ts';
import { loadContents, loadSnapshots } from './store-files.ts';
import type { StoreAccess } from './store-files.ts';
import { storeStats } from './store-stats.ts';
import type {
  CheckOptions,
  CheckSummary,
  ForgetSummary,
  PruneOptions,
  PruneSummary,
  SnapshotDiff,
  Store,
  StoreCallOptions,
  StoreSnapshot,
  StoreStats,
} from './types.ts';

/** Makes an empty store in a folder, which may exist, and opens it. Throws SqlsyncError STORE_EXISTS, STORE_UNAVAILABLE. */
export async function initStore(folder: string, options: InitOptions = {}): Promise<Store> {
  return new OpenStore(await initStoreFolder(folder, options));
}

/** Opens the store in a folder. Throws SqlsyncError STORE_NOT_FOUND, STORE_VERSION, STORE_DAMAGED, STORE_UNAVAILABLE. */
export async function openStore(folder: string): Promise<Store> {
  return new OpenStore(await openStoreFolder(folder));
}

/** A store on any backend. */
export class OpenStore implements Store {
  readonly description: string;
  readonly id: string;
  readonly #access: StoreAccess;

  constructor(access: StoreAccess) {
    this.#access = access;
    this.description = access.backend.description;
    this.id = access.config.id;
  }

  snapshots(options: { readonly onWarning?: (warning: string) => void } = {}): Promise<StoreSnapshot[]> {
    return loadSnapshots(this.#access, (_, error) => options.onWarning?.(error.message));
  }

  async find(prefix: string): Promise<StoreSnapshot> {
    return findSnapshot(await this.snapshots(), prefix, this.description);
  }

  async forget(ids: readonly string[]): Promise<ForgetSummary> {
    const { backend, sealer } = this.#access;
    const there = new Set((await backend.list('snapshots')).map(({ name }) => name));
    const forgotten: string[] = [];
    for (const id of ids) {
      if (!isHexId(id) || !there.has(id)) continue;
      const record = sealer.seal('forgotten', encodeChecked({ version: 1, time: new Date().toISOString() }));
      await backend.put(`forgotten/${id}`, [record]);
      await backend.delete(`snapshots/${id}`);
      forgotten.push(id);
    }
    return { forgotten };
  }

  prune(options: PruneOptions = {}): Promise<PruneSummary> {
    return pruneStore(this.#access, options);
  }

  check(options: CheckOptions = {}): Promise<CheckSummary> {
    return checkStore(this.#access, options);
  }

  stats(options: StoreCallOptions = {}): Promise<StoreStats> {
    return storeStats(this.#access, options);
  }

  async diff(a: StoreSnapshot, b: StoreSnapshot, options: DiffOptions = {}): Promise<SnapshotDiff> {
    const { reader } = await loadContents(this.#access);
    return diffSnapshots(reader, a, b, options);
  }

  async localCopy(snapshot: StoreSnapshot, options: StoreCallOptions = {}): Promise<LocalCopy> {
    const { reader } = await loadContents(this.#access, () => {});
    return makeLocalCopy(reader, snapshot, options);
  }
}
