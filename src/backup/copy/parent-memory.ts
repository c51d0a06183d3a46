import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { removeIfThere } from '../backends/kept-files.ts';
import { makePrivateFolder, ownCacheFolder } from '../../files/user-cache.ts';
import { decodeChecked, encodeChecked } from '../files/checked-json.ts';
import { lookForSnapshot, recallContents, recallSnapshot } from '../files/recall.ts';
import type { RememberedContents } from '../files/recall.ts';
import type { StoreAccess, StoreContents } from '../files/store-files.ts';
import type { StoreSnapshot } from '../types.ts';

/** Lists are read at least so often: only they show that a pack was lost. */
const MAX_AGE_MS: number = 7 * 24 * 3600 * 1000;

/** And after so many backups without them: each may add an index. */
const MAX_RUNS = 64;

/** Files of origins that were not backed up for so long are removed. */
const MAX_FILE_AGE_MS: number = 90 * 24 * 3600 * 1000;

/** What a backup leaves for the next one of the same origin, which can then do without lists. */
export interface RememberedParent extends RememberedContents {
  /** Id of the snapshot; the indexes name everything that it needs. */
  readonly snapshot: string;
  /** Backups since the lists were read. */
  readonly runs: number;
}

/** A parent that was found without lists, with everything that a backup may rely on. */
export interface RecalledParent extends RememberedParent {
  readonly record: StoreSnapshot;
  readonly contents: StoreContents;
}

/**
 * Remembers, in a folder of this host, the newest snapshot of each origin in one store. docs/store-format.md, "Backup
 * without lists", says why a backup may believe it.
 */
export class ParentMemory {
  readonly #folder: string;
  readonly #place: string;

  /** @param place - the address of the store: one that was copied has the same id elsewhere, and other contents. */
  constructor(folder: string, place: string) {
    this.#folder = folder;
    this.#place = place;
  }

  /**
   * The memory of a store in the user's cache folder; undefined if this user can have none of its own there.
   *
   * @param id - of the store.
   * @param place - its address.
   */
  static of(id: string, place: string): ParentMemory | undefined {
    const folder = ownCacheFolder('parents', id);
    return folder === undefined ? undefined : new ParentMemory(folder, place);
  }

  /**
   * The parent of the next backup of an origin, if the store still has it and nothing speaks against relying on it;
   * otherwise undefined. Throws SqlsyncError STORE_UNAVAILABLE.
   *
   * @param snapshot - the id of the snapshot whose page hashes are known.
   */
  async recall(access: StoreAccess, origin: string, snapshot: string): Promise<RecalledParent | undefined> {
    const remembered = this.#load(access, origin);
    if (remembered?.snapshot !== snapshot || !hasClock(access)) return undefined;
    const record = recallSnapshot(access, snapshot);
    const contents = record && recallContents(access, remembered);
    if (record === undefined || contents === undefined) return undefined;
    const isThere = (await lookForSnapshot(access, snapshot)) === 'there';
    return isThere ? { ...remembered, record, contents } : undefined;
  }

  /** Ignores errors of the system: the next backup then reads the lists. */
  save(access: StoreAccess, origin: string, { listed, ...rest }: RememberedParent): void {
    const path = this.#pathOf(origin);
    const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
    const content = { version: 1, ...rest, listed: listed.toISOString(), config: digestOf(access), origin };
    try {
      makePrivateFolder(this.#folder);
      this.#removeOld();
      writeFileSync(temporary, encodeChecked(content), { mode: 0o600, flag: 'wx' });
      renameSync(temporary, path);
    } catch {
      removeIfThere(temporary);
      this.forget(origin);
    }
  }

  /** Makes the next backup of an origin read the lists. */
  forget(origin: string): void {
    removeIfThere(this.#pathOf(origin));
  }

  /** Makes the next backup of each origin read the lists: what is remembered may name packs that are gone. */
  forgetAll(): void {
    try {
      for (const name of readdirSync(this.#folder)) removeIfThere(join(this.#folder, name));
    } catch {
      // Nothing is remembered.
    }
  }

  #load(access: StoreAccess, origin: string): RememberedParent | undefined {
    let content: Readonly<Record<string, unknown>>;
    try {
      content = decodeChecked(readFileSync(this.#pathOf(origin)), 'a file of the cache');
    } catch {
      return undefined;
    }
    const listed = new Date(String(content['listed']));
    // A wrong clock of this host must not keep it from the lists.
    const ageMs = (access.backend.now?.() ?? Date.now()) - listed.getTime();
    const runs = Number(content['runs']);
    const isOurs = content['version'] === 1 && content['origin'] === origin;
    const isValid =
      isOurs && content['config'] === digestOf(access) && ageMs >= 0 && ageMs < MAX_AGE_MS && runs < MAX_RUNS;
    return isValid ? { ...(content as unknown as RememberedParent), listed } : undefined;
  }

  #pathOf(origin: string): string {
    return join(
      this.#folder,
      createHash('sha256').update(`${this.#place}\n${origin}`).digest('hex').slice(0, 32),
    );
  }

  #removeOld(): void {
    for (const name of readdirSync(this.#folder)) {
      const path = join(this.#folder, name);
      const modified = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Infinity;
      if (Date.now() - modified > MAX_FILE_AGE_MS) rmSync(path, { force: true });
    }
  }
}

/** True if the snapshot's place in the order is known without the others: see `nextGeneration`. */
function hasClock({ backend }: StoreAccess): boolean {
  return backend.now === undefined || backend.now() !== undefined;
}

/** Changes when a repair gave something up. */
function digestOf({ config }: StoreAccess): string {
  return createHash('sha256').update(JSON.stringify(config)).digest('hex');
}
