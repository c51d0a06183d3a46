import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { MemoryBackend } from './memory-backend.ts';
import { change, column, smallDatabase } from '../pages/databases.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { putRecord } from '../../src/backup/files/store-files.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';

const GRACE_SECONDS = 1000;

describe('a prune', () => {
  test('a prune merges many small packs into one, once, and loses nothing by it', async (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: 1_700_000_000_000 });
    const pass = (): void => t.mock.timers.setTime(Date.now() + 2 * GRACE_SECONDS * 1000);
    const folder = tempDir(t);
    const memory = new MemoryBackend();
    const here = await storeHere(memory, folder, GRACE_SECONDS);
    const origin = join(folder, 'origin.db');
    smallDatabase(origin, { rows: 20 });
    const images = new Map<string, Buffer>();
    for (let hour = 0; hour < 18; hour++) {
      change(origin, `UPDATE item SET amount = ${hour} WHERE id = ${hour + 1}`);
      const image = pageImage(origin);
      images.set((await backupHere(here, origin)).id, image);
    }
    const packs = async (): Promise<number> => (await memory.list('packs')).length;
    assert.equal(await packs(), 18);
    pass();
    assert.equal((await here.store.prune()).packsMarked, 18);
    pass();
    assert.equal((await here.store.prune()).packsDeleted, 18);
    assert.equal(await packs(), 1);
    pass();
    const { packsMarked, packsDeleted, packsWaiting } = await here.store.prune();
    assert.deepEqual([packsMarked, packsDeleted, packsWaiting], [0, 0, 0]);
    await assertStored(here, await here.store.snapshots(), images);
    const { problems, damaged } = await here.store.check({ readData: true });
    assert.deepEqual([problems, damaged], [[], []]);
    assert.equal((await memory.list('indexes')).length, 1);
  });

  test('a prune without a grace period deletes at once what no snapshot needs', async (t) => {
    const folder = tempDir(t);
    const memory = new MemoryBackend();
    const here = await storeHere(memory, folder, GRACE_SECONDS);
    const origin = join(folder, 'origin.db');
    smallDatabase(origin, { rows: 20 });
    const kept = await backupHere(here, origin);
    const image = pageImage(origin);
    change(origin, 'UPDATE item SET amount = -1');
    const gone = await backupHere(here, origin);
    await here.store.forget([gone.id]);
    const trial = await here.store.prune({ dryRun: true, graceSeconds: 0 });
    const done = await here.store.prune({ graceSeconds: 0 });
    assert.deepEqual({ ...done, dryRun: true }, trial);
    assert.deepEqual([done.packsMarked, done.packsDeleted], [0, 1]);
    for (const where of ['marks', 'forgotten'] as const) assert.deepEqual(await memory.list(where), []);
    await assertStored(here, await here.store.snapshots(), new Map([[kept.id, image]]));
    const { problems } = await here.store.check({ readData: true });
    assert.deepEqual(problems, []);
  });

  test('a file of another program among the packs is left alone, by a prune and by all that come after it', async (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: 1_700_000_000_000 });
    const folder = tempDir(t);
    const memory = new MemoryBackend();
    const here = await storeHere(memory, folder, GRACE_SECONDS);
    const origin = join(folder, 'origin.db');
    smallDatabase(origin, { rows: 20 });
    for (const name of ['packs/.DS_Store', 'forgotten/.nfs0001', 'packs/notes.txt'])
      await memory.put(name, [Buffer.from('theirs')]);
    // As older programs marked such files.
    const mark = JSON.stringify({ version: 1, time: new Date().toISOString(), packs: ['.DS_Store'] });
    await putRecord(here.access, 'marks', 'mark', Buffer.from(mark));
    for (let round = 0; round < 3; round++) {
      t.mock.timers.setTime(Date.now() + 2 * GRACE_SECONDS * 1000);
      await here.store.prune();
      await backupHere(here, origin);
    }
    for (const name of ['packs/.DS_Store', 'forgotten/.nfs0001', 'packs/notes.txt'])
      assert.ok(memory.files.has(name), name);
    const { problems } = await here.store.check({ readData: true });
    assert.deepEqual(problems, []);
  });

  test('a prune copies no damaged page to a pack whose name would vouch for it, so that a repair still finds it', async (t) => {
    const folder = tempDir(t);
    const memory = new MemoryBackend();
    const here = await storeHere(memory, folder, GRACE_SECONDS);
    const origin = join(folder, 'origin.db');
    change(origin, 'PRAGMA page_size = 512; CREATE TABLE item (id INTEGER PRIMARY KEY, x BLOB)');
    change(
      origin,
      `WITH RECURSIVE i (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 100)
      INSERT INTO item SELECT i, randomblob(400) FROM i`,
    );
    const gone = await backupHere(here, origin);
    const [name] = (await memory.list('packs')).map((file) => file.name) as [string];
    change(origin, 'UPDATE item SET x = randomblob(400) WHERE id <= 50');
    const kept = await backupHere(here, origin);
    await here.store.forget([gone.id]);
    // An unchanged row, in bytes that zstd leaves as they are.
    const row = pageImage(origin).indexOf(column(origin, 'SELECT x FROM item WHERE id = 80')[0] as Buffer);
    const pack = memory.files.get(`packs/${name}`) as Uint8Array;
    const at = Buffer.from(pack).indexOf(pageImage(origin).subarray(row, row + 300));
    assert.ok(row > 0 && at > 0);
    memory.files.set(
      `packs/${name}`,
      Uint8Array.from(pack, (byte, i) => (i === at + 100 ? byte ^ 1 : byte)),
    );

    await assert.rejects(here.store.prune({ graceSeconds: 0, maxUnusedRatio: 0 }), { code: 'STORE_DAMAGED' });
    const { lost, packsDamaged } = await here.store.repair({ readData: true });
    assert.deepEqual(
      [lost.map(({ id, pagesLost }) => [id, pagesLost]), packsDamaged],
      [[[kept.id, 1]], [name]],
    );
    const image = pageImage(origin);
    const healed = await backupHere(here, origin);
    await assertStored(
      here,
      await here.store.snapshots(),
      new Map([kept, healed].map(({ id }) => [id, image])),
    );
  });
});
