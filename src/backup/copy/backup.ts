import { Announcements } from '../../sync/request/announcements.ts';
import { resolve } from 'node:path';
import { DEFAULT_HASH } from '../../../protocol/messages.ts';
import type { HashAlgorithm } from '../../../protocol/messages.ts';
import { converse } from '../../sync/runs/conversation.ts';
import type { Traffic } from '../../sync/runs/conversation.ts';
import { copyRequest } from '../../sync/request/copy-request.ts';
import type { CopyOptions } from '../../sync/agents/replica-options.ts';
import { nameFor } from '../../sync/runs/sync.ts';
import { parseLocation } from '../../transport/location.ts';
import type { Location } from '../../transport/location.ts';
import { WrongBlocksError } from './block-deltas.ts';
import { comparePack } from '../objects/compare-pack.ts';
import { copyIntoStore } from './copy-into-store.ts';
import type { StoredCopy } from './copy-into-store.ts';
import { ParentMemory } from './parent-memory.ts';
import { OutdatedMemoryError } from './store-destination.ts';
import { cacheOf, openStoreAtPlace, refusePast } from '../open-store.ts';
import type { BackupOptions, BackupSummary } from '../options.ts';
import { refuseWithinStore } from './outside-store.ts';
import { StoreDamage, throwIfAborted } from '../store-error.ts';
import type { StoreAccess } from '../files/store-files.ts';

/** A backup, and what is known of its pages. */
export interface MadeBackup {
  readonly summary: BackupSummary;
  /** The hashes of all pages under `key`, one after another. */
  readonly hashes: Uint8Array;
  readonly key: Uint8Array;
  /** Page 1; undefined if it did not come. */
  readonly firstPage: Uint8Array | undefined;
}

/** One backup, with everything decided. */
interface Run {
  readonly options: BackupOptions;
  readonly access: StoreAccess;
  readonly origin: Location;
  readonly hash: HashAlgorithm;
  readonly announcements: Announcements;
  shrunk: boolean;
  /** False after the cache of block hashes was wrong. */
  trustsBlocks: boolean;
  /** What earlier backups left, and false once it turned out to be outdated. */
  readonly memory: ParentMemory | undefined;
  recalls: boolean;
  /** The traffic of all attempts. */
  readonly traffic: Traffic;
}

/**
 * Adds a snapshot of `origin` to a store. Resolves when it is durable. Throws SqlsyncError; the store is then as usable
 * as before. The next backup uses what was already written, or prune removes it.
 *
 * The only database that it opens in this process is the one that `verify` restores.
 */
export async function runBackup(options: BackupOptions): Promise<BackupSummary> {
  return (await makeBackup(options)).summary;
}

/** As `runBackup`, with the hashes; `opened` is the store, if the caller has opened it. */
export async function makeBackup(options: BackupOptions, opened?: StoreAccess): Promise<MadeBackup> {
  const startedAt = performance.now();
  const announcements = new Announcements(options);
  refusePast(options.store);
  const { password, acceptNewStore, cache, signal } = options;
  const onWarning = (text: string): void => announcements.warn(text);
  const opening = { password, acceptNewStore, cache, signal, onWarning };
  const access = opened ?? (await openStoreAtPlace(options.store, opening));
  const origin = parseLocation(options.origin);
  refuseWithinStore(options.store, origin);
  const traffic = { bytesSent: 0, bytesReceived: 0 };
  const run: Run = {
    options,
    access,
    origin,
    hash: options.hash ?? DEFAULT_HASH,
    announcements,
    shrunk: false,
    trustsBlocks: true,
    memory: access.kept && ParentMemory.of(access.config.id, access.backend.description),
    recalls: true,
    traffic,
  };
  const { result, snapshot, isNew, hashes, key, firstPage } = await storeOrStoreAnew(run);
  const summary = {
    origin: options.origin,
    snapshot,
    unchanged: !isNew,
    pagesTransferred: result.done.pagesTransferred,
    pagesDelta: result.done.pagesDelta,
    ...traffic,
    durationMs: Math.round(performance.now() - startedAt),
    snapshotHeldMs: result.snapshotHeldMs,
    walGrowthBytes: result.walGrowthBytes,
    verified: options.verify === true,
    shrunk: run.shrunk,
    warnings: run.announcements.warnings,
  };
  return { summary, hashes, key, firstPage };
}

