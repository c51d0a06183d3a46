import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DirectoryBackend } from '../../../../src/backup/backends/directory-backend.ts';
import { HashCache } from '../../../../src/backup/copy/hash-cache.ts';
import { Password } from '../../../../src/backup/keys/password.ts';
import { openBackend } from '../../../../src/backup/open-store.ts';
import { initStore, OpenStore } from '../../../../src/backup/store.ts';
import type { StoreSnapshot } from '../../../../src/backup/types.ts';
import { toSqlsyncError } from '../../../../src/errors.ts';
import { assertStored, backupHere } from '../../../backup/store-here.ts';
import type { StoreHere } from '../../../backup/store-here.ts';
import { change, smallDatabase } from '../../../pages/databases.ts';
import { pageImage } from '../../../support/compare.ts';
import { OriginWriter } from '../origin-writer.ts';

/**
 * The store that a command finds: none; an empty one; one with three snapshots of the origin and one of
 * another database; the same with forgotten snapshots; and that with their packs marked and more snapshots
 * forgotten, so that a prune marks, copies and deletes. The last two have no grace period.
 */
export const STORE_KINDS = ['absent', 'empty', 'used', 'garbage', 'marked'] as const;
export type StoreKind = (typeof STORE_KINDS)[number];

const PASSWORD = 'the password of the faults';
const NEW_PASSWORD = 'the next password of the faults';

/** The number of prunes after which a store must be rid of everything that nothing needs. */
const MAX_PRUNES = 8;

/** A store in a folder of its own, for one run. */
export interface StoreRun {
  readonly folder: string;
  readonly store: string;
}

/** The content that a store must have. */
export interface Expected {
  /** Ids of snapshots that a command reported as stored and that no command was to take away. */
  readonly kept: Iterable<string>;
  /** False if the store need not exist yet. */
  readonly isMade?: boolean;
}

/**
 * The databases, one of them with a WAL and a process that goes on taking its write lock; stores of each
 * kind; and the judge of each store's state after a fault.
 */
export class StoreScene {
  readonly folder: string;
  /** The database that commands back up. */
  readonly origin: string;
  /** The database of each snapshot, by id. */
  readonly images: Map<string, Buffer> = new Map();
  /** The old password and the one that a change makes of it, each computed once; none if the stores are not encrypted. */
  readonly #passwords: readonly Password[];
  readonly #other: string;
  readonly #kept = new Map<StoreKind, readonly string[]>();
  #originBytes: readonly Buffer[] = [];
  #image: Buffer = Buffer.alloc(0);
  #writer: OriginWriter | undefined;

