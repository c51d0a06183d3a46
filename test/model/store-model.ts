import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import Database from 'better-sqlite3';
import { generateDatabase } from '../../fixtures/generate.ts';
import { applyStep, randomStep } from '../../fixtures/history.ts';
import { Random } from '../../fixtures/random.ts';
import type { LocalBackend } from '../../src/backup/backends/backend.ts';
import { ParentMemory } from '../../src/backup/copy/parent-memory.ts';
import type { RecalledParent } from '../../src/backup/copy/parent-memory.ts';
import { Password } from '../../src/backup/keys/password.ts';
import { openBackend } from '../../src/backup/open-store.ts';
import { OpenStore } from '../../src/backup/store.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { FaultyBackend } from '../backup/faulty-backend.ts';
import type { Fault } from '../backup/faulty-backend.ts';
import { assertStored, backupHere, storeElsewhere, storeHere } from '../backup/store-here.ts';
import type { StoreHere } from '../backup/store-here.ts';
import { tempDir } from '../support/compare.ts';

const GRACE_SECONDS = 1000;

/** The events of all histories. */
export interface Done {
  backups: number;
  failures: number;
  deleted: number;
  copied: number;
  /** The number of backups that were held up beyond the grace period. */
  held: number;
  /** The number of backups that did without lists, in a store elsewhere. */
  recalled?: number;
}

export function nothingDone(): Done {
  return { backups: 0, failures: 0, deleted: 0, copied: 0, held: 0 };
}

/** A test, or a long run outside of one. */
export type ModelContext = Pick<TestContext, 'mock' | 'after'>;

export interface ModelOptions {
  readonly backend: LocalBackend;
  readonly random: Random;
  readonly done: Done;
  /** True if backups rely on what this host remembers. */
  readonly isElsewhere?: boolean;
  readonly isEncrypted?: boolean;
}

interface ModelParts {
  readonly backend: LocalBackend;
  readonly here: StoreHere;
  readonly origins: readonly string[];
  readonly done: Done;
  readonly password: Password | undefined;
}

/** A store of two databases, and the content that it must have. The clock is the test's own. */
export class StoreModel {
  readonly #random: Random;
  readonly #context: ModelContext;
  readonly #backend: LocalBackend;
  readonly #here: StoreHere;
  readonly #origins: readonly string[];
  readonly #done: Done;
  readonly #password: Password | undefined;
  /** The database that each snapshot was made of, by id. */
  readonly #images = new Map<string, Buffer>();
  /** Snapshots that were reported and not forgotten. */
  readonly #kept = new Set<string>();
  #passedSeconds = 0;
  /** One operation is held up for longer than the grace period: then no request may be under way for as long. */
  #isHeldUp = false;
  /**
   * A backup is held up: a command that is killed just then may leave a record whose packs are gone, without
   * a report.
   */
  #isBackupHeldUp = false;

  static async start(
    t: ModelContext,
    { backend, random, done, isElsewhere = false, isEncrypted = false }: ModelOptions,
  ): Promise<StoreModel> {
    const folder = tempDir(t);
    const origins = ['a.db', 'b.db'].map((name) => join(folder, name));
    const pageSize = random.pick([512, 1024, 4096] as const);
    for (const origin of origins)
      generateDatabase(origin, { seed: random.uint32(), pageSize, rows: random.integer(5, 120) });
    t.mock.timers.reset();
    t.mock.timers.enable({ apis: ['Date'], now: 1_700_000_000_000 });
    // One object for all runs, which computes scrypt once.
    const password = isEncrypted ? new Password('the password of a model') : undefined;
    const open = isElsewhere ? storeElsewhere : storeHere;
    const opened = await open(backend, folder, GRACE_SECONDS, password);
    const here = isElsewhere ? { ...opened, parents: new CountedMemory(folder, done) } : opened;
    return new StoreModel(t, random, { backend, here, origins, done, password });
  }

