import { randomBytes } from 'node:crypto';
import { SqlsyncError } from '../../errors.ts';
import type { Backend } from '../backends/backend.ts';
import { decodeChecked, encodeChecked } from './checked-json.ts';
import { damaged } from '../store-error.ts';

const FORMAT = 'sqlsync-store';
export const STORE_VERSION = 1;

/** With this default, the next day's run deletes what a daily run marks. */
const DEFAULT_GRACE_SECONDS = 12 * 3600;

export const MAX_CONFIG_BYTES: number = 1024 * 1024;

/** The content of a store's `config` file. */
export interface StoreConfig {
  readonly format: typeof FORMAT;
  readonly version: number;
  /** 32 hexadecimal digits. */
  readonly id: string;
  readonly time: string;
  /** How long prune waits between marking a pack and deleting it. */
  readonly graceSeconds: number;
  readonly encryption: { readonly scheme: string };
  /** Random; another one since a repair or prune gave damaged files up. Missing before the first time. */
  readonly epoch?: string;
}

export interface InitOptions {
  /** How long prune waits between marking a pack and deleting it; default 12 hours. No backup may take longer. */
  readonly graceSeconds?: number | undefined;
  /** Called if the place cannot do all that a store wants of it. */
  readonly onWarning?: ((warning: string) => void) | undefined;
}

/** The config of a new store. */
export function newConfig(options: InitOptions): StoreConfig {
  return {
    format: FORMAT,
    version: STORE_VERSION,
    id: randomBytes(16).toString('hex'),
    time: new Date().toISOString(),
    graceSeconds: options.graceSeconds ?? DEFAULT_GRACE_SECONDS,
    encryption: { scheme: 'none' },
  };
}

/** Makes an empty store. Throws SqlsyncError STORE_EXISTS, STORE_UNAVAILABLE. */
export async function putConfig(backend: Backend, options: InitOptions): Promise<StoreConfig> {
  const config = newConfig(options);
  const outcome = await backend.put('config', [encodeChecked(config)]);
  for (const shortcoming of backend.shortcomings ?? []) options.onWarning?.(shortcoming);
  if (outcome === 'created') return config;
  throw new SqlsyncError('STORE_EXISTS', `There is a store in ${backend.description} already`, {
    hint: 'Use that store, or name another place.',
  });
}

/** Writes `config` of an existing store anew, replacing any file there. Throws SqlsyncError STORE_UNAVAILABLE. */
export async function replaceConfig(backend: Backend, config: StoreConfig): Promise<void> {
  await backend.replaceConfig([encodeChecked(config)]);
}

/**
 * Makes what hosts remember of a store outdated: something that snapshots relied on is lost. Throws SqlsyncError
 * STORE_UNAVAILABLE.
 */
export async function beginEpoch({
  backend,
  config,
}: {
  readonly backend: Backend;
  readonly config: StoreConfig;
}): Promise<void> {
  await replaceConfig(backend, { ...config, epoch: randomBytes(8).toString('hex') });
}

async function hasPacks(backend: Backend): Promise<boolean> {
  try {
    return (await backend.list('packs')).length > 0;
  } catch {
    return false;
  }
}

/** Throws SqlsyncError STORE_NOT_FOUND, STORE_VERSION, STORE_DAMAGED, STORE_UNAVAILABLE. */
export async function readConfig(backend: Backend): Promise<StoreConfig> {
  let bytes: Uint8Array;
  try {
    bytes = await backend.get('config', { offset: 0, length: MAX_CONFIG_BYTES + 1 });
  } catch (error) {
    if (!(error instanceof SqlsyncError) || error.code !== 'STORE_FILE_MISSING') throw error;
    throw new SqlsyncError('STORE_NOT_FOUND', `There is no store in ${backend.description}`, {
      hint: (await hasPacks(backend))
        ? 'Its file `config` is missing: `sqlsync repair STORE` writes a new one.'
        : 'Check that its disk is mounted and that the name is right. Only if there never was a store here: `sqlsync init STORE` creates it.',
      cause: error,
    });
  }
  return parseConfig(bytes, backend.description);
}

/** `store` is for errors: SqlsyncError STORE_VERSION, STORE_DAMAGED. */
export function parseConfig(bytes: Uint8Array, store: string): StoreConfig {
  if (bytes.length > MAX_CONFIG_BYTES) throw damaged('config', `has more than ${MAX_CONFIG_BYTES} bytes`);
  const config = decodeChecked(bytes, 'config');
  if (config['format'] !== FORMAT) throw damaged('config', 'is not that of a store');
  if (config['version'] !== STORE_VERSION) {
    throw new SqlsyncError(
      'STORE_VERSION',
      `The store in ${store} has format version ${String(config['version'])}; this program knows ${STORE_VERSION}`,
      { hint: 'Install a newer sqlsync.' },
    );
  }
  return config as unknown as StoreConfig;
}
