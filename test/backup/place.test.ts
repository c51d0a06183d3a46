import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import type { StoredFile, StoreFolder } from '../../src/backup/backends/backend.ts';
import { missingFile } from '../../src/backup/store-error.ts';
import { jsonBytes, putRecord } from '../../src/backup/files/store-files.ts';
import { noteForgotten } from '../../src/backup/prune/forget.ts';
import { openBackend } from '../../src/backup/open-store.ts';
import { OpenStore } from '../../src/backup/store.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { MemoryBackend } from './memory-backend.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

const GRACE_SECONDS = 1000;

interface Filled {
  readonly memory: MemoryBackend;
  readonly here: StoreHere;
  /** Ids, oldest first, and what was backed up. */
  readonly ids: readonly string[];
  readonly images: ReadonlyMap<string, Buffer>;
}

/** A store of two snapshots that were made long ago, by the test's own clock. */
async function filled(t: TestContext, memory: MemoryBackend = new MemoryBackend()): Promise<Filled> {
  t.mock.timers.enable({ apis: ['Date'], now: 1_700_000_000_000 });
  const folder = tempDir(t);
  const here = await storeHere(memory, folder, GRACE_SECONDS);
  const origin = join(folder, 'a.db');
  smallDatabase(origin, { rows: 300 });
  const images = new Map<string, Buffer>();
  for (let i = 0; i < 2; i++) {
    change(origin, `UPDATE item SET amount = random() WHERE id % 2 = ${i}`);
    images.set((await backupHere(here, origin)).id, pageImage(origin));
    t.mock.timers.setTime(Date.now() + 3 * GRACE_SECONDS * 1000);
  }
  return { memory, here, ids: [...images.keys()], images };
}

test('a note alone takes a snapshot away: its record counts for nothing, and the next prune deletes it', async (t) => {
  const { memory, here, ids, images } = await filled(t);
  const [first, second] = ids as [string, string];
  await noteForgotten(here.access, first);
  assert.deepEqual(
    (await here.store.snapshots()).map(({ id }) => id),
    [second],
  );
  await here.store.prune({ maxUnusedRatio: 0 });
  assert.ok(!memory.files.has(`snapshots/${first}`));
  // A put of the record that was held up until now brings nothing back, while prunes delete what only it needed.
  const record = jsonBytes({});
  await memory.put(`snapshots/${first}`, [record]);
  for (let i = 0; i < 3; i++) {
    t.mock.timers.setTime(Date.now() + 2 * GRACE_SECONDS * 1000);
    await here.store.prune({ maxUnusedRatio: 0 });
  }
  assert.ok(!memory.files.has(`snapshots/${first}`));
  assert.deepEqual((await here.store.check({ readData: true })).problems, []);
  await assertStored(here, await here.store.snapshots(), images);
});

/** Answers for one file, a number of times, that it has no such file. */
class Forgetful extends MemoryBackend {
  file = '';
  times = 0;

  override get(...args: Parameters<MemoryBackend['get']>): Promise<Uint8Array> {
    if (args[0] === this.file && this.times-- > 0)
      return Promise.reject(missingFile(this.description, this.file));
    return super.get(...args);
  }
}

test('a prune refuses if a snapshot or a mark is listed and cannot be got, and goes on if it can be got then', async (t) => {
  const memory = new Forgetful();
  const { here, ids, images } = await filled(t, memory);
  const mark = await putRecord(here.access, 'marks', 'mark', jsonBytes({ version: 1, packs: [] }));
  for (const file of [`snapshots/${ids[0]}`, `marks/${mark}`]) {
    memory.file = file;
    memory.times = 2;
    const before = [...memory.files.keys()];
    await assert.rejects(here.store.prune(), { code: 'STORE_FILE_MISSING', message: new RegExp(file) });
    assert.deepEqual([...memory.files.keys()], before);
    memory.times = 1;
    assert.equal((await here.store.prune({ dryRun: true })).packsMarked, 0);
  }
  await here.store.prune();
  await assertStored(here, await here.store.snapshots(), images);
  assert.equal((await here.store.snapshots()).length, 2);
});

test('a mark counts from when its place got it, whatever time it names', async (t) => {
  const { memory, here, ids } = await filled(t);
  const packs = (await memory.list('packs')).map(({ name }) => name);
  await here.store.forget(ids);
  const long = new Date(Date.now() - 1e9).toISOString();
  await putRecord(here.access, 'marks', 'mark', jsonBytes({ version: 1, time: long, packs }));
  assert.equal((await here.store.prune()).packsDeleted, 0);
  t.mock.timers.setTime(Date.now() + 2 * GRACE_SECONDS * 1000);
  assert.equal((await here.store.prune()).packsDeleted, packs.length);
});

/** Tells no times. */
class Timeless extends MemoryBackend {
  override async list(folder: StoreFolder): Promise<StoredFile[]> {
    const modified = new Date(Number.NaN);
    return (await super.list(folder)).map(({ name, bytes }) => ({ name, bytes, modified }));
  }
}

test('files of a place that tells no times count as put just now: no prune deletes them', async (t) => {
  const memory = new Timeless();
  const { here, ids, images } = await filled(t, memory);
  await here.store.forget(ids.slice(0, 1));
  const packs = (await memory.list('packs')).map(({ name }) => name);
  await putRecord(here.access, 'marks', 'mark', jsonBytes({ version: 1, packs }));
  for (let i = 0; i < 3; i++) {
    t.mock.timers.setTime(Date.now() + 2 * GRACE_SECONDS * 1000);
    const { packsMarked, packsDeleted } = await here.store.prune({ maxUnusedRatio: 0 });
    assert.deepEqual([packsMarked, packsDeleted], [0, 0]);
  }
  const reopened = new OpenStore(await openBackend(memory));
  assert.deepEqual(
    (await reopened.snapshots()).map(({ stored }) => stored),
    [undefined],
  );
  await assertStored(here, await reopened.snapshots(), images);
});