  /**
   * Makes the scene in `folder`, which it creates. The caller must call `end`.
   *
   * @param isEncrypted - whether the stores are; their password is then in `passwordFile`.
   */
  static async make(
    folder: string,
    kinds: readonly StoreKind[] = STORE_KINDS,
    isEncrypted: boolean = false,
  ): Promise<StoreScene> {
    const scene = new StoreScene(folder, isEncrypted);
    mkdirSync(folder, { recursive: true });
    writeFileSync(scene.passwordFile, PASSWORD);
    writeFileSync(scene.newPasswordFile, NEW_PASSWORD);
    smallDatabase(scene.origin, { rows: 60, journalMode: 'wal' });
    smallDatabase(scene.#other, { rows: 20 });
    scene.#writer = await OriginWriter.start(scene.origin);
    scene.#learnOrigin();
    for (const kind of kinds) await scene.#makeStore(kind);
    await scene.changeOrigin(4);
    return scene;
  }

  private constructor(folder: string, isEncrypted: boolean) {
    this.folder = folder;
    this.#passwords = isEncrypted ? [PASSWORD, NEW_PASSWORD].map((text) => new Password(text)) : [];
    this.origin = join(folder, 'origin.db');
    this.#other = join(folder, 'other.db');
  }

  get passwordFile(): string {
    return join(this.folder, 'password');
  }

  get newPasswordFile(): string {
    return join(this.folder, 'new-password');
  }

  /** Records the state of the origin as it is now. */
  get image(): Buffer {
    return this.#image;
  }

  async end(): Promise<void> {
    await this.#writer?.end();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** An untouched store of this kind, in `folder`. */
  run(kind: StoreKind, folder: string = mkdtempSync(join(this.folder, 'run-'))): StoreRun {
    const template = this.#template(kind);
    // With the times of files: they tell what is within the grace period.
    if (existsSync(template))
      cpSync(template, join(folder, 'store'), { recursive: true, preserveTimestamps: true });
    return { folder, store: join(folder, 'store') };
  }

  /** The snapshots of a store of this kind, oldest first. */
  keptIn(kind: StoreKind): readonly string[] {
    return this.#kept.get(kind) ?? [];
  }

  /**
   * A little of each page, and half of the content so that no delta pays, another half each time: so packs become garbage in part. The
   * change stays in the WAL.
   */
  async changeOrigin(number: number): Promise<void> {
    change(
      this.origin,
      `UPDATE item SET amount = ${number} WHERE id % 7 = ${number % 7};
       UPDATE item SET payload = randomblob(2000) WHERE (id + ${number}) / 15 % 2 = 0`,
    );
    // This had made the other writer wait.
    await this.#writer?.figures();
    this.#learnOrigin();
  }

  /** Rejects if the origin has changed, or its writer had to wait. */
  async checkOrigin(): Promise<void> {
    const figures = await this.#writer?.figures();
    assert.equal(figures?.refused, 0, 'refusals of the write lock to the writer of the origin');
    assert.ok((figures?.taken ?? 0) > 0, 'the origin has no writer');
    const isSame = this.#readOrigin().every((bytes, i) => bytes.equals(this.#originBytes[i] as Buffer));
    assert.ok(isSame, 'the origin was changed');
  }

  /**
   * Checks that every expected snapshot exists, that each existing one gives back its database, and that no
   * file has a fault. Resolves to the ids of all.
   */
  async checkStore({ store }: StoreRun, { kept, isMade }: Expected): Promise<readonly string[]> {
    if (isMade === false && !existsSync(join(store, 'config'))) return [];
    const here = await this.#open(store);
    const snapshots = await here.store.snapshots({ onWarning: (warning) => assert.fail(warning) });
    const ids = snapshots.map(({ id }) => id);
    for (const id of kept) assert.ok(ids.includes(id), `snapshot ${id} was lost`);
    await assertStored(here, snapshots, this.images);
    const { problems, damaged } = await here.store.check({ readData: true });
    assert.deepEqual([problems, damaged.map(({ snapshot }) => snapshot.id)], [[], []], 'check --read-data');
    return ids;
  }

  /** Checks that the next backup and the next prunes succeed, the kept snapshots stay, and the origin is untouched. */
  async goOn(run: StoreRun, { kept, isMade }: Expected): Promise<void> {
    if (isMade === false && !existsSync(join(run.store, 'config')))
      await initStore(run.store, { password: this.#passwords[0] });
    const here = await this.#open(run.store);
    const { id } = await backupHere(here, this.origin);
    this.images.set(id, this.#image);
    const all = await this.checkStore(run, { kept: [...kept, id] });
    for (let prunes = 1; ; prunes++) {
      const summary = await here.store.prune({ graceSeconds: 1e-9 });
      if (summary.packsMarked + summary.packsWaiting + summary.packsDeleted === 0) break;
      assert.ok(prunes < MAX_PRUNES, `${prunes} prunes, and there is more to do: ${JSON.stringify(summary)}`);
    }
    assert.deepEqual(await this.checkStore(run, { kept: all }), all, 'after the prunes');
    await this.checkOrigin();
  }

  /** Removes the folder of a run that is over. */
  discard({ folder }: StoreRun): void {
    rmSync(folder, { recursive: true, force: true });
  }

  async #makeStore(kind: StoreKind): Promise<void> {
    if (kind === 'absent') return;
    const path = this.#template(kind);
    const hasGrace = kind === 'empty' || kind === 'used';
    const [password] = this.#passwords;
    await initStore(path, hasGrace ? { password } : { password, graceSeconds: 1e-9 });
    const here = await this.#open(path);
    if (kind !== 'empty') {
      await this.#backUp(here, this.#other);
      for (let number = 0; number < 3; number++) {
        await this.changeOrigin(number);
        await this.#backUp(here, this.origin);
      }
    }
    const snapshots = await here.store.snapshots();
    if (kind === 'garbage' || kind === 'marked') await here.store.forget(idsOf(snapshots.slice(0, 2)));
    if (kind === 'marked') {
      await here.store.prune();
      await here.store.forget(idsOf(snapshots.slice(2, 3)));
    }
    if (kind === 'garbage' || kind === 'marked') {
      const { packsMarked, packsDeleted, packsRepacked } = await here.store.prune({ dryRun: true });
      const plan = `${packsMarked} packs to mark, ${packsDeleted} to delete, ${packsRepacked} to copy`;
      assert.ok(packsMarked > 0 && (kind === 'garbage' || (packsDeleted > 0 && packsRepacked > 0)), plan);
    }
    this.#kept.set(kind, idsOf(await here.store.snapshots()));
  }

  async #backUp(here: StoreHere, origin: string): Promise<void> {
    const { id } = await backupHere(here, origin);
    this.images.set(id, pageImage(origin));
  }

  /** With the old password, or else the new one: an interrupted change of the password may have had its effect. */
  async #open(store: string): Promise<StoreHere> {
    const [old, changed] = this.#passwords;
    try {
      return await storeIn(store, old);
    } catch (error) {
      if (toSqlsyncError(error).code !== 'STORE_PASSWORD') throw error;
      return storeIn(store, changed);
    }
  }

  #template(kind: StoreKind): string {
    return join(this.folder, `${kind}-store`);
  }

  #learnOrigin(): void {
    this.#image = pageImage(this.origin);
    this.#originBytes = this.#readOrigin();
  }

  #readOrigin(): readonly Buffer[] {
    return ['', '-wal'].map((suffix) => readFileSync(this.origin + suffix));
  }
}

/** A store with both agents of a backup in this process. */
export async function storeIn(folder: string, password?: Password): Promise<StoreHere> {
  const access = await openBackend(new DirectoryBackend(folder), { password });
  return { access, store: new OpenStore(access), cache: new HashCache(join(folder, 'cache'), access.sealer) };
}

function idsOf(snapshots: readonly StoreSnapshot[]): string[] {
  return snapshots.map(({ id }) => id);
}
