import { SqlsyncError } from '../../errors.ts';
import type { Backend, LocalBackend } from '../backends/backend.ts';
import type { StoreMemory } from '../keys/known-stores.ts';
import { Password, passwordOf } from '../keys/password.ts';
import type { PasswordSource } from '../keys/password.ts';
import { addKey, unlock } from '../keys/store-keys.ts';
import { isHexId } from '../packs/object-id.ts';
import { AesGcmSealer, newMasterKey } from '../sealed/aes-gcm.ts';
import { PLAIN_SEALER } from '../sealed/sealer.ts';
import { isMissing } from '../store-error.ts';
import { encodeConfig, newConfig, putConfig, storeExists } from './config.ts';
import type { ConfigFile } from './config.ts';
import type { StoreAccess } from './store-files.ts';

/** How to open a store. */
export interface OpenOptions {
  /** The password of an encrypted store; for another one it is an error. A function is called when it is needed. */
  readonly password?: PasswordSource | Password | undefined;
  /** True to accept another store than the encrypted one that was here, or an older state of it. */
  readonly acceptNewStore?: boolean | undefined;
  /** False to keep nothing of the store in the user's cache folder, and to use nothing that is there. */
  readonly cache?: boolean | undefined;
  /** True to change nothing that this host remembers of the store. */
  readonly dryRun?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called with what the user has to know of a store that can be opened. */
  readonly onWarning?: ((warning: string) => void) | undefined;
}

export interface InitOptions {
  /** How long prune waits between marking a pack and deleting it; default 12 hours. No backup may take longer. */
  readonly graceSeconds?: number | undefined;
  /** Encrypts the store, and opens it. A function is called when it is needed. */
  readonly password?: PasswordSource | Password | undefined;
  /** True to make a store that is not encrypted where this user had an encrypted one. */
  readonly plain?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called if the place cannot do all that a store wants of it. */
  readonly onWarning?: ((warning: string) => void) | undefined;
}

/**
 * Opens the store of this config. Throws SqlsyncError STORE_CHANGED, STORE_PASSWORD, STORE_DAMAGED, STORE_UNAVAILABLE,
 * INTERRUPTED.
 */
export async function accessTo(
  backend: LocalBackend,
  file: ConfigFile,
  { password, acceptNewStore = false, signal }: OpenOptions,
  memory?: StoreMemory,
): Promise<StoreAccess> {
  const { id } = file;
  const given = passwordOf(password);
  memory?.check(file.scheme === 'none' ? undefined : { id }, acceptNewStore);
  if (file.scheme === 'none') {
    if (given?.isGiven === true) throw notEncrypted(backend);
    const config = file.open(PLAIN_SEALER);
    if (acceptNewStore) memory?.forget();
    return { backend, files: backend, sealer: PLAIN_SEALER, config };
  }
  const unlocked = await unlock(backend, [id], given, memory?.keyOf(id), signal);
  const sealer = new AesGcmSealer(unlocked.master, id);
  const config = file.open(sealer);
  memory?.opened(id, unlocked.key, acceptNewStore);
  return { backend, files: backend, sealer, config, unlocked, memory };
}

/**
 * Makes an empty store. Throws SqlsyncError STORE_EXISTS, STORE_CHANGED, STORE_PASSWORD, STORE_UNAVAILABLE, INTERRUPTED.
 */
export async function makeStore(
  backend: LocalBackend,
  { password, graceSeconds, plain = false, signal, onWarning }: InitOptions,
  memory?: StoreMemory,
): Promise<StoreAccess> {
  const given = passwordOf(password);
  await refuseKeys(backend);
  if (given === undefined) {
    if (!plain && memory !== undefined && memory.ids.length > 0) throw wasEncrypted(backend);
    const config = newConfig({ graceSeconds });
    await putConfig(backend, encodeConfig(config, PLAIN_SEALER), onWarning);
    memory?.forget();
    return { backend, files: backend, sealer: PLAIN_SEALER, config };
  }
  await refuseConfig(backend);
  await given.text(signal);
  const config = newConfig({ graceSeconds, scheme: 'aes-256-gcm' });
  const master = newMasterKey();
  const sealer = new AesGcmSealer(master, config.id);
  // First: a store whose config is there can be opened.
  const store = { master, store: config.id, graceSeconds: config.graceSeconds };
  const key = await addKey(backend, store, given);
  try {
    await putConfig(backend, encodeConfig(config, sealer), onWarning);
  } catch (error) {
    if (error instanceof SqlsyncError && error.code === 'STORE_EXISTS') await backend.delete(`keys/${key}`);
    throw error;
  }
  memory?.made(config.id, key);
  const unlocked = await unlock(backend, [config.id], given, key);
  return { backend, files: backend, sealer, config, unlocked, memory };
}

/** A key file in a store that is not encrypted would make it look encrypted. */
async function refuseConfig(backend: Backend): Promise<void> {
  try {
    await backend.get('config', { offset: 0, length: 1 });
  } catch (error) {
    if (isMissing(error)) return;
    throw error;
  }
  throw storeExists(backend);
}

/** Key files without a config: an encrypted store lost it, or another `init` is at work, or was killed. */
async function refuseKeys(backend: Backend): Promise<void> {
  if (!(await backend.list('keys')).some(({ name }) => isHexId(name))) return;
  throw new SqlsyncError('STORE_EXISTS', `There are keys of an encrypted store in ${backend.description}`, {
    hint: 'Use that store. If its file `config` is missing, `sqlsync repair STORE` writes a new one. Only if there never was a store here: remove the folder keys.',
  });
}

function wasEncrypted({ description }: Backend): SqlsyncError {
  return new SqlsyncError(
    'STORE_CHANGED',
    `In ${description} there was an encrypted store; expected --encrypt, or --plain if the new one is to be readable by everybody there`,
    { hint: '`sqlsync init STORE --encrypt` makes an encrypted store.' },
  );
}

function notEncrypted({ description }: Backend): SqlsyncError {
  return new SqlsyncError(
    'STORE_PASSWORD',
    `A password was given, but the store ${description} is NOT encrypted; expected an encrypted one`,
    {
      hint: 'Leave out the password (also SQLSYNC_PASSWORD_FILE) if this store never was encrypted. Otherwise somebody put it in the place of yours. `sqlsync copy` copies it to an encrypted one.',
    },
  );
}
