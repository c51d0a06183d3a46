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

/** A password, and the signal that ends the wait for it. */
interface Asking {
  readonly password: Password;
  readonly signal?: AbortSignal | undefined;
}

/** The key files that can be read, and what is wrong with the others. */
interface KeyFiles {
  readonly good: ReadonlyMap<string, KeyFile>;
  readonly bad: readonly StoreDamage[];
}

/**
 * Finds the master key. Throws SqlsyncError STORE_PASSWORD, STORE_DAMAGED, STORE_UNAVAILABLE, and INTERRUPTED between two
 * key files: one of a hostile store takes up to 15 s.
 *
 * @param stores - ids of the stores that it may be; undefined if its config is lost.
 * @param first - id of the key file that opened last time. If it opens again, nothing is listed.
 */
export async function unlock(
  backend: Backend,
  stores: readonly string[] | undefined,
  password: Password | undefined,
  first?: string,
  signal?: AbortSignal,
): Promise<Unlocked> {
  if (password === undefined) throw noPassword(backend.description);
  const known =
    first === undefined ? undefined : await openKnown(backend, stores, first, { password, signal });
  if (known !== undefined) return known;
  const { good, bad } = await readKeyFiles(backend);
  // What an interrupted init left belongs to a store that never was.
  const ours = [...good].filter(([, key]) => stores?.includes(key.store) ?? true);
  if (ours.length === 0)
    throw (
      bad[0] ??
      damaged('keys', 'has no key file: nobody can read this store. Bring them back from a copy of the store')
    );
  // A hostile one asks for as much time as it may.
  ours.sort(([, a], [, b]) => a.scrypt.N * a.scrypt.p - b.scrypt.N * b.scrypt.p);
  let changed: StoreDamage | undefined;
  for (const [id, key] of ours) {
    try {
      const unlocked = await openWith(key, id, { password, signal });
      if (unlocked !== undefined) return unlocked;
    } catch (error) {
      if (!(error instanceof StoreDamage)) throw error;
      // Its commitment says that the password is right.
      changed = error;
    }
  }
  throw changed ?? wrongPassword(backend.description, ours.length, bad);
}

/** The store, opened with one key file; undefined if that is gone, damaged, or of another password or store. */
async function openKnown(
  backend: Backend,
  stores: readonly string[] | undefined,
  id: string,
  asking: Asking,
): Promise<Unlocked | undefined> {
  try {
    const { file } = await readKeyFile(backend, id);
    return (stores?.includes(file.store) ?? true) ? await openWith(file, id, asking) : undefined;
  } catch (error) {
    if (error instanceof StoreDamage) return undefined;
    throw error;
  }
}

/** undefined if the password is not that of this file. Throws SqlsyncError STORE_DAMAGED, INTERRUPTED. */
async function openWith(
  key: KeyFile,
  id: string,
  { password, signal }: Asking,
): Promise<Unlocked | undefined> {
  const file = `keys/${id}`;
  await password.text(signal);
  const master = await unwrap(key, password, file);
  return master && { master, store: key.store, key: id, notes: notesOf(key, master, file) };
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

/**
 * Puts a key file for another password, and returns its id. Throws SqlsyncError USAGE, STORE_*.
 *
 * @param most - how many key files there may be afterwards.
 */
export async function addKey(
  backend: Backend,
  { master, store, graceSeconds }: Pick<Unlocked, 'master' | 'store'> & { readonly graceSeconds: number },
  password: Password,
  most: number = MAX_KEY_FILES,
): Promise<string> {
  const there = (await backend.list('keys')).filter(({ name }) => isHexId(name));
  if (there.length >= most)
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
  await deleteKey(backend, unlocked, id);
  return id;
}

/**
 * Changes the password of the open store: puts a key file for the new one, and deletes that of the old one when the new
 * one has opened the store. Throws SqlsyncError USAGE, STORE_*.
 *
 * @param onPut - gets the id of the new key file before the old one goes.
 */
export async function changeKey(
  backend: Backend,
  old: Unlocked & { readonly graceSeconds: number },
  password: Password,
  onPut: (id: string) => void,
): Promise<Unlocked> {
  // One more than a store may have, until the old one is deleted.
  const id = await addKey(backend, old, password, MAX_KEY_FILES + 1);
  const { file } = await readKeyFile(backend, id);
  const unlocked = await openWith(file, id, { password });
  if (unlocked === undefined) throw damaged(`keys/${id}`, 'does not open with the new password');
  onPut(id);
  await deleteKey(backend, unlocked, old.key);
  return unlocked;
}

/**
 * Deletes a key file, and leaves the store with one that opens. Two runs may each delete the key of the other: the one
 * that deletes last then finds none, and puts its own back. Throws SqlsyncError STORE_*.
 */
async function deleteKey(backend: Backend, own: Unlocked, id: string): Promise<void> {
  const { bytes, file } = await readKeyFile(backend, own.key);
  notesOf(file, own.master, `keys/${own.key}`);
  await backend.delete(`keys/${id}`);
  const { keys } = await listKeys(backend, own);
  if (keys.length === 0) await backend.put(`keys/${own.key}`, [bytes]);
}

/** One key file. Throws SqlsyncError STORE_DAMAGED, STORE_FILE_MISSING, STORE_UNAVAILABLE. */
async function readKeyFile(
  backend: Backend,
  id: string,
): Promise<{ readonly bytes: Uint8Array; readonly file: KeyFile }> {
  const name = `keys/${id}`;
  const bytes = await backend.get(name, { offset: 0, length: MAX_KEY_FILE_BYTES + 1 });
  if (toHex(idOf(bytes)) !== id) throw damaged(name, 'was changed or cut since it was written');
  return { bytes, file: decodeKeyFile(bytes, name) };
}

/** The oldest key files: somebody who may only put files could add others without end. */
async function readKeyFiles(backend: Backend): Promise<KeyFiles> {
  const listed = (await backend.list('keys')).filter(({ name }) => isHexId(name));
  const good = new Map<string, KeyFile>();
  const bad: StoreDamage[] = [];
  if (listed.length > MAX_KEY_FILES)
    bad.push(damaged('keys', `has ${listed.length} key files; the oldest ${MAX_KEY_FILES} were tried`));
  const ordered = listed.toSorted((a, b) => a.modified.getTime() - b.modified.getTime());
  for (const { name } of ordered.slice(0, MAX_KEY_FILES)) {
    try {
      good.set(name, (await readKeyFile(backend, name)).file);
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

/** With damaged key files, the password may be that of one of them. */
function wrongPassword(store: string, tried: number, bad: readonly StoreDamage[]): SqlsyncError {
  const also = bad.map(({ message }) => `; ${message}`).join('');
  return new SqlsyncError(
    bad.length === 0 ? 'STORE_PASSWORD' : 'STORE_DAMAGED',
    `The password is not that of ${tried === 1 ? 'the key' : `any of the ${tried} keys`} of the store ${store}${also}`,
    { hint: `Check it. It comes from ${WAYS}.` },
  );
}
