import { hostname, userInfo } from 'node:os';
import { SqlsyncError } from '../../errors.ts';
import type { Backend } from '../backends/backend.ts';
import { idOf, isHexId, toHex } from '../packs/object-id.ts';
import { damaged, StoreDamage } from '../store-error.ts';
import { decodeKeyFile, encodeKeyFile, MAX_KEY_FILE_BYTES, notesOf, unwrap } from './key-file.ts';
import type { KeyFile, KeyNotes } from './key-file.ts';
import type { Password } from './password.ts';

/** More would let a hostile store keep its users busy. */
const MAX_KEY_FILES = 20;

/** A store whose master key is known. */
export interface Unlocked {
  readonly master: Uint8Array;
  /** Id of the store. */
  readonly store: string;
  /** Id of the key file that the password opened. */
  readonly key: string;
  readonly notes: KeyNotes;
}

/** A key file of an open store. */
export interface StoreKey extends Pick<KeyNotes, 'host' | 'user'> {
  readonly id: string;
  readonly time: Date;
  /** True for the one that the password opened. */
  readonly isCurrent: boolean;
}

/** The key files that can be read, and what is wrong with the others. */
interface KeyFiles {
  readonly good: ReadonlyMap<string, KeyFile>;
  readonly bad: readonly StoreDamage[];
}

/**
 * Finds the master key. Throws SqlsyncError STORE_PASSWORD, STORE_DAMAGED, STORE_UNAVAILABLE.
 *
 * @param store - id of the store; undefined if its config is lost.
 * @param first - id of the key file that opened last time.
 */
export async function unlock(
  backend: Backend,
  store: string | undefined,
  password: Password | undefined,
  first?: string,
): Promise<Unlocked> {
  if (password === undefined) throw noPassword(backend.description);
  const { good, bad } = await readKeyFiles(backend);
  // What an interrupted init left belongs to a store that never was.
  const ours = [...good].filter(([, key]) => store === undefined || key.store === store);
  if (ours.length === 0)
    throw (
      bad[0] ??
      damaged('keys', 'has no key file: nobody can read this store. Bring them back from a copy of the store')
    );
  ours.sort(([a], [b]) => Number(b === first) - Number(a === first));
  const failed: StoreDamage[] = [...bad];
  for (const [id, key] of ours) {
    const file = `keys/${id}`;
    try {
      const master = await unwrap(key, password, file);
      if (master === undefined) continue;
      return { master, store: key.store, key: id, notes: notesOf(key, master, file) };
    } catch (error) {
      if (!(error instanceof StoreDamage)) throw error;
      failed.push(error);
    }
  }
  throw wrongPassword(backend.description, ours.length, failed);
}

/** All keys of an open store, the oldest first, and the damage of others. */
export async function listKeys(
  backend: Backend,
  { master, store, key }: Unlocked,
): Promise<{ readonly keys: readonly StoreKey[]; readonly bad: readonly StoreDamage[] }> {
  const { good, bad } = await readKeyFiles(backend);
  const failed = [...bad];
  const keys: StoreKey[] = [];
  for (const [id, file] of good) {
    if (file.store !== store) continue;
    try {
      const { time, host, user } = notesOf(file, master, `keys/${id}`);
      keys.push({ id, time: new Date(time), host, user, isCurrent: id === key });
    } catch (error) {
      if (!(error instanceof StoreDamage)) throw error;
      failed.push(error);
    }
  }
  return { keys: keys.toSorted((a, b) => a.time.getTime() - b.time.getTime()), bad: failed };
}

/** Puts a key file for another password, and returns its id. Throws SqlsyncError USAGE, STORE_*. */
export async function addKey(
  backend: Backend,
  { master, store, graceSeconds }: Pick<Unlocked, 'master' | 'store'> & { readonly graceSeconds: number },
  password: Password,
): Promise<string> {
  const there = (await backend.list('keys')).filter(({ name }) => isHexId(name));
  if (there.length >= MAX_KEY_FILES)
    throw new SqlsyncError(
      'USAGE',
      `The store has ${there.length} key files; the most are ${MAX_KEY_FILES}`,
      {
        hint: 'Remove one: sqlsync key remove STORE ID.',
      },
    );
  const notes = { time: new Date().toISOString(), host: hostname(), user: userName(), graceSeconds };
  const bytes = await encodeKeyFile(master, store, password, notes);
  const id = toHex(idOf(bytes));
  await backend.put(`keys/${id}`, [bytes]);
  return id;
}

/** Deletes a key file. Throws SqlsyncError USAGE for the one that is in use, so that one always remains. */
export async function removeKey(backend: Backend, unlocked: Unlocked, prefix: string): Promise<string> {
  const names = (await backend.list('keys')).map(({ name }) => name).filter(isHexId);
  const matching = names.filter((name) => name.startsWith(prefix));
  const [id] = matching;
  if (prefix.length < 4 || id === undefined || matching.length > 1)
    throw new SqlsyncError(
      'USAGE',
      `${matching.length} keys begin with "${prefix.slice(0, 64)}"; expected one, named by 4 digits or more`,
      { hint: '`sqlsync key list STORE` shows them.' },
    );
  if (id === unlocked.key)
    throw new SqlsyncError('USAGE', `The key ${id.slice(0, 8)} is the one of the password that was given`, {
      hint: 'The last key of a store cannot be removed. Change its password with `sqlsync key passwd STORE`, or give the password of another key.',
    });
  await backend.delete(`keys/${id}`);
  return id;
}

/** Throws SqlsyncError STORE_DAMAGED if there are too many. */
async function readKeyFiles(backend: Backend): Promise<KeyFiles> {
  const listed = (await backend.list('keys')).filter(({ name }) => isHexId(name));
  if (listed.length > MAX_KEY_FILES)
    throw damaged('keys', `has ${listed.length} key files; the most are ${MAX_KEY_FILES}`);
  const good = new Map<string, KeyFile>();
  const bad: StoreDamage[] = [];
  for (const { name } of listed.toSorted((a, b) => a.modified.getTime() - b.modified.getTime())) {
    const file = `keys/${name}`;
    try {
      const bytes = await backend.get(file, { offset: 0, length: MAX_KEY_FILE_BYTES + 1 });
      if (toHex(idOf(bytes)) !== name) throw damaged(file, 'was changed or cut since it was written');
      good.set(name, decodeKeyFile(bytes, file));
    } catch (error) {
      if (!(error instanceof StoreDamage)) throw error;
      // Another program may have removed it.
      if (error.code !== 'STORE_FILE_MISSING') bad.push(error);
    }
  }
  return { good, bad };
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return '';
  }
}

const WAYS =
  '--password-file FILE, --password-command COMMAND or SQLSYNC_PASSWORD_FILE, or type it on a terminal';

function noPassword(store: string): SqlsyncError {
  return new SqlsyncError('STORE_PASSWORD', `The store ${store} is encrypted; expected its password`, {
    hint: `Give it with ${WAYS}.`,
  });
}

function wrongPassword(store: string, tried: number, bad: readonly StoreDamage[]): SqlsyncError {
  const also = bad.map(({ message }) => `; ${message}`).join('');
  return new SqlsyncError(
    'STORE_PASSWORD',
    `The password is not that of ${tried === 1 ? 'the key' : `any of the ${tried} keys`} of the store ${store}${also}`,
    { hint: `Check it. It comes from ${WAYS}.` },
  );
}
