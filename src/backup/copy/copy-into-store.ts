import { SqlsyncError } from '../../errors.ts';
import type { WarningKind } from '../../sync/request/announcements.ts';
import { randomBytes } from 'node:crypto';
import type { HashAlgorithm } from '../../../protocol/messages.ts';
import { HASH_KEY_BYTES } from '../../pages/hash.ts';
import type { Connection } from '../../sync/link/connection.ts';
import { runCopy } from '../../sync/agents/replica-agent.ts';
import type { ReplicaResult } from '../../sync/agents/replica-agent.ts';
import type { CopyOptions } from '../../sync/agents/replica-options.ts';
import type { HashCache } from './hash-cache.ts';
import type { ParentMemory, RecalledParent } from './parent-memory.ts';
import { OutdatedMemoryError, StoreDestination } from './store-destination.ts';
import type { BlockCachePlace, StoredSnapshot } from './store-destination.ts';
import { loadContents, loadSnapshots } from '../files/store-files.ts';
import type { OnDamage, StoreAccess, StoreContents } from '../files/store-files.ts';
import { isGoneSince, prunedMeanwhile } from '../files/store-lists.ts';
import type { StoreLists } from '../files/store-lists.ts';
import { StoreDamage } from '../store-error.ts';
import type { StoreSnapshot } from '../types.ts';
import { verifyBackup } from './verify-backup.ts';

/** One snapshot to add to a store. */
export interface BackupJob {
  readonly access: StoreAccess;
  /** undefined to keep no hashes of pages. */
  readonly cache: HashCache | undefined;
  /** Where backups leave what the next one needs to do without lists; undefined for none. */
  readonly memory?: ParentMemory | undefined;
  /** False to read the lists even so. */
  readonly recalls?: boolean | undefined;
  /** True to make no snapshot that has the same pages as its parent. */
  readonly skipsUnchanged?: boolean | undefined;
  /** undefined to keep no cache of block hashes. */
  readonly blockCache: Pick<BlockCachePlace, 'folder' | 'looksUp'> | undefined;
  /** Identifies the origin in the cache. */
  readonly originName: string;
  readonly tags: readonly string[];
  /** Recorded instead of the origin's host name. */
  readonly host: string | undefined;
  /** False to rely on no earlier snapshot. */
  readonly usesParent: boolean;
  /** Packs known to be damaged: nothing new relies on them. */
  readonly damagedPacks: ReadonlySet<string>;
  readonly verify: boolean;
  /** `hash` is the cache's; a run that verifies compares with a stronger one. */
  readonly copy: CopyOptions;
  readonly onWarning: (text: string, kind?: WarningKind) => void;
}

/** A snapshot that was added, or is there with the same pages. */
export interface StoredCopy {
  readonly result: ReplicaResult;
  readonly snapshot: StoreSnapshot;
  readonly isNew: boolean;
  /** The hashes of all pages under `key`, one after another. */
  readonly hashes: Uint8Array;
  readonly key: Uint8Array;
  /** Page 1; undefined if it did not come. */
  readonly firstPage: Uint8Array | undefined;
}

/**
 * A verification compares with this hash, and uses nothing that an earlier run hashed: the cache says what a page was,
 * not what it is, and would confirm its own mistake.
 */
const VERIFY_HASH: HashAlgorithm = 'sha256';

/**
 * Adds a snapshot of the origin at the other end of `connection` to a store. Resolves when it is durable, and checked
 * if that was requested. Throws SqlsyncError.
 */
