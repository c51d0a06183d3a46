import { randomBytes } from 'node:crypto';
import { SqlsyncError } from '../../errors.ts';
import type { Backend } from '../backends/backend.ts';
import { isStoreId } from '../packs/object-id.ts';
import { checkScheme } from '../sealed/sealer.ts';
import type { Scheme, Sealer } from '../sealed/sealer.ts';
import { decodeChecked, encodeChecked } from './checked-json.ts';
import { damaged } from '../store-error.ts';

const FORMAT = 'sqlsync-store';

/** The version of the format, by the scheme of a store. */
export const STORE_VERSIONS: Readonly<Record<Scheme, number>> = { none: 1, 'aes-256-gcm': 2 };

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
  readonly encryption: { readonly scheme: Scheme };
  /** Random; another one since a repair or prune gave damaged files up. Missing before the first time. */
  readonly epoch?: string;
}

/** What everybody can read of `config`. */
export interface ConfigFile {
  readonly id: string;
  readonly scheme: Scheme;
  /** The whole content. Throws SqlsyncError STORE_DAMAGED if it was not sealed with the key of this store. */
  open(sealer: Sealer): StoreConfig;
}

/** The config of a new store. */
export function newConfig({
  graceSeconds = DEFAULT_GRACE_SECONDS,
  scheme = 'none',
  id = randomBytes(16).toString('hex'),
}: {
  readonly graceSeconds?: number | undefined;
  readonly scheme?: Scheme;
  readonly id?: string | undefined;
}): StoreConfig {
  return {
    format: FORMAT,
    version: STORE_VERSIONS[scheme],
    id,
    time: new Date().toISOString(),
    graceSeconds,
    encryption: { scheme },
  };
}

/** The bytes of `config`. In an encrypted store all of it is sealed, and what is needed to open it repeated before. */
export function encodeConfig(config: StoreConfig, sealer: Sealer): Uint8Array {
  if (sealer.scheme === 'none') return encodeChecked(config);
  const { format, version, id, encryption } = config;
  const sealed = sealer.seal({ kind: 'config' }, Buffer.from(JSON.stringify(config)));
  return encodeChecked({ format, version, id, encryption, sealed: Buffer.from(sealed).toString('base64') });
}

/** Puts the first file of a new store. Throws SqlsyncError STORE_EXISTS, STORE_UNAVAILABLE. */
export async function putConfig(
  backend: Backend,
  bytes: Uint8Array,
  onWarning?: (warning: string) => void,
): Promise<void> {
  const outcome = await backend.put('config', [bytes]);
  for (const shortcoming of backend.shortcomings ?? []) onWarning?.(shortcoming);
  if (outcome === 'created') return;
  throw storeExists(backend);
}

export function storeExists({ description }: Backend): SqlsyncError {
  return new SqlsyncError('STORE_EXISTS', `There is a store in ${description} already`, {
    hint: 'Use that store, or name another place.',
  });
}

/**
 * Makes what hosts remember of a store outdated: something that snapshots relied on is lost. Throws SqlsyncError
 * STORE_UNAVAILABLE.
 */
export async function beginEpoch({
  backend,
  sealer,
  config,
}: {
  readonly backend: Backend;
  readonly sealer: Sealer;
  readonly config: StoreConfig;
}): Promise<void> {
  const next = { ...config, epoch: randomBytes(8).toString('hex') };
  await backend.replaceConfig([encodeConfig(next, sealer)]);
}

async function hasFiles(backend: Backend, folder: 'packs' | 'keys'): Promise<boolean> {
  try {
    return (await backend.list(folder)).length > 0;
  } catch {
    return false;
  }
}

/** Throws SqlsyncError STORE_NOT_FOUND, STORE_VERSION, STORE_DAMAGED, STORE_UNAVAILABLE. */
export async function readConfig(backend: Backend): Promise<ConfigFile> {
  let bytes: Uint8Array;
  try {
    bytes = await backend.get('config', { offset: 0, length: MAX_CONFIG_BYTES + 1 });
  } catch (error) {
    if (!(error instanceof SqlsyncError) || error.code !== 'STORE_FILE_MISSING') throw error;
    const isThere = (await hasFiles(backend, 'packs')) || (await hasFiles(backend, 'keys'));
    throw new SqlsyncError('STORE_NOT_FOUND', `There is no store in ${backend.description}`, {
      hint: isThere
        ? 'Its file `config` is missing: `sqlsync repair STORE` writes a new one.'
        : 'Check that its disk is mounted and that the name is right. Only if there never was a store here: `sqlsync init STORE` creates it.',
      cause: error,
    });
  }
  return parseConfig(bytes, backend.description);
}

/** `store` is for errors: SqlsyncError STORE_VERSION, STORE_DAMAGED. */
export function parseConfig(bytes: Uint8Array, store: string): ConfigFile {
  if (bytes.length > MAX_CONFIG_BYTES) throw damaged('config', `has more than ${MAX_CONFIG_BYTES} bytes`);
  const config = decodeChecked(bytes, 'config');
  if (config['format'] !== FORMAT) throw damaged('config', 'is not that of a store');
  const version = config['version'];
  const known = Object.values(STORE_VERSIONS);
  if (!known.includes(version as number)) {
    throw new SqlsyncError(
      'STORE_VERSION',
      `The store in ${store} has format version ${String(version)}; this program knows ${known.join(' and ')}`,
      { hint: 'Install a newer sqlsync.' },
    );
  }
  const { id, encryption, sealed } = config;
  const scheme = checkScheme(Object(encryption).scheme);
  if (STORE_VERSIONS[scheme] !== version || !isStoreId(id)) throw damaged('config', 'is not that of a store');
  if (scheme === 'none') return { id, scheme, open: () => config as unknown as StoreConfig };
  return { id, scheme, open: (sealer) => openSealed(config, sealed, sealer) };
}

/** Nothing of what stands in the clear counts unless the sealed config repeats it. */
function openSealed(clear: Readonly<Record<string, unknown>>, sealed: unknown, sealer: Sealer): StoreConfig {
  if (typeof sealed !== 'string') throw damaged('config', 'lacks its sealed part');
  const plain = sealer.open({ kind: 'config', file: 'config' }, Buffer.from(sealed, 'base64'));
  const config = JSON.parse(new TextDecoder().decode(plain)) as StoreConfig;
  const { format, version, id, encryption } = config;
  const repeated = JSON.stringify({ format, version, id, encryption });
  const { sealed: _, ...rest } = clear;
  if (JSON.stringify(rest) !== repeated) throw damaged('config', 'was changed since it was written');
  return config;
}
