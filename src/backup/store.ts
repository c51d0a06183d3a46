import { SqlsyncError } from '../errors.ts';
import { checkStore } from './check/check.ts';
import { copySnapshots } from './copy/copy-snapshots.ts';
import { ParentMemory } from './copy/parent-memory.ts';
import { diffSnapshots } from './snapshots/diff.ts';
import type { DiffOptions } from './snapshots/diff.ts';
import { findSnapshot } from './snapshots/find-snapshot.ts';
import { forgetSnapshots } from './prune/forget.ts';
import { makeLocalCopy } from './snapshots/local-copy.ts';
import type { LocalCopy } from './snapshots/local-copy.ts';
import { initStoreAt, openStoreAtPlace, openStoreToRepair } from './open-store.ts';
import type { InitOptions, OpenOptions } from './files/access.ts';
import { pruneStore } from './prune/prune.ts';
import { repairContents } from './repair/repair.ts';
import type { RepairOptions, RepairSummary } from './types.ts';
import { passwordOf } from './keys/password.ts';
import type { Password, PasswordSource } from './keys/password.ts';
import { addKey, changeKey, listKeys, removeKey } from './keys/store-keys.ts';
import type { StoreKey, Unlocked } from './keys/store-keys.ts';
import { loadSnapshots } from './files/store-files.ts';
import type { StoreAccess } from './files/store-files.ts';
import { withLists } from './files/store-lists.ts';
import { basesOfNewest, listSteps, momentUntil } from './steps/stored-steps.ts';
import { storeStats } from './store-stats.ts';
import type {
  CheckOptions,
  CheckSummary,
  CopyOptions,
  CopySummary,
  ForgetSummary,
  PruneOptions,
  PruneSummary,
  SnapshotDiff,
  SnapshotListeners,
  Store,
  StoreCallOptions,
  StoreMoment,
  StoreSnapshot,
  StoreStats,
} from './types.ts';

/**
 * Makes an empty store and opens it. Throws SqlsyncError STORE_EXISTS, STORE_UNAVAILABLE.
 *
 * @param place - a folder, which may exist, here or at `[user@]host:path`; `sftp:…`; or `s3:…` in a bucket that exists.
 */
export async function initStore(place: string, options: InitOptions = {}): Promise<Store> {
  return new OpenStore(await initStoreAt(place, options));
}

/**
 * Opens the store in a folder, or at `[user@]host:path`, `s3:…` or `sftp:…`. Throws SqlsyncError STORE_NOT_FOUND, STORE_VERSION, STORE_PASSWORD (a
 * password is missing, wrong, or given for a store that is not encrypted), STORE_CHANGED (another store than the
 * encrypted one that was there), STORE_DAMAGED, STORE_UNAVAILABLE.
 */
export async function openStore(place: string, options: OpenOptions = {}): Promise<Store> {
  return new OpenStore(await openStoreAtPlace(place, options));
}

/**
 * Repairs the store at a place as `Store.repair` does, and also writes a new `config` if that is missing or damaged.
 * Throws SqlsyncError STORE_NOT_FOUND, STORE_VERSION, STORE_DAMAGED (if `config` is lost and nothing proves that there
 * is a store), STORE_UNAVAILABLE, INTERRUPTED.
 */
export async function repairStore(
  place: string,
  options: RepairOptions & OpenOptions = {},
): Promise<RepairSummary> {
  const dryRun = options.dryRun === true;
  const { access, configWritten } = await openStoreToRepair(place, { ...options, dryRun });
  return { ...(await repairContents(access, options)), configWritten };
}

/** For what is to find damage: the store itself, not the copies of its files on this host. */
function unkept(access: StoreAccess): StoreAccess {
  return { ...access, kept: undefined };
}

/** A store on any backend. */
export class OpenStore implements Store {
  readonly description: string;
  readonly id: string;
  #access: StoreAccess;

  readonly isEncrypted: boolean;

  constructor(access: StoreAccess) {
    this.#access = access;
    this.description = access.backend.description;
    this.id = access.config.id;
    this.isEncrypted = access.unlocked !== undefined;
  }