export async function copyIntoStore(connection: Connection, job: BackupJob): Promise<StoredCopy> {
  const { access, cache, originName, tags, host, usesParent } = job;
  const { hash } = job.copy;
  const last = usesParent && !job.verify ? cache?.load(originName) : undefined;
  const known = last?.algorithm === hash ? last : undefined;
  let stored: NewHashes | undefined;
  let listed: Listed = { known: new Set(), since: 0 };
  let inUse: StoreContents | undefined;
  let recalled: RecalledParent | undefined;
  let since = { listed: new Date(), runs: 0 };
  const copy = job.verify ? { ...job.copy, hash: VERIFY_HASH } : job.copy;
  const result = await runCopy(connection, copy, async (attempt) => {
    // Loaded for each attempt: the index still lists objects of the last attempt that were on their way to abandoned
    // packs.
    recalled =
      attempt === 1 && known && job.recalls !== false
        ? await job.memory?.recall(access, originName, known.snapshot)
        : undefined;
    const lists = recalled ? { ...recalled, snapshots: [recalled.record] } : await loadLists(job);
    const { contents, snapshots } = lists;
    inUse = contents;
    listed = { known: new Set(snapshots.map(({ id }) => id)), since: recalled ? 0 : lists.listed.getTime() };
    const nowMs = access.backend.now?.() ?? Date.now();
    since = recalled
      ? { listed: recalled.listed, runs: recalled.runs + 1 }
      : { listed: new Date(nowMs), runs: 0 };
    // The hashes from the cache may be what is wrong, so only the first attempt uses them.
    const cached = attempt === 1 ? known : undefined;
    const key = cached?.key ?? randomBytes(HASH_KEY_BYTES);
    return new StoreDestination({
      access,
      contents,
      loadAgain: () => loadTrusted(job),
      snapshots,
      recalled: recalled?.snapshot,
      skipsUnchanged: job.skipsUnchanged === true,
      cached,
      blockCache: job.blockCache && {
        names: [access.config.id, originName],
        folder: job.blockCache.folder,
        // A verification uses nothing that an earlier run hashed, and a second attempt nothing that may be wrong.
        looksUp: job.blockCache.looksUp && usesParent && !job.verify && attempt === 1,
      },
      usesParent,
      key,
      tags,
      host,
      onWarning: job.onWarning,
      // If this run ends before its record is there, only lists lead the next one to these packs.
      beforePack: () => job.memory?.forget(originName),
      bytesReceived: () => connection.bytesReceived,
      onStored: (what) => (stored = { ...what, algorithm: copy.hash, key }),
    });
  }).catch((error: unknown) => {
    if (recalled !== undefined && mayBeOutdated(error)) {
      job.memory?.forget(originName);
      throw new OutdatedMemoryError(error);
    }
    // A prune is no damage. Otherwise everything would be compared and stored again.
    const isPruned = error instanceof StoreDamage && inUse !== undefined && isGoneSince(inUse, error);
    throw isPruned ? prunedMeanwhile(error) : error;
  });
  if (stored === undefined) throw new Error('the copy ended without a snapshot');
  const { snapshot, isNew } = stored;
  const complete = stored;
  const remember = (hashes: KnownHashes): void => save(job, { ...complete, ...hashes }, listed);
  if (job.verify) await verifyStored(job, stored, remember);
  else remember(stored);
  if (stored.contents === undefined) job.memory?.forget(originName);
  else job.memory?.save(access, originName, { snapshot: snapshot.id, ...since, ...stored.contents });
  const { hashes, key, firstPage } = stored;
  return { result, snapshot, isNew, hashes, key, firstPage };
}

/** The cache gets hashes of the restored file, after that was found right. */
async function verifyStored(
  { access, copy, onWarning }: BackupJob,
  stored: NewHashes,
  remember: (hashes: KnownHashes) => void,
): Promise<void> {
  const key = randomBytes(HASH_KEY_BYTES);
  const unchecked = await verifyBackup(access, stored.snapshot, stored, {
    signal: copy.signal,
    algorithm: copy.hash,
    key,
    onSame: (hashes) => remember({ algorithm: copy.hash, key, hashes }),
  });
  for (const warning of unchecked) onWarning(warning);
}

function save(
  { cache, originName, onWarning }: BackupJob,
  { snapshot, algorithm, key, packs, hashes }: NewHashes,
  listed: Listed,
): void {
  try {
    cache?.save(originName, { snapshot: snapshot.id, algorithm, key, packs, hashes });
    cache?.sweep(new Set([...listed.known, snapshot.id]), listed.since);
  } catch (error) {
    const why = String(error);
    onWarning(`The next backup will take longer, since its cache cannot be written: ${why}`, 'advice');
  }
}

/** Ignores packs that only a damaged index names; the backup stores their content again. Marks must be readable. */
function loadTrusted({ access, damagedPacks, onWarning }: BackupJob): Promise<StoreContents> {
  const onDamage: OnDamage = (file, error) => {
    if (!file.startsWith('indexes/')) throw error;
    onWarning(`${error.message}; what only it names is stored again`);
  };
  return loadContents(access, onDamage, damagedPacks);
}

async function loadLists(job: BackupJob): Promise<StoreLists & { readonly listed: Date }> {
  const contents = await loadTrusted(job);
  const listed = new Date();
  const snapshots = await loadSnapshots(job.access, (_, error) => job.onWarning(error.message));
  return { contents, snapshots, listed };
}

/** True if the failure may come from what an earlier run left: the lists of the store then say more. */
function mayBeOutdated(error: unknown): boolean {
  return error instanceof StoreDamage || (error instanceof SqlsyncError && error.code === 'STORE_PRUNED');
}

/** The hashes of all pages under a secret key. */
interface KnownHashes {
  readonly algorithm: HashAlgorithm;
  readonly key: Uint8Array;
  readonly hashes: Uint8Array;
}

type NewHashes = KnownHashes & StoredSnapshot;

/** The snapshots in the store, and when they were listed (milliseconds since 1970). */
interface Listed {
  readonly known: ReadonlySet<string>;
  readonly since: number;
}
