import assert from 'node:assert/strict';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { message } from '../../protocol/encode.ts';
import type { HashAlgorithm } from '../../protocol/messages.ts';
import type { LocalBackend } from '../../src/backup/backends/backend.ts';
import { copyIntoStore } from '../../src/backup/copy/copy-into-store.ts';
import { KeptFiles } from '../../src/backup/backends/kept-files.ts';
import type { Password, PasswordSource } from '../../src/backup/keys/password.ts';
import { HashCache } from '../../src/backup/copy/hash-cache.ts';
import { ParentMemory } from '../../src/backup/copy/parent-memory.ts';
import { OutdatedMemoryError } from '../../src/backup/copy/store-destination.ts';
import { initBackend } from '../../src/backup/open-store.ts';
import { OpenStore } from '../../src/backup/store.ts';
import { loadContents } from '../../src/backup/files/store-files.ts';
import type { StoreAccess } from '../../src/backup/files/store-files.ts';
import { StoredOrigin } from '../../src/backup/snapshots/stored-origin.ts';
import { SnapshotSource } from '../../src/backup/snapshots/snapshot-source.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import type { PageNumber } from '../../src/pages/page-types.ts';
import { Connection } from '../../src/sync/link/connection.ts';
import { copyRequest, encodeRequest } from '../../src/sync/request/copy-request.ts';
import { runFarAgent } from '../../src/sync/agents/far-agent.ts';
import { serveOrigin } from '../../src/sync/agents/origin-agent.ts';
import { memoryTransportPair } from '../../src/transport/memory.ts';

/** A store with both agents of every backup and restore in this process. */
export interface StoreHere {
  readonly access: StoreAccess;
  readonly store: OpenStore;
  readonly cache: HashCache;
  /** For backups that do without lists. */
  readonly parents?: ParentMemory;
}

export interface BackupHereOptions {
  readonly usesParent?: boolean;
  readonly verify?: boolean;
  readonly hash?: HashAlgorithm;
  readonly tags?: readonly string[];
  readonly host?: string;
  readonly skipsUnchanged?: boolean;
  /** Called if the backup begins again with the lists of the store. */
  readonly onOutdated?: () => void;
  readonly blockCache?: { readonly folder: string; readonly looksUp: boolean };
  readonly onWarning?: (warning: string) => void;
  /** Gets what came from the origin. */
  readonly onDone?: (done: { readonly pagesDelta: number; readonly pagesTransferred: number }) => void;
}

/** `folder` is for the hash cache. With a password, the store is encrypted. */
export async function storeHere(
  backend: LocalBackend,
  folder: string,
  graceSeconds?: number,
  password?: PasswordSource | Password,
): Promise<StoreHere> {
  const access = await initBackend(backend, { graceSeconds, password });
  return { access, store: new OpenStore(access), cache: new HashCache(join(folder, 'cache'), access.sealer) };
}

/** A store on a backend as one elsewhere: this host keeps copies of files, and backups do without lists. */
export async function storeElsewhere(
  backend: LocalBackend,
  folder: string,
  graceSeconds?: number,
  password?: PasswordSource | Password,
): Promise<StoreHere & { readonly parents: ParentMemory }> {
  const { cache, ...here } = await storeHere(backend, folder, graceSeconds, password);
  const kept = new KeptFiles(join(folder, 'files'));
  const access = { ...here.access, kept };
  return {
    access,
    store: new OpenStore(access),
    cache,
    parents: new ParentMemory(join(folder, 'parents'), 'memory'),
  };
}

/** The key by which the hash cache knows a database. */
export function originNameOf(origin: string): string {
  return `${hostname()}:${origin}`;
}

/** Adds a snapshot of a database that this process has not open. Throws SqlsyncError. */
export async function backupHere(
  here: StoreHere,
  origin: string,
  options: BackupHereOptions = {},
): Promise<StoreSnapshot> {
  try {
    return await backUpOnce(here, origin, options, true);
  } catch (error) {
    if (!(error instanceof OutdatedMemoryError)) throw error;
    options.onOutdated?.();
    return backUpOnce(here, origin, options, false);
  }
}

async function backUpOnce(
  { access, cache, parents }: StoreHere,
  origin: string,
  options: BackupHereOptions,
  recalls: boolean,
): Promise<StoreSnapshot> {
  const [near, far] = memoryTransportPair();
  const served = runFarAgent(far, { idleTimeoutMs: 0 }).catch(() => {});
  const connection = new Connection(near, 'opening', { idleTimeoutMs: 0 });
  try {
    const { snapshot, result } = await copyIntoStore(connection, {
      access,
      cache,
      memory: parents,
      recalls,
      skipsUnchanged: options.skipsUnchanged,
      blockCache: options.blockCache,
      originName: originNameOf(origin),
      tags: options.tags ?? [],
      host: options.host,
      usesParent: options.usesParent !== false,
      damagedPacks: new Set(),
      verify: options.verify === true,
      copy: {
        originPath: origin,
        ...copyRequest({ hash: options.hash }),
      },
      onWarning: (warning) => options.onWarning?.(warning),
    });
    connection.send(message('close', {}));
    connection.end();
    options.onDone?.(result.done);
    return snapshot;
  } finally {
    near.terminate();
    await served;
  }
}

/** Restores a snapshot to a database, there already or not. Throws SqlsyncError. */
export async function restoreHere(
  { access }: StoreHere,
  snapshot: StoreSnapshot,
  target: string,
): Promise<{ pagesChanged: number; pagesTransferred: number; pagesDelta: number }> {
  const { reader } = await loadContents(access, () => {});
  const [near, far] = memoryTransportPair();
  const replicated = runFarAgent(far, { idleTimeoutMs: 0 }).catch(() => {});
  const connection = new Connection(near, 'offering', { idleTimeoutMs: 0 });
  try {
    connection.send(
      message('replicate', {
        path: target,
        originName: snapshot.path,
        ...encodeRequest(copyRequest({ overwrite: true, replace: true })),
        restore: true,
        lookEveryMs: 0,
        makeFolders: false,
        stage: false,
        maxTimeMs: 0,
        idleTimeoutMs: 0,
      }),
    );
    const open = await connection.receiveOnly('open');
    const { done } = await serveOrigin(connection, open, {
      restored: () => new StoredOrigin(reader, snapshot),
    });
    connection.send(message('close', {}));
    connection.end();
    return done;
  } catch (error) {
    connection.end();
    throw error;
  } finally {
    near.terminate();
    await replicated;
  }
}

/**
 * Each of these snapshots is in the store as the database image that it was made of; those without an entry
 * in `images` only have to be readable.
 */
export async function assertStored(
  { access }: Pick<StoreHere, 'access'>,
  snapshots: readonly StoreSnapshot[],
  images: ReadonlyMap<string, Uint8Array>,
): Promise<void> {
  const { reader } = await loadContents(access, () => {});
  for (const snapshot of snapshots) {
    const bytes = new Uint8Array(snapshot.pageCount * snapshot.pageSize);
    new SnapshotSource(reader, snapshot).readInto(1 as PageNumber, bytes);
    const image = images.get(snapshot.id);
    if (image !== undefined)
      assert.ok(Buffer.compare(bytes, image) === 0, `snapshot ${snapshot.id} is another one`);
  }
}