/** Each attempt avoids what the earlier ones found damaged. */
const MAX_ATTEMPTS = 8;

/** If the store turns out to be damaged, tries again without relying on what is lost. */
async function storeOrStoreAnew(run: Run): Promise<StoredCopy> {
  const damagedPacks = new Set<string>();
  let usesParent = true;
  let hasCompared = false;
  for (let attempt = 1; ; attempt++) {
    try {
      return await storeSnapshot(run, usesParent, damagedPacks);
    } catch (error) {
      if (error instanceof OutdatedMemoryError && run.recalls) {
        run.recalls = false;
        continue;
      }
      if (error instanceof WrongBlocksError && run.trustsBlocks) {
        run.announcements.warn(`${error.message}; the backup begins again without it`);
        run.trustsBlocks = false;
        continue;
      }
      if (!(error instanceof StoreDamage) || attempt === MAX_ATTEMPTS) throw error;
      const pack = error.file.startsWith('packs/') ? error.file.slice('packs/'.length) : undefined;
      const isNew = pack !== undefined && !damagedPacks.has(pack);
      if (!isNew && !usesParent) throw error;
      run.announcements.warn(`${error.message}; what is lost is stored again`);
      if (isNew) damagedPacks.add(pack);
      else usesParent = false;
      if (!hasCompared) await findChangedPacks(run, damagedPacks);
      hasCompared = true;
    }
  }
}

/**
 * A damaged pack is seldom the only one. A backup would rely on packs with unchanged pages without reading them, so
 * check them all.
 */
async function findChangedPacks(run: Run, damagedPacks: Set<string>): Promise<void> {
  const { options, access } = run;
  const packs = (await access.backend.list('packs')).filter(({ name }) => !damagedPacks.has(name));
  options.onNote?.(`Comparing all ${packs.length} other packs in the store with their names`);
  const known = damagedPacks.size;
  for (const { name } of packs) {
    throwIfAborted(options.signal);
    try {
      if ((await comparePack(access.backend, name)).isChanged) damagedPacks.add(name);
    } catch (error) {
      if (!(error instanceof StoreDamage)) throw error;
    }
  }
  const more = damagedPacks.size - known;
  if (more > 0)
    run.announcements.warn(`${more} more packs in the store were changed since they were written`);
}

async function storeSnapshot(
  run: Run,
  usesParent: boolean,
  damagedPacks: ReadonlySet<string>,
): Promise<StoredCopy> {
  const { options, origin } = run;
  const conversation = {
    run: options,
    mayShareProcess: true,
    traffic: run.traffic,
    onWarning: (text: string) => run.announcements.warn(text),
  };
  return converse(origin, 'opening', conversation, (connection) =>
    copyIntoStore(connection, {
      access: run.access,
      cache: cacheOf(options.store, run.access, options.cache !== false),
      blockCache: usesBlockCache(run) ? { looksUp: run.trustsBlocks } : undefined,
      originName: nameFor(origin),
      tags: options.tags ?? [],
      host: options.host,
      memory: run.memory,
      recalls: run.recalls,
      skipsUnchanged: options.skipUnchanged === true,
      usesParent,
      damagedPacks,
      verify: options.verify === true,
      copy: copyOptions(run),
      onWarning: (text, kind) => run.announcements.warn(text, kind),
    }),
  );
}

/** A far origin sends deltas, which takes fewer bytes; so old versions are read for it. */
function usesBlockCache({ options, origin }: Run): boolean {
  return options.cache !== false && origin.kind === 'local';
}

function copyOptions(run: Run): CopyOptions {
  const { options, origin } = run;
  // Whole pages come from this host.
  const compress = usesBlockCache(run) && options.compress !== 'zstd' ? 'none' : options.compress;
  return {
    ...copyRequest({ ...options, compression: compress }),
    originPath: origin.kind === 'local' ? resolve(origin.path) : origin.path,
    ...(origin.kind === 'local' ? { originFile: resolve(origin.path) } : {}),
    signal: options.signal,
    onAlarm(warning) {
      run.shrunk = true;
      run.announcements.warn(warning);
    },
    onSnapshot: (announced) => run.announcements.snapshot(announced),
    ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
  };
}
