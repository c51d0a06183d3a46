import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { MemoryBackend } from './memory-backend.ts';
import { openBackend } from '../../src/backup/open-store.ts';
import { OpenStore } from '../../src/backup/store.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { FaultyBackend } from './faulty-backend.ts';
import type { Fault } from './faulty-backend.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

const shared = mkdtempSync(join(tmpdir(), 'sqlsync-faults-'));

/**
 * The fault hits one operation, or that one and all later ones, as if the process were killed or the disk
 * stayed full.
 */
const FAULTS: readonly { name: string; fault: Fault; from?: boolean }[] = [
  { name: 'fails without effect', fault: 'before' },
  { name: 'fails after it took effect', fault: 'after' },
  { name: 'fails without effect, and so do all after it', fault: 'before', from: true },
  { name: 'took effect and was the last', fault: 'after', from: true },
  { name: 'times out and takes effect after that', fault: 'late' },
  { name: 'times out and takes effect after that, and so do all after it', fault: 'late', from: true },
  { name: 'is done twice', fault: 'twice' },
];

let base: Base | undefined;
before(async () => {
  base = await prepare(shared);
});
after(() => rmSync(shared, { recursive: true, force: true }));

for (const { name, fault, from } of FAULTS) {
  describe(`if an operation of the backend ${name}`, () => {
    test('a backup fails or succeeds, the store stays good, and the next one succeeds', async (t) => {
      await atEveryOperation(t, fault, from === true, async ({ here, origin, image }, run) => {
        const added = await run((faulty) => backupHere(faulty, origin));
        const stored = await here.store.snapshots();
        if (added !== undefined) assert.ok(stored.some(({ id }) => id === added.id));
        const next = await backupHere(here, origin);
        await assertStored(here, await here.store.snapshots(), new Map([[next.id, image]]));
      });
    });

    test('a prune fails or succeeds, the store stays good, and the next two finish it', async (t) => {
      await atEveryOperation(t, fault, from === true, async ({ here, images }, run) => {
        const all = await here.store.snapshots();
        await here.store.forget(all.slice(0, -1).map(({ id }) => id));
        await here.store.prune({ graceSeconds: 1e-9, maxUnusedRatio: 0 });
        // The first has marked, so this one copies, sweeps and marks.
        await run((faulty) => faulty.store.prune({ graceSeconds: 1e-9, maxUnusedRatio: 0 }));
        await assertStored(here, await here.store.snapshots(), images);
        for (let i = 0; i < 3; i++) await here.store.prune({ graceSeconds: 1e-9, maxUnusedRatio: 0 });
        await assertStored(here, await here.store.snapshots(), images);
        const { packsMarked, packsWaiting, packsDeleted } = await here.store.prune({
          graceSeconds: 1e-9,
          maxUnusedRatio: 0,
        });
        assert.deepEqual([packsMarked, packsWaiting, packsDeleted], [0, 0, 0]);
      });
    });

    test('a forget removes what it says, or all can be restored', async (t) => {
      await atEveryOperation(t, fault, from === true, async ({ here, images }, run) => {
        const [first] = await here.store.snapshots();
        const done = await run((faulty) => faulty.store.forget([(first as StoreSnapshot).id]));
        const left = await here.store.snapshots();
        if (done !== undefined) assert.ok(left.every(({ id }) => id !== first?.id));
        await assertStored(here, left, images);
        await here.store.forget([(first as StoreSnapshot).id]);
        assert.equal((await here.store.snapshots()).length, images.size - 1);
      });
    });
  });
}

test('a backup that is held up before its record fails and leaves no snapshot if prunes take what it wrote', async (t) => {
  const folder = tempDir(t);
  const origin = join(folder, 'origin.db');
  smallDatabase(origin, { rows: 60 });
  const memory = new MemoryBackend();
  // Without a grace period a prune may delete everything that is not in use at the moment.
  const here = await storeHere(memory, folder, 0);
  let atRecord = 0;
  const plan = (number: number, operation: string, name: string): Fault => {
    if (operation === 'put' && name.startsWith('snapshots/')) atRecord = number;
    return 'none';
  };
  const hold = async (number: number): Promise<void> => {
    for (let prunes = number === atRecord ? 3 : 0; prunes > 0; prunes--) await here.store.prune();
  };
  const backend = new FaultyBackend(memory, plan, undefined, hold);
  const held = { ...here, access: { ...here.access, backend, files: backend } };
  await assert.rejects(backupHere(held, origin), { code: 'STORE_PRUNED' });
  assert.deepEqual(await here.store.snapshots(), []);
  const { id } = await backupHere(here, origin);
  await assertStored(here, await here.store.snapshots(), new Map([[id, pageImage(origin)]]));
  assert.deepEqual((await here.store.check({ readData: true })).problems, []);
});

interface Prepared {
  readonly here: StoreHere;
  readonly origin: string;
  readonly images: ReadonlyMap<string, Buffer>;
  /** Backs up the origin, which has changed since the last backup. */
  readonly image: Buffer;
}

type Run = <T>(action: (faulty: StoreHere) => Promise<T>) => Promise<T | undefined>;

/**
 * Runs `check` on a store of three snapshots again and again, until the fault comes after the last operation.
 */
async function atEveryOperation(
  t: TestContext,
  fault: Fault,
  fromThenOn: boolean,
  check: (prepared: Prepared, run: Run) => Promise<void>,
): Promise<void> {
  const folder = tempDir(t);
  const { files, ...rest } = base as Base;
  let operations = Infinity;
  for (let at = 1; at <= operations; at++) {
    const memory = new MemoryBackend();
    for (const [name, bytes] of files) memory.files.set(name, bytes);
    const here = {
      ...(await reopened(memory)),
      cache: (await storeHere(new MemoryBackend(), join(folder, `${at}`))).cache,
    };
    const faulty = new FaultyBackend(memory, (number) =>
      number === at || (fromThenOn && number > at) ? fault : 'none',
    );
    const access = { ...here.access, backend: faulty, files: faulty };
    await check({ here, ...rest }, async (action) => {
      try {
        const result = await action({ ...here, access, store: new OpenStore(access) });
        if (faulty.count < at) operations = faulty.count;
        return result;
      } catch (error) {
        assert.ok(error instanceof SqlsyncError && error.code === 'STORE_UNAVAILABLE', String(error));
        return undefined;
      } finally {
        await faulty.arrive();
      }
    });
    const { problems } = await here.store.check({ readData: true });
    assert.deepEqual(problems, []);
  }
}

interface Base {
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly origin: string;
  readonly images: ReadonlyMap<string, Buffer>;
  readonly image: Buffer;
}

/** A store of three snapshots, and an origin that has changed since; the same for all tests. */
async function prepare(folder: string): Promise<Base> {
  const origin = join(folder, 'origin.db');
  smallDatabase(origin, { rows: 60 });
  const memory = new MemoryBackend();
  const here = await storeHere(memory, folder);
  const images = new Map<string, Buffer>();
  for (let i = 0; i < 3; i++) {
    change(origin, `UPDATE item SET amount = ${i} WHERE id % 7 = ${i}`);
    const image = pageImage(origin);
    images.set((await backupHere(here, origin)).id, image);
  }
  change(origin, 'UPDATE item SET amount = 99 WHERE id % 7 = 4');
  return { files: memory.files, origin, images, image: pageImage(origin) };
}

async function reopened(memory: MemoryBackend): Promise<Omit<StoreHere, 'cache'>> {
  const access = await openBackend(memory);
  return { access, store: new OpenStore(access) };
}