  private constructor(
    t: ModelContext,
    random: Random,
    { backend, here, origins, done, password }: ModelParts,
  ) {
    this.#context = t;
    this.#random = random;
    this.#backend = backend;
    this.#here = here;
    this.#origins = origins;
    this.#done = done;
    this.#password = password;
  }

  /**
   * One day: changes, then some of backups, prunes and a forget at the same time; any of them may fail or be
   * killed.
   */
  async live(): Promise<void> {
    const random = this.#random;
    for (const origin of this.#origins) if (random.chance(0.8)) this.#change(origin);
    if (random.chance(0.2))
      rmSync(join(this.#origins[0] as string, '..', 'cache'), { recursive: true, force: true });
    const images = new Map(this.#origins.map((origin) => [origin, imageOf(origin)]));
    const backups: Promise<void>[] = [];
    this.#passedSeconds = 0;
    this.#isHeldUp = random.chance(0.5);
    this.#isBackupHeldUp = this.#isHeldUp && random.chance(0.4);
    for (let n = random.integer(0, 2); n > 0; n--) {
      const origin = random.pick(this.#origins);
      const hold = this.#isBackupHeldUp && n === 1 ? this.#holdBackUp() : undefined;
      backups.push(this.#attempt((here) => this.#backup(here, origin, images.get(origin) as Buffer), hold));
    }
    const jobs = [...backups];
    for (const chance of [0.5, 0.2]) {
      const hold = this.#isHeldUp && !this.#isBackupHeldUp ? this.#holdUp(backups) : undefined;
      if (random.chance(chance)) jobs.push(this.#attempt((here) => this.#prune(here), hold));
    }
    if (random.chance(0.4)) jobs.push(this.#attempt((here) => this.#forget(here)));
    await Promise.all(jobs);
    await this.#compare();
    // Sometimes the grace period is over by then, sometimes not, and sometimes the clock was set back.
    this.#setClock(random.chance(0.1) ? -random.integer(1, 3000) : random.integer(1, 1500));
  }

  /** In the end only what the snapshots need is left; a prune may free what the next one deletes. */
  async finish(): Promise<void> {
    for (let rounds = 1; ; rounds++) {
      this.#setClock(GRACE_SECONDS * 4);
      const { packsMarked, packsWaiting, packsDeleted } = await this.#here.store.prune();
      await this.#compare();
      if (packsMarked + packsWaiting + packsDeleted === 0) break;
      assert.ok(rounds < 30, `${packsMarked} packs marked, ${packsWaiting} waiting, ${packsDeleted} deleted`);
    }
    const { problems, damaged } = await this.#here.store.check({ readData: true });
    assert.deepEqual([problems.map(({ message }) => message), damaged], [[], []]);
  }

  #change(origin: string): void {
    const db = new Database(origin);
    try {
      for (let steps = this.#random.integer(1, 4); steps > 0; steps--)
        applyStep(db, randomStep(this.#random));
    } finally {
      db.close();
    }
  }

  async #backup(here: StoreHere, origin: string, image: Buffer): Promise<void> {
    const snapshot = await backupHere(here, origin, { usesParent: this.#random.chance(0.95) });
    this.#images.set(snapshot.id, image);
    this.#kept.add(snapshot.id);
    this.#done.backups++;
  }

  async #prune(here: StoreHere): Promise<void> {
    const { packsDeleted, packsRepacked } = await here.store.prune({
      maxUnusedRatio: this.#random.pick([0, 0.2, 0.9]),
    });
    this.#done.deleted += packsDeleted;
    this.#done.copied += packsRepacked;
  }

  async #forget(here: StoreHere): Promise<void> {
    const ids = [...this.#kept].filter(() => this.#random.chance(0.4));
    // From now on it may be gone, whether or not the command reports it.
    for (const id of ids) this.#kept.delete(id);
    await here.store.forget(ids);
  }

  /** Runs a command through a backend with pauses, which may fail now and then, or die. */
  async #attempt(
    action: (here: StoreHere) => Promise<void>,
    hold?: (number: number) => Promise<void> | undefined,
  ): Promise<void> {
    const random = this.#random;
    const dies = random.chance(0.2) && !this.#isBackupHeldUp ? random.integer(1, 40) : Infinity;
    const flaw = random.chance(0.2) && !this.#isBackupHeldUp ? 0.05 : 0;
    const plan = (number: number): Fault => {
      if (random.chance(0.1)) this.#passTime(random.integer(1, 40));
      if (number === dies) return this.#flaw();
      if (number > dies) return 'before';
      if (random.chance(0.1)) return 'twice';
      return random.chance(flaw) ? this.#flaw() : 'none';
    };
    const backend = new FaultyBackend(this.#backend, plan, new Random(random.uint32()), hold);
    const { kept } = this.#here.access;
    const opened = await openBackend(this.#backend, { password: this.#password });
    const access = { ...opened, backend, files: backend, kept };
    try {
      await action({ ...this.#here, access, store: new OpenStore(access) });
    } catch (error) {
      const codes = ['STORE_UNAVAILABLE', 'STORE_PRUNED'];
      // A file that was listed long ago may be gone, and a prune does nothing if it does not find all.
      if (this.#isHeldUp) codes.push('STORE_FILE_MISSING', 'STORE_DAMAGED');
      assert.ok(error instanceof SqlsyncError && codes.includes(error.code), error as Error);
      this.#done.failures++;
    }
    await backend.arrive();
  }

  #flaw(): Fault {
    return this.#random.pick(this.#isHeldUp ? ['before', 'after'] : ['before', 'after', 'late', 'late']);
  }

  /** Sometimes holds one operation up until the day's backups are over, and then for up to twice the grace period. */
  #holdUp(backups: readonly Promise<void>[]): (number: number) => Promise<void> | undefined {
    const at = this.#random.integer(1, 30);
    const seconds = this.#random.integer(1, GRACE_SECONDS * 2);
    return (number) => (number === at ? Promise.all(backups).then(() => this.#setClock(seconds)) : undefined);
  }

  /** Holds one operation of a backup up while prunes go on until they have deleted all that nobody needs. */
  #holdBackUp(): (number: number) => Promise<void> | undefined {
    const at = this.#random.integer(1, 30);
    return (number) => (number === at ? this.#pruneForLong() : undefined);
  }

  async #pruneForLong(): Promise<void> {
    for (let prunes = this.#random.integer(1, 4); prunes > 0; prunes--) {
      this.#setClock(this.#random.integer(GRACE_SECONDS / 2, GRACE_SECONDS * 2));
      await this.#here.store.prune({ maxUnusedRatio: 0 });
    }
    this.#done.held++;
  }

  async #compare(): Promise<void> {
    const snapshots = await this.#here.store.snapshots();
    const there = new Set(snapshots.map(({ id }) => id));
    for (const id of this.#kept) assert.ok(there.has(id), `snapshot ${id} was lost`);
    await assertStored(this.#here, snapshots, this.#images);
  }

  /** The time that passes while jobs run: less than half the grace period for all jobs of a day. */
  #passTime(seconds: number): void {
    this.#passedSeconds += seconds;
    if (this.#passedSeconds < GRACE_SECONDS / 2) this.#setClock(seconds);
  }

  #setClock(seconds: number): void {
    this.#context.mock.timers.setTime(Date.now() + seconds * 1000);
  }
}

/** Counts the backups that did without lists. */
class CountedMemory extends ParentMemory {
  readonly #done: Done;

  constructor(folder: string, done: Done) {
    super(join(folder, 'parents'), folder);
    this.#done = done;
  }

  override async recall(...of: Parameters<ParentMemory['recall']>): Promise<RecalledParent | undefined> {
    const recalled = await super.recall(...of);
    if (recalled !== undefined) this.#done.recalled = (this.#done.recalled ?? 0) + 1;
    return recalled;
  }
}

/** The bytes of a database that nobody has open. */
function imageOf(path: string): Buffer {
  const db = new Database(path);
  try {
    db.pragma('wal_checkpoint(TRUNCATE)');
    return db.serialize();
  } finally {
    db.close();
  }
}
