import { SqlsyncError } from '../../errors.ts';
import type { Backend, LocalBackend } from '../backends/backend.ts';
import { MAX_CONFIG_BYTES, newConfig, parseConfig, readConfig, replaceConfig } from '../files/config.ts';
import type { StoreConfig } from '../files/config.ts';
import { decodeIndex } from '../packs/index-file.ts';
import { idOf, isHexId, toHex } from '../packs/object-id.ts';
import { decodeSnapshot } from '../files/snapshot-record.ts';
import { accessTo } from '../files/store-files.ts';
import type { StoreAccess } from '../files/store-files.ts';

/** An undamaged config is far shorter. */
const LONGEST_TO_TRY = 1024;

/** No user sets more than a year. */
const LONGEST_GRACE_SECONDS = 365 * 24 * 3600;

/**
 * Opens a store. Writes a new `config` if it is missing or damaged, provided that other files prove that there is a
 * store, and that it is not encrypted. The store then has a new id. Throws SqlsyncError STORE_NOT_FOUND, STORE_VERSION,
 * STORE_DAMAGED, STORE_UNAVAILABLE.
 */
export async function openOrRepairConfig(
  backend: LocalBackend,
  { dryRun }: { readonly dryRun: boolean },
): Promise<{ access: StoreAccess; configWritten: boolean }> {
  try {
    return { access: accessTo(backend, await readConfig(backend)), configWritten: false };
  } catch (error) {
    if (!(error instanceof SqlsyncError) || !['STORE_NOT_FOUND', 'STORE_DAMAGED'].includes(error.code))
      throw error;
    if (!(await isPlainStore(backend))) throw error;
  }
  const config = await makeConfig(backend);
  // In one step: at any moment the damaged or the new file exists, so a killed repair loses nothing.
  if (!dryRun) await replaceConfig(backend, config);
  return { access: accessTo(backend, config), configWritten: true };
}

/**
 * Keeps the grace period of the damaged config if a single byte of that was changed. Otherwise takes the longest that
 * it may have named: a prune that waits too long does no harm.
 */
async function makeConfig(backend: Backend): Promise<StoreConfig> {
  const damaged = await damagedBytes(backend);
  if (damaged === undefined) return newConfig({});
  return newConfig({ graceSeconds: withOneByteRight(damaged)?.graceSeconds ?? longestGrace(damaged) });
}

/** True if a record or an index can be read as it is: then nothing in this store is encrypted. */
async function isPlainStore(backend: Backend): Promise<boolean> {
  for (const folder of ['snapshots', 'indexes'] as const) {
    for (const { name } of await backend.list(folder)) {
      if (!isHexId(name)) continue;
      const bytes = await backend.get(`${folder}/${name}`);
      if (toHex(idOf(bytes)) !== name) continue;
      try {
        if (folder === 'snapshots') decodeSnapshot(bytes, name);
        else decodeIndex(bytes, `indexes/${name}`);
        return true;
      } catch {
        // The file may be of a later version, or sealed.
      }
    }
  }
  return false;
}

/** undefined if there is no config. */
async function damagedBytes(backend: Backend): Promise<Uint8Array | undefined> {
  try {
    return await backend.get('config', { offset: 0, length: MAX_CONFIG_BYTES });
  } catch (error) {
    if (error instanceof SqlsyncError && error.code === 'STORE_FILE_MISSING') return undefined;
    throw error;
  }
}

/**
 * The config's own hash shows which byte was changed, and what it was: there are few enough possibilities to try all.
 */
function withOneByteRight(damaged: Uint8Array): StoreConfig | undefined {
  if (damaged.length > LONGEST_TO_TRY) return undefined;
  const bytes = Uint8Array.from(damaged);
  for (const [at, wrong] of damaged.entries()) {
    for (let byte = 0; byte < 128; byte++) {
      bytes[at] = byte;
      const config = configIn(bytes);
      if (config !== undefined) return config;
    }
    bytes[at] = wrong;
  }
  return undefined;
}

function configIn(bytes: Uint8Array): StoreConfig | undefined {
  try {
    return parseConfig(bytes, '');
  } catch {
    return undefined;
  }
}

/**
 * The longest grace period that the damaged text may mean, with 9 for each unreadable digit, and at least the default.
 */
function longestGrace(damaged: Uint8Array): number {
  const text = Buffer.from(damaged).toString('latin1');
  const usual = newConfig({}).graceSeconds;
  const named = /"graceSeconds":\s*([^,}\n]*)/
    .exec(text)?.[1]
    ?.trim()
    .replaceAll(/[^0-9]/g, '9');
  // If the field's name is damaged, any number may be its value.
  const numbers =
    named === undefined ? [...text.matchAll(/:\s*(\d+)\s*[,}]/g)].map(([, digits]) => digits) : [named];
  const plausible = numbers.map(Number).filter((seconds) => seconds > usual);
  return Math.min(LONGEST_GRACE_SECONDS, Math.max(usual, ...plausible));
}
