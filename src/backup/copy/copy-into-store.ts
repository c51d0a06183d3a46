import type { WarningKind } from '../../sync/announcements.ts';
import { randomBytes } from 'node:crypto';
import { SEED_BYTES } from '../../pages/hash.ts';
import type { Connection } from '../../sync/connection.ts';
import { runCopy } from '../../sync/replica-agent.ts';
import type { CopyOptions, ReplicaResult } from '../../sync/replica-agent.ts';
import type { HashCache } from './hash-cache.ts';
import { StoreDestination } from './store-destination.ts';
import { loadContents, loadSnapshots } from '../files/store-files.ts';
import type { StoreAccess, StoreContents } from '../files/store-files.ts';
import type { StoreSnapshot } from '../types.ts';
import { verifyBackup } from './verify-backup.ts';

/** One snapshot that is to be added to a store. */
export interface BackupJob {
  readonly access: StoreAccess;
  readonly cache: HashCache;
  /** Names the origin for the cache. */
  readonly originName: string;
  readonly tags: readonly string[];
  /** Stands for the origin's host name in the record. */
  readonly host: string | undefined;
  /** False where the snapshots before are not to be relied upon. */
  readonly usesParent: boolean;
  /** Packs that are known to be damaged: nothing new relies on them. */
  readonly damagedPacks: ReadonlySet<string>;
  readonly verify: boolean;
  readonly copy: CopyOptions;
  readonly onWarning: (text: string, kind?: WarningKind) => void;
}

/**
 * Adds a snapshot of the origin at the other end of `connection` to a store. Resolves when it is durable, and checked where that was
 * asked for. Throws SqlsyncError.
 */
export async function copyIntoStore(
  connection: Connection,
  job: BackupJob,
): Promise<{ result: ReplicaResult; snapshot: StoreSnapshot }> {
  const { access, cache, originName, tags, host, usesParent } = job;
  const { hash, signal } = job.copy;
  const last = usesParent ? cache.load(originName) : undefined;
  const known = last?.algorithm === hash ? last : undefined;
  let stored: NewHashes | undefined;
  let listed = { known: new Set<string>(), since: 0 };
  const result = await runCopy(connection, job.copy, async (attempt) => {
    // Anew for each: to its index the objects of the attempt before are on their way to packs that were given up.
    const contents = await loadTrusted(job);
    const since = Date.now();
    const snapshots = await loadSnapshots(access, (_, error) => job.onWarning(error.message));
    listed = { known: new Set(snapshots.map(({ id }) => id)), since };
    // Hashes that were known before may be what is wrong.
    const cached = attempt === 1 ? known : undefined;
    const seed = cached?.seed ?? randomBytes(SEED_BYTES);
    return new StoreDestination({
      access,
      contents,
      loadAgain: () => loadTrusted(job),
      snapshots,
      cached,
      usesParent,
      seed,
      tags,
      host,
      onWarning: job.onWarning,
      bytesReceived: () => connection.bytesReceived,
      onStored: (snapshot, { hashes, packs }) => (stored = { snapshot, seed, packs, hashes }),
    });
  });
  if (stored === undefined) throw new Error('the copy ended without a snapshot');
  const { snapshot, seed, packs, hashes } = stored;
  try {
    cache.save(originName, { snapshot: snapshot.id, algorithm: hash, seed, packs, hashes });
    cache.sweep(listed.known, listed.since);
  } catch (error) {
    const why = String(error);
    job.onWarning(`The next backup will take longer, since its cache cannot be written: ${why}`, 'advice');
  }
  if (job.verify) {
    const unchecked = await verifyBackup(access, snapshot, { algorithm: hash, seed, hashes }, signal);
    for (const warning of unchecked) job.onWarning(warning);
  }
  return { result, snapshot };
}

/** Packs that only a damaged index names count as none, and what is in them is stored again. A mark must be known. */
async function loadTrusted({ access, damagedPacks, onWarning }: BackupJob): Promise<StoreContents> {
  const contents = await loadContents(access, (file, error) => {
    if (!file.startsWith('indexes/')) throw error;
    onWarning(`${error.message}; what only it names is stored again`);
  });
  contents.index.distrust(damagedPacks);
  return contents;
}

interface NewHashes {
  readonly snapshot: StoreSnapshot;
  readonly seed: Uint8Array;
  readonly packs: readonly string[];
  readonly hashes: Uint8Array;
}
