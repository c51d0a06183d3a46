import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { SqlsyncError, sanitizeText, systemErrorCode } from '../../errors.ts';
import { syncFolder } from '../../files/durable.ts';
import { sharingOf } from '../../files/ownership.ts';
import { makePrivateFolder, userStateFolder } from '../../files/user-cache.ts';
import { tryExclusiveLock } from '../../sqlite/locks/exclusive-lock.ts';
import type { ExclusiveLock } from '../../sqlite/locks/exclusive-lock.ts';

/** Another run changes the file within a few milliseconds, unless it is stopped. */
const LOCK_PAUSE_MS = 10;
const MAX_LOCK_PAUSES = 1000;

/** The place of a snapshot in the order of its store. */
export interface SeenSnapshot {
  readonly id: string;
  readonly generation: number;
}

/** An encrypted store that this user has opened at an address. */
interface KnownStore {
  readonly id: string;
  /** Id of the key file that opened last. */
  readonly key: string;
  /** The newest snapshot that was seen there. */
  readonly newest?: SeenSnapshot;
  /** True since `newest` was found missing, until the user accepts that. */
  readonly isOlder?: boolean;
}

/** What a store is found to be. `id` is undefined in a store that is not encrypted. */
type Found = Pick<KnownStore, 'id'> | undefined;

/**
 * What this user remembers of the encrypted stores at one address, as known_hosts remembers the keys of hosts: so that
 * nobody can put another store in the place of one, least of all one that is not encrypted, or an older state of it.
 * Stores that are not encrypted are not remembered: their place can show what it likes anyway.
 */
export class StoreMemory {
  readonly #address: string;
  readonly #onWarning: (warning: string) => void;
  readonly #isPast: boolean;
  readonly #keeps: boolean;
  #open: string | undefined;
  #isAccepted = false;

  /**
   * @param address - of the store, spelled in one way whatever the user wrote.
   * @param isPast - true if the store is read as it was at a time.
   * @param keeps - false to change nothing that is remembered.
   * @param onWarning - gets what the user has to know, but which is no reason to stop.
   */
  constructor(
    address: string,
    { isPast, keeps }: { readonly isPast: boolean; readonly keeps: boolean },
    onWarning: (warning: string) => void,
  ) {
    this.#keeps = keeps;
    this.#address = address;
    this.#isPast = isPast;
    this.#onWarning = onWarning;
  }

  /** The key file that opened this store last. */
  keyOf(id: string): string | undefined {
    return this.#known().find((known) => known.id === id)?.key;
  }

  /** The ids of the encrypted stores that were here. Throws SqlsyncError STORE_CHANGED if that cannot be found out. */
  get ids(): readonly string[] {
    return this.#known().map(({ id }) => id);
  }

  /** Throws SqlsyncError STORE_CHANGED if another store was here, unless the user accepts this one. */
  check(found: Found, accepts: boolean): void {
    this.#warnIfShared();
    const known = this.#known();
    if (accepts || known.length === 0 || known.some(({ id }) => id === found?.id)) return;
    const was = `the encrypted store with the id ${known.at(-1)?.id ?? ''}`;
    const is =
      found === undefined ? 'a store that is NOT encrypted' : `another store, ${sanitizeText(found.id, 64)}`;
    throw new SqlsyncError('STORE_CHANGED', `In ${this.#address} there was ${was}; now there is ${is}`, {
      hint: 'Somebody may have put it there to read your next backup. If you know why it changed, add --accept-new-store once.',
    });
  }

  /**
   * Remembers the store that was opened.
   *
   * @param accepts - true to forget the others at the same address, and that this one ever had a newer state.
   */
  opened(id: string, key: string, accepts: boolean = false): void {
    if (accepts) return this.made(id, key);
    this.#open = id;
    if (this.keyOf(id) !== key) this.#changeOne(id, (same) => ({ ...same, id, key }));
  }

  /** Remembers a new store instead of those that were here. */
  made(id: string, key: string): void {
    this.#open = id;
    this.#isAccepted = true;
    this.#change(() => [{ id, key }]);
  }

  /** The newest snapshot that this user saw in the open store, which should be in it. */
  get newest(): SeenSnapshot | undefined {
    if (this.#isPast) return undefined;
    const { newest } = this.#knownOpen ?? {};
    // A dry run leaves it in the file.
    return this.#isAccepted && !this.#keeps ? undefined : newest;
  }

  get #knownOpen(): KnownStore | undefined {
    return this.#known().find(({ id }) => id === this.#open);
  }

  /** True if the newest snapshot was found missing, and the user did not accept that. */
  get isOlder(): boolean {
    return this.newest !== undefined && this.#knownOpen?.isOlder === true;
  }