  snapshots({ onWarning, onUnreadable }: SnapshotListeners = {}): Promise<StoreSnapshot[]> {
    return loadSnapshots(this.#access, (file, error) => {
      onWarning?.(error.message);
      onUnreadable?.(file.slice('snapshots/'.length));
    });
  }

  async find(prefix: string): Promise<StoreSnapshot> {
    return findSnapshot(await this.snapshots(), prefix, this.description);
  }

  async momentAfter(chosen: StoreSnapshot, untilMs: number = Infinity): Promise<StoreMoment | undefined> {
    const files = await listSteps(this.#access);
    if (files.length === 0) return undefined;
    const { host, path } = chosen;
    const snapshots = (await this.snapshots()).filter((each) => each.host === host && each.path === path);
    return momentUntil(files, { chosen, snapshots, untilMs });
  }

  async newestFollowed(): Promise<ReadonlySet<string>> {
    const files = await listSteps(this.#access);
    return files.length === 0 ? new Set() : basesOfNewest(files, await this.snapshots());
  }

  async forget(ids: readonly string[]): Promise<ForgetSummary> {
    return { forgotten: await forgetSnapshots(this.#access, ids) };
  }

  async prune(options: PruneOptions = {}): Promise<PruneSummary> {
    const summary = await pruneStore(this.#access, options);
    const { kept, config, backend } = this.#access;
    // A backup that finds a pack gone has put its own in vain, and begins again.
    if (summary.packsDeleted > 0 && !summary.dryRun && kept !== undefined)
      ParentMemory.of(config.id, backend.description)?.forgetAll();
    return summary;
  }

  repair(options: RepairOptions = {}): Promise<RepairSummary> {
    return repairContents(unkept(this.#access), options);
  }

  check(options: CheckOptions = {}): Promise<CheckSummary> {
    return checkStore(unkept(this.#access), options);
  }

  stats(options: StoreCallOptions = {}): Promise<StoreStats> {
    return storeStats(this.#access, options);
  }

  async keys({ onWarning }: Pick<SnapshotListeners, 'onWarning'> = {}): Promise<StoreKey[]> {
    const { keys, bad } = await listKeys(this.#access.backend, this.#unlocked());
    for (const { message } of bad) onWarning?.(message);
    return [...keys];
  }

  async addKey(password: PasswordSource | Password): Promise<string> {
    const { backend, config } = this.#access;
    const { graceSeconds } = config;
    return addKey(backend, { ...this.#unlocked(), graceSeconds }, passwordOf(password));
  }

  async removeKey(prefix: string): Promise<string> {
    return removeKey(this.#access.backend, this.#unlocked(), prefix);
  }

  async changePassword(password: PasswordSource | Password): Promise<string> {
    const { backend, memory, config } = this.#access;
    const { graceSeconds } = config;
    const old = { ...this.#unlocked(), graceSeconds };
    const unlocked = await changeKey(backend, old, passwordOf(password), (key) =>
      memory?.opened(this.id, key),
    );
    this.#access = { ...this.#access, unlocked };
    return unlocked.key;
  }

  /** Throws SqlsyncError USAGE for a store that is not encrypted. */
  #unlocked(): Unlocked {
    const { unlocked } = this.#access;
    if (unlocked !== undefined) return unlocked;
    throw new SqlsyncError('USAGE', `The store ${this.description} is not encrypted; it has no keys`, {
      hint: '`sqlsync init --encrypt` makes an encrypted store, and `sqlsync copy` copies this one there.',
    });
  }

  copyTo(other: Store, options: CopyOptions = {}): Promise<CopySummary> {
    if (other instanceof OpenStore) return copySnapshots(this.#access, other.#access, options);
    throw new SqlsyncError('USAGE', 'The other store is not one that openStore or initStore opened');
  }

  async diff(a: StoreSnapshot, b: StoreSnapshot, options: DiffOptions = {}): Promise<SnapshotDiff> {
    return withLists(this.#access, { needs: [a, b], onBadSnapshot: () => {} }, ({ contents }) =>
      diffSnapshots(contents.reader, a, b, options),
    );
  }

  async localCopy(snapshot: StoreSnapshot, options: StoreCallOptions = {}): Promise<LocalCopy> {
    const onBad = (): void => {};
    return withLists(
      this.#access,
      { needs: [snapshot], onBadSnapshot: onBad, onBadContents: onBad },
      ({ contents }) => makeLocalCopy(contents.reader, snapshot, options),
    );
  }
}
