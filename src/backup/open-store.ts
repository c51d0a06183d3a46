import { lstatSync, realpathSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { sanitizeText, SqlsyncError } from '../errors.ts';
import { checkPath } from '../files/path-names.ts';
import { CACHE_FOLDER } from './backends/backend.ts';
import type { LocalBackend } from './backends/backend.ts';
import { KeptFiles } from './backends/kept-files.ts';
import { accessTo, makeStore } from './files/access.ts';
import type { InitOptions, OpenOptions } from './files/access.ts';
import { readConfig } from './files/config.ts';
import { DirectoryBackend } from './backends/directory-backend.ts';
import { parseAgentAddress } from './backends/agent/address.ts';
import { isElsewhere, placeOnHost } from './backends/elsewhere.ts';
import { isS3Address, parseS3Address, placeOfS3 } from './backends/s3/address.ts';
import { isSftpAddress, parseSftpAddress, placeOfSftp } from './backends/sftp/address.ts';
import { HashCache } from './copy/hash-cache.ts';
import { StoreMemory } from './keys/known-stores.ts';
import { openOrRepairConfig } from './repair/repair-config.ts';
import type { StoreAccess } from './files/store-files.ts';

/**
 * Makes an empty store in a folder, which may exist, here or on another host, or in an S3 bucket, which has to. Throws SqlsyncError STORE_EXISTS,
 * STORE_CHANGED, STORE_PASSWORD, STORE_UNAVAILABLE.
 *
 * @param place - path of the folder, `[user@]host:path`, `sftp:…` or `s3:…`.
 */
export async function initStoreAt(place: string, options: InitOptions = {}): Promise<StoreAccess> {
  refusePast(place);
  try {
    return await makeStore(await backendAt(place), options, memoryOf(place, options));
  } catch (error) {
    throw (isElsewhere(place) ? undefined : noFolder(place)) ?? error;
  }
}

/** The error if the place of a store, or one of its parents, is something other than a folder. */
function noFolder(folder: string): SqlsyncError | undefined {
  for (let each = resolve(folder); each !== dirname(each); each = dirname(each)) {
    const entry = entryAt(each);
    if (entry === undefined) continue;
    if (statSync(each, { throwIfNoEntry: false })?.isDirectory() === true) return undefined;
    const what = entry.isSymbolicLink() ? 'a symbolic link that leads to no folder' : 'a file';
    return new SqlsyncError('USAGE', `${sanitizeText(each)} is ${what}; expected a folder, or nothing yet`, {
      hint: 'Name another place for the store, or move that file away.',
    });
  }
  return undefined;
}

/** undefined if it does not exist, or a parent is not a folder. */
function entryAt(path: string): Stats | undefined {
  try {
    return lstatSync(path);
  } catch {
    return undefined;
  }
}

export async function initBackend(backend: LocalBackend, options: InitOptions = {}): Promise<StoreAccess> {
  return makeStore(backend, options);
}

/**
 * Opens the store at a place, as `initStoreAt` takes it. Throws SqlsyncError STORE_NOT_FOUND, STORE_VERSION,
 * STORE_PASSWORD, STORE_CHANGED, STORE_DAMAGED, STORE_UNAVAILABLE.
 */
export async function openStoreAtPlace(place: string, options: OpenOptions = {}): Promise<StoreAccess> {
  const backend = await backendAt(place);
  const access = await accessTo(backend, await readConfig(backend), options, memoryOf(place, options));
  const keeps = isElsewhere(place) && options.cache !== false;
  return keeps ? { ...access, kept: KeptFiles.of(access.config.id) } : access;
}

/**
 * Opens the store at a place. Writes a new `config` if only that is lost and nothing else is in doubt. Throws as
 * `openStoreAtPlace`.
 */
export async function openStoreToRepair(
  place: string,
  options: OpenOptions & { readonly dryRun: boolean },
): Promise<{ access: StoreAccess; configWritten: boolean }> {
  if (!options.dryRun) refusePast(place);
  return openOrRepairConfig(await backendAt(place), options, memoryOf(place, options));
}

export async function openBackend(backend: LocalBackend, options: OpenOptions = {}): Promise<StoreAccess> {
  return accessTo(backend, await readConfig(backend), options);
}

/** Throws SqlsyncError USAGE for a store as it was at a time, which nothing may write. */
export function refusePast(place: string): void {
  if (!isPast(place)) return;
  throw new SqlsyncError('USAGE', `Store ${sanitizeText(place)}: the past can only be read`, {
    hint: 'Name the store without ?at=TIME.',
  });
}

/** What this user remembers of the stores at this place. */
function memoryOf(place: string, { onWarning, dryRun }: OpenOptions): StoreMemory {
  const listener = onWarning ?? (() => {});
  const keeps = dryRun !== true;
  return new StoreMemory(canonicalPlace(place), { isPast: isPast(place), keeps }, listener);
}

/** True for the address of a store as it was at a time. Throws SqlsyncError USAGE. */
function isPast(place: string): boolean {
  return isS3Address(place) && parseS3Address(place).at !== undefined;
}

/** One spelling for all that name the same place, as far as this host can tell. Throws SqlsyncError USAGE. */
export function canonicalPlace(place: string): string {
  if (isS3Address(place)) return placeOfS3(parseS3Address(place));
  if (isSftpAddress(place)) return placeOfSftp(parseSftpAddress(place));
  return isElsewhere(place) ? placeOnHost(parseAgentAddress(place)) : canonicalFolder(resolve(place));
}

/** The folder without symbolic links, as far as it exists. */
function canonicalFolder(folder: string): string {
  try {
    return realpathSync(folder);
  } catch {
    return dirname(folder) === folder ? folder : join(canonicalFolder(dirname(folder)), basename(folder));
  }
}

/** Throws USAGE for a path that would open another folder, and an address that names no place. */
async function backendAt(place: string): Promise<LocalBackend> {
  // Each is loaded only for such a store: TLS takes longer to load than a small backup takes.
  if (isSftpAddress(place)) {
    const { SftpBackend } = await import('./backends/sftp/sftp-backend.ts');
    return new SftpBackend(place);
  }
  if (isS3Address(place)) {
    const { S3Backend } = await import('./backends/s3/s3-backend.ts');
    return new S3Backend({ address: place });
  }
  if (isElsewhere(place)) {
    const { AgentBackend } = await import('./backends/agent/agent-backend.ts');
    return new AgentBackend(place);
  }
  checkPath(place);
  return new DirectoryBackend(resolve(place));
}

/**
 * The hash cache of a store: beside it in its folder, or for a store elsewhere in the user's cache folder, if that may be
 * used. That of an encrypted store is never beside it, and sealed.
 */
export function cacheOf(
  place: string,
  { config, sealer }: Pick<StoreAccess, 'config' | 'sealer'>,
  usesCacheFolder: boolean,
): HashCache | undefined {
  if (!isElsewhere(place) && sealer.scheme === 'none')
    return new HashCache(join(resolve(place), CACHE_FOLDER));
  return usesCacheFolder ? HashCache.elsewhere(config.id, sealer) : undefined;
}