  /** Remembers whether the newest snapshot is missing. */
  set isOlder(isOlder: boolean) {
    const open = this.#knownOpen;
    if (open === undefined || (open.isOlder === true) === isOlder) return;
    this.#changeOne(open.id, (same = open) => {
      const { isOlder: _, ...rest } = same;
      return isOlder ? { ...rest, isOlder } : rest;
    });
  }

  /** Throws SqlsyncError STORE_CHANGED if the store is in an older state: snapshots are not to be judged by it. */
  refuseOlder(): void {
    if (!this.isOlder) return;
    throw new SqlsyncError(
      'STORE_CHANGED',
      `The store ${this.#address} is in an older state than this host saw`,
      {
        hint: 'Nothing is forgotten or pruned in such a store. If you know why it changed, add --accept-new-store once.',
      },
    );
  }

  /** Remembers the newest snapshot of the open store, unless the one before it is missing. */
  saw(newest: SeenSnapshot): void {
    const open = this.#knownOpen;
    if (this.#isPast || open === undefined || this.isOlder || !isNews(newest, open)) return;
    this.#changeOne(open.id, (same = open) => (isNews(newest, same) ? { ...same, newest } : same));
  }

  warn(warning: string): void {
    this.#onWarning(warning);
  }

  /** Forgets the stores of this address. */
  forget(): void {
    const path = this.#keeps ? this.#pathOrNothing() : undefined;
    if (path !== undefined) rmSync(path, { force: true });
  }

  /** Throws SqlsyncError STORE_CHANGED if the file cannot be read: it may say that the store is encrypted. */
  #known(): readonly KnownStore[] {
    const path = this.#pathOrNothing();
    if (path === undefined) return [];
    try {
      const { stores } = JSON.parse(readFileSync(path, 'utf8')) as { readonly stores: readonly KnownStore[] };
      if (!stores.every(({ id, key }) => typeof id === 'string' && typeof key === 'string'))
        throw new Error('it is no list of stores');
      return stores;
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT' || systemErrorCode(error) === 'ENOTDIR') return [];
      throw new SqlsyncError('STORE_CHANGED', `What is known of the store ${this.#address} cannot be read`, {
        hint: `Remove ${sanitizeText(path, 400)} if you are sure that this is your store.`,
        cause: error,
      });
    }
  }

  /** Changes what is remembered of one store, by what the file says of it at that moment. */
  #changeOne(store: string, change: (same: KnownStore | undefined) => KnownStore): void {
    this.#change(() => {
      const known = this.#known();
      const others = known.filter(({ id }) => id !== store);
      return [...others, change(known.find(({ id }) => id === store))];
    });
  }

  /** Writes what `stores` returns, while no other run changes the file. */
  #change(stores: () => readonly KnownStore[]): void {
    if (!this.#keeps || this.#isPast) return;
    try {
      const path = this.#path();
      makePrivateFolder(dirname(path));
      const lock = lockOf(path);
      try {
        const content = { address: this.#address, stores: stores() };
        writeWhole(path, `${JSON.stringify(content, undefined, 2)}\n`);
      } finally {
        lock?.release();
      }
    } catch (error) {
      if (error instanceof SqlsyncError && error.code === 'STORE_CHANGED') throw error;
      const why = error instanceof Error ? error.message : String(error);
      this.#onWarning(
        `What this host knows of the store ${this.#address} cannot be kept: ${sanitizeText(why)}. Nobody would notice if another store were put in its place`,
      );
    }
  }

  /** Warns if other users can remove what is remembered. */
  #warnIfShared(): void {
    const path = this.#pathOrNothing();
    const folder = path === undefined ? '' : dirname(path);
    if (!existsSync(folder)) return;
    const { byOwner, byMode } = sharingOf(folder);
    if (!byOwner && !byMode) return;
    this.#onWarning(
      `Other users can change what sqlsync remembers of encrypted stores in ${sanitizeText(folder, 400)}. Nobody would notice if another store were put in the place of one. Expected a folder of this user with the mode 700`,
    );
  }

  /** undefined for a user who has no such folder, and so has remembered nothing. */
  #pathOrNothing(): string | undefined {
    try {
      return this.#path();
    } catch {
      return undefined;
    }
  }

  /** Throws SqlsyncError USAGE. */
  #path(): string {
    const name = createHash('sha256').update(this.#address).digest('hex').slice(0, 32);
    return join(userStateFolder('stores'), `${name}.json`);
  }
}

/** True if a snapshot is newer than the newest that is remembered of a store. */
function isNews(snapshot: SeenSnapshot, { newest }: KnownStore): boolean {
  return newest === undefined || (newest.id !== snapshot.id && newest.generation <= snapshot.generation);
}

/**
 * Keeps other runs from changing the file. undefined where that is impossible: a change that is lost in a race does less
 * harm than one that is not written.
 */
function lockOf(path: string): ExclusiveLock | undefined {
  try {
    for (let pauses = 0; pauses < MAX_LOCK_PAUSES; pauses++) {
      const lock = tryExclusiveLock(`${path}.lock`);
      if (lock !== undefined) return lock;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOCK_PAUSE_MS);
    }
  } catch {
    // A file system may have no locks.
  }
  return undefined;
}

/** The file has the old text or the new one, also over a power cut. Throws the system's errors. */
function writeWhole(path: string, text: string): void {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    const file = openSync(temporary, 'wx', 0o600);
    try {
      writeSync(file, text);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
    syncFolder(path);
  } finally {
    rmSync(temporary, { force: true });
  }
}
