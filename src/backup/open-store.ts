import { lstatSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { sanitizeText, SqlsyncError } from '../errors.ts';
import { checkPath } from '../files/path-names.ts';
import { CACHE_FOLDER } from './backends/backend.ts';
import type { LocalBackend } from './backends/backend.ts';
import { putConfig, readConfig } from './files/config.ts';
import type { InitOptions } from './files/config.ts';
import { DirectoryBackend } from './backends/directory-backend.ts';
import { HashCache } from './copy/hash-cache.ts';
import { openOrRepairConfig } from './repair/repair-config.ts';
import { accessTo } from './files/store-files.ts';
import type { StoreAccess } from './files/store-files.ts';

/** Makes an empty store in a folder, which may exist. Throws SqlsyncError STORE_EXISTS, STORE_UNAVAILABLE. */
export async function initStoreFolder(folder: string, options: InitOptions = {}): Promise<StoreAccess> {
  try {
    return await initBackend(directory(folder), options);
  } catch (error) {
    throw noFolder(folder) ?? error;
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
  return accessTo(backend, await putConfig(backend, options));
}

/**
 * Opens the store in a folder. Throws SqlsyncError STORE_NOT_FOUND, STORE_VERSION, STORE_DAMAGED, STORE_UNAVAILABLE.
 */
export async function openStoreFolder(folder: string): Promise<StoreAccess> {
  return openBackend(directory(folder));
}

/**
 * Opens the store in a folder. Writes a new `config` if only that is lost and nothing else is in doubt. Throws as
 * `openStoreFolder`.
 */
export async function openStoreFolderToRepair(
  folder: string,
  options: { readonly dryRun: boolean },
): Promise<{ access: StoreAccess; configWritten: boolean }> {
  return openOrRepairConfig(directory(folder), options);
}

export async function openBackend(backend: LocalBackend): Promise<StoreAccess> {
  return accessTo(backend, await readConfig(backend));
}

/** Throws USAGE for a path that would open another folder. */
function directory(folder: string): DirectoryBackend {
  checkPath(folder);
  return new DirectoryBackend(resolve(folder));
}

/** The hash cache beside a store in a folder. */
export function cacheOf(folder: string): HashCache {
  return new HashCache(join(resolve(folder), CACHE_FOLDER));
}
