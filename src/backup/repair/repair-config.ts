import { SqlsyncError } from '../../errors.ts';
import type { Backend, LocalBackend } from '../backends/backend.ts';
import { accessTo } from '../files/access.ts';
import type { OpenOptions } from '../files/access.ts';
import { encodeConfig, MAX_CONFIG_BYTES, newConfig, parseConfig, readConfig } from '../files/config.ts';
import type { StoreConfig } from '../files/config.ts';
import { decodeSnapshot } from '../files/snapshot-record.ts';
import type { StoreAccess } from '../files/store-files.ts';
import type { StoreMemory } from '../keys/known-stores.ts';
import { passwordOf } from '../keys/password.ts';
import { unlock } from '../keys/store-keys.ts';
import { decodeIndex, MAX_INDEX_BYTES } from '../packs/index-file.ts';
import { idOf, isHexId, toHex } from '../packs/object-id.ts';
import { AesGcmSealer } from '../sealed/aes-gcm.ts';
import { PLAIN_SEALER } from '../sealed/sealer.ts';
import type { Sealer } from '../sealed/sealer.ts';
import { StoreDamage } from '../store-error.ts';

/** An undamaged config is far shorter. */
const LONGEST_TO_TRY = 1024;

/** A longer file is none of ours, and so does not match its name. */
const MAX_RECORD_BYTES: number = MAX_INDEX_BYTES + 2048;

/** No user sets more than a year. */
const LONGEST_GRACE_SECONDS = 365 * 24 * 3600;

/**
 * Opens a store. Writes a new `config` if it is missing or damaged, provided that other files prove that there is a
 * store. One that is not encrypted then has a new id. A config for such a store is never written where anything says
 * that the store is encrypted: a backup would write in the clear what was secret. Throws SqlsyncError STORE_NOT_FOUND,
 * STORE_VERSION, STORE_PASSWORD, STORE_CHANGED, STORE_DAMAGED, STORE_UNAVAILABLE.
 */
export async function openOrRepairConfig(
  backend: LocalBackend,
  options: OpenOptions & { readonly dryRun: boolean },
  memory?: StoreMemory,
): Promise<{ access: StoreAccess; configWritten: boolean }> {
  let lost: SqlsyncError;
  try {
    return {
      access: await accessTo(backend, await readConfig(backend), options, memory),
      configWritten: false,
    };
  } catch (error) {
    const isLost =
      error instanceof SqlsyncError &&
      (error.code === 'STORE_NOT_FOUND' || (error instanceof StoreDamage && error.file === 'config'));
    if (!isLost) throw error;
    lost = error;
  }
  const keys = (await backend.list('keys')).map(({ name }) => name).filter(isHexId);
  const hasKeys = keys.length > 0;
  const pinned = memory?.ids ?? [];
  // A password is that of an encrypted store, whatever lies there now.
  if (!hasKeys && passwordOf(options.password)?.isGiven === true) throw lost;
  if (hasKeys && pinned.length === 0) await refuseStrayKeys(backend, lost, keys);
  const isKeyed = hasKeys || pinned.length > 0;
  const config = isKeyed
    ? await keyedConfig(backend, lost, { ...options, pinned })
    : await plainConfig(backend, lost);
  // Before anything is written.
  memory?.check(config.found, options.acceptNewStore === true);
  // In one step: at any moment the damaged or the new file exists, so a killed repair loses nothing.
  if (!options.dryRun) await backend.replaceConfig([config.bytes]);
  const access = await accessTo(backend, parseConfig(config.bytes, backend.description), options, memory);
  return { access, configWritten: true };
}

/**
 * Throws an error that names the key files if everything else is readable without a key: an interrupted
 * `init --encrypt` leaves one, and so may somebody who wants a password. Only the user can know.
 */
async function refuseStrayKeys(backend: Backend, lost: SqlsyncError, keys: readonly string[]): Promise<void> {
  const { readable, unreadable } = await recordsOpenedBy(backend, PLAIN_SEALER);
  if (readable === 0 || unreadable > 0) return;
  const files = keys.map((key) => `keys/${key}`).join(', ');
  throw new SqlsyncError(
    lost.code,
    `${lost.message}; ${files} says that the store is encrypted, and its snapshots and indexes are not`,
    {
      hint: `An interrupted \`init --encrypt\` leaves such a file. If the store never was encrypted, remove ${files}, then repair again.`,
      cause: lost,
    },
  );
}

/** A new config, and the id of the encrypted store that it is for. */
interface RebuiltConfig {
  readonly found: { readonly id: string } | undefined;
  readonly bytes: Uint8Array;
}

/** Throws `lost` unless other files prove that there is a store that is not encrypted. */
async function plainConfig(backend: Backend, lost: SqlsyncError): Promise<RebuiltConfig> {
  const { readable, unreadable } = await recordsOpenedBy(backend, PLAIN_SEALER);
  // One that was not changed since it was written, but says nothing, is sealed, or of a later version.
  const text = Buffer.from((await damagedBytes(backend)) ?? []).toString('latin1');
  if (readable === 0 || unreadable > 0 || text.includes('"sealed"')) throw lost;
  return { found: undefined, bytes: encodeConfig(await makeConfig(backend), PLAIN_SEALER) };
}

/**
 * The config of the store that the password opens: each key file knows its id and its grace period. Throws `lost` if the
 * files are of another store.
 */
async function keyedConfig(
  backend: Backend,
  lost: SqlsyncError,
  { password, pinned, acceptNewStore, signal }: OpenOptions & { readonly pinned: readonly string[] },
): Promise<RebuiltConfig> {
  const stores = pinned.length === 0 || acceptNewStore === true ? undefined : pinned;
  const { master, store, notes } = await unlock(backend, stores, passwordOf(password), undefined, signal);
  const sealer = new AesGcmSealer(master, store);
  const { readable, unreadable } = await recordsOpenedBy(backend, sealer);
  if (readable === 0 && unreadable > 0) throw lost;
  const { graceSeconds } = notes;
  const config = newConfig({ id: store, scheme: sealer.scheme, graceSeconds });
  return { found: { id: store }, bytes: encodeConfig(config, sealer) };
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

/** How many of the records and indexes that match their names this sealer opens, and how many not. */
async function recordsOpenedBy(
  backend: Backend,
  sealer: Sealer,
): Promise<{ readable: number; unreadable: number }> {
  let [readable, unreadable] = [0, 0];
  for (const folder of ['snapshots', 'indexes'] as const) {
    for (const { name } of await backend.list(folder)) {
      if (!isHexId(name)) continue;
      const file = `${folder}/${name}`;
      const bytes = await backend.get(file, { offset: 0, length: MAX_RECORD_BYTES });
      if (toHex(idOf(bytes)) !== name) continue;
      try {
        const kind = folder === 'snapshots' ? 'snapshot' : 'index';
        const plain = sealer.open({ kind, file }, bytes);
        if (kind === 'snapshot') decodeSnapshot(plain, name);
        else decodeIndex(plain, file, sealer.scheme !== 'none');
        readable++;
      } catch (error) {
        if (!(error instanceof StoreDamage)) throw error;
        if (error.code === 'STORE_VERSION') readable++;
        else unreadable++;
      }
    }
  }
  return { readable, unreadable };
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
    const file = parseConfig(bytes, '');
    return file.scheme === 'none' ? file.open(PLAIN_SEALER) : undefined;
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
