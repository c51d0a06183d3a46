import assert from 'node:assert/strict';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { STORE_FOLDERS } from '../../src/backup/backends/backend.ts';
import type { LocalBackend } from '../../src/backup/backends/backend.ts';
import { HashCache } from '../../src/backup/copy/hash-cache.ts';
import type { StoreAccess } from '../../src/backup/files/store-files.ts';
import { OpenStore } from '../../src/backup/store.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { pageImage } from '../support/compare.ts';
import { FaultyBackend } from './faulty-backend.ts';
import type { Fault } from './faulty-backend.ts';
import { MemoryBackend } from './memory-backend.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

/**
 * What meets one operation of a backend, or that one and all later ones, as if the process were killed or the disk stayed
 * full.
 */
export interface BackendFault {
  readonly name: string;
  readonly fault: Fault;
  readonly isLasting?: boolean;
}

export const BACKEND_FAULTS: readonly BackendFault[] = [
  { name: 'fails without effect', fault: 'before' },
  { name: 'fails after it took effect', fault: 'after' },
  { name: 'fails without effect, and so do all after it', fault: 'before', isLasting: true },
  { name: 'took effect and was the last', fault: 'after', isLasting: true },
  { name: 'times out and takes effect after that', fault: 'late' },
  { name: 'times out and takes effect after that, and so do all after it', fault: 'late', isLasting: true },
  { name: 'is done twice', fault: 'twice' },
];

/** Without a grace period, so that every mark is old enough a moment later. */
const PRUNE = { graceSeconds: 1e-9, maxUnusedRatio: 0 };
const MOMENT_MS = 2;

/** The number of prunes after which a store must be rid of everything that nothing needs. */
const MAX_PRUNES = 8;

/** A store of three snapshots, and an origin that has changed since; the same for all places. */
export interface FaultBase {
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly access: StoreAccess;
  readonly origin: string;
  /** The database of each snapshot, by id. */
  readonly images: ReadonlyMap<string, Buffer>;
  /** The origin as it is now. */
  readonly image: Buffer;
}

/** With a password, the store is encrypted. */
export async function prepareBase(folder: string, password?: string): Promise<FaultBase> {
  const origin = join(folder, 'origin.db');
  smallDatabase(origin, { rows: 60 });
  const memory = new MemoryBackend();
  const here = await storeHere(memory, folder, undefined, password);
  const images = new Map<string, Buffer>();
  for (let i = 0; i < 3; i++) {
    // Half of the content so that no delta pays: packs become garbage in part.
    change(
      origin,
      `UPDATE item SET amount = ${i} WHERE id % 7 = ${i};
       UPDATE item SET payload = randomblob(2000) WHERE (id + ${i}) / 15 % 2 = 0`,
    );
    images.set((await backupHere(here, origin)).id, pageImage(origin));
  }
  change(origin, 'UPDATE item SET amount = 99 WHERE id % 7 = 4');
  return { files: memory.files, access: here.access, origin, images, image: pageImage(origin) };
}

/** A store without a fault, and what runs an action on the same store with one. */
interface Scene extends Pick<FaultBase, 'origin' | 'images' | 'image'> {
  readonly here: StoreHere;
  /** undefined if the fault made the action fail. */
  readonly run: <T>(action: (faulty: StoreHere) => Promise<T>) => Promise<T | undefined>;
  /** True once the fault has met an operation. */
  readonly isMet: () => boolean;
}

export interface FaultJob {
  readonly name: string;
  readonly meet: (scene: Scene) => Promise<void>;
}

export const FAULT_JOBS: readonly FaultJob[] = [
  {
    name: 'a backup fails or succeeds, the store stays good, and the next one succeeds',
    async meet({ here, origin, image, run }) {
      const added = await run((faulty) => backupHere(faulty, origin));
      const stored = await here.store.snapshots();
      if (added !== undefined) assert.ok(stored.some(({ id }) => id === added.id));
      const next = await backupHere(here, origin);
      await assertStored(here, await here.store.snapshots(), new Map([[next.id, image]]));
    },
  },
  {
    name: 'a prune fails or succeeds, the store stays good, and the next ones finish it',
    async meet({ here, images, run, isMet }) {
      const all = await here.store.snapshots();
      await here.store.forget(idsOf(all.slice(0, 1)));
      assert.ok((await here.store.prune(PRUNE)).packsMarked > 0, 'nothing to mark');
      await here.store.forget(idsOf(all.slice(1, 2)));
      await delay(MOMENT_MS);
      // The first has marked, so this one copies, sweeps and marks.
      const pruned = await run((faulty) => faulty.store.prune(PRUNE));
      if (!isMet()) assert.ok(pruned !== undefined && pruned.packsMarked > 0 && pruned.packsDeleted > 0);
      await assertStored(here, await here.store.snapshots(), images);
      for (let prunes = 1; ; prunes++) {
        await delay(MOMENT_MS);
        const { packsMarked, packsWaiting, packsDeleted } = await here.store.prune(PRUNE);
        if (packsMarked + packsWaiting + packsDeleted === 0) break;
        assert.ok(prunes < MAX_PRUNES, `${prunes} prunes, and there is more to do`);
      }
      assert.deepEqual(idsOf(await here.store.snapshots()), idsOf(all.slice(2)));
      await assertStored(here, all.slice(2), images);
    },
  },
  {
    name: 'a forget removes what it says, or all can be restored',
    async meet({ here, images, run }) {
      const first = (await here.store.snapshots())[0] as StoreSnapshot;
      const done = await run((faulty) => faulty.store.forget([first.id]));
      const left = await here.store.snapshots();
      if (done !== undefined) assert.ok(left.every(({ id }) => id !== first.id));
      await assertStored(here, left, images);
      await here.store.forget([first.id]);
      assert.equal((await here.store.snapshots()).length, images.size - 1);
    },
  },
];

/** A place whose store begins anew before each fault. */
export class FaultPlace {
  readonly #base: FaultBase;
  readonly #backend: LocalBackend;
  readonly #folder: string;
  #attempts = 0;

  /** @param folder - for hash caches. */
  constructor(base: FaultBase, backend: LocalBackend, folder: string) {
    this.#base = base;
    this.#backend = backend;
    this.#folder = folder;
  }

  /**
   * Lets the fault meet the operation of this number, from 1, of the job, and checks all that must hold. Resolves to the
   * number of operations, which is smaller if the job ended before the fault.
   */
  async meet(job: FaultJob, { fault, isLasting = false }: BackendFault, at: number): Promise<number> {
    await this.#reset();
    const { access: made, origin, images, image } = this.#base;
    const cache = new HashCache(join(this.#folder, `${++this.#attempts}`, 'cache'), made.sealer);
    const backend = this.#backend;
    const on = (files: LocalBackend): StoreHere => {
      const access = { ...made, backend: files, files };
      return { access, store: new OpenStore(access), cache };
    };
    const here = on(backend);
    const faulty = new FaultyBackend(backend, (number) =>
      number === at || (isLasting && number > at) ? fault : 'none',
    );
    const run: Scene['run'] = async (action) => {
      try {
        return await action(on(faulty));
      } catch (error) {
        assert.ok(error instanceof SqlsyncError && error.code === 'STORE_UNAVAILABLE', String(error));
        return undefined;
      } finally {
        await faulty.arrive();
      }
    };
    await job.meet({ here, origin, images, image, run, isMet: () => faulty.count >= at });
    const { problems } = await here.store.check({ readData: true });
    assert.deepEqual(problems, []);
    return faulty.count;
  }

  /** As {@link meet}, for each operation of the job, one after another. Resolves to how many there were. */
  async meetAll(job: FaultJob, fault: BackendFault): Promise<number> {
    for (let at = 1; ; at++) if ((await this.meet(job, fault, at)) < at) return at - 1;
  }

  /** Gives the store the files of the base. All but the config belong to their names. */
  async #reset(): Promise<void> {
    const { files } = this.#base;
    const missing = new Map(files);
    for (const folder of STORE_FOLDERS) {
      for (const { name } of await this.#backend.list(folder)) {
        if (!missing.delete(`${folder}/${name}`)) await this.#backend.delete(`${folder}/${name}`);
      }
    }
    // The config is put once, and comes first.
    for (const [name, bytes] of missing) await this.#backend.put(name, [bytes]);
    await delay(MOMENT_MS);
  }
}

function idsOf(snapshots: readonly StoreSnapshot[]): string[] {
  return snapshots.map(({ id }) => id);
}
