import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { KeptFiles } from '../../src/backup/backends/kept-files.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { groupOf } from '../../src/pages/delta.ts';
import { jsonBytes, loadContents, putRecord } from '../../src/backup/files/store-files.ts';
import { PackWriter } from '../../src/backup/objects/pack-writer.ts';
import { idOf } from '../../src/backup/packs/object-id.ts';
import { SnapshotTree } from '../../src/backup/snapshots/snapshot-tree.ts';
import { bitmapBytes } from '../../protocol/page-batch.ts';
import { ParentMemory } from '../../src/backup/copy/parent-memory.ts';
import { openBackend } from '../../src/backup/open-store.ts';
import { OpenStore } from '../../src/backup/store.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { FaultyBackend } from './faulty-backend.ts';
import { MemoryBackend } from './memory-backend.ts';
import { assertStored, backupHere, storeElsewhere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

/** Without it a prune deletes only what was marked long ago. */
const AT_ONCE = { graceSeconds: 1e-9, maxUnusedRatio: 0 };

describe('a backup without lists', () => {
  test('sends one put if nothing changed, none if it is to skip that, and three if little changed', async (t) => {
    const { here, origin, backend } = await start(t);
    const first = await backupHere(here, origin);
    assert.deepEqual(await operationsOf(backend, () => backupHere(here, origin)), ['put snapshots']);
    let kept: StoreSnapshot | undefined;
    const skipping = async (): Promise<void> => {
      kept = await backupHere(here, origin, { skipsUnchanged: true });
    };
    assert.deepEqual(await operationsOf(backend, skipping), []);
    assert.equal(kept?.parent, first.id);
    change(origin, `UPDATE item SET amount = -1 WHERE id = 3`);
    assert.deepEqual(await operationsOf(backend, skipping), ['put packs', 'put indexes', 'put snapshots']);
    assert.equal((await here.store.snapshots()).length, 3);
    const image = new Map([[kept?.id ?? '', pageImage(origin)]]);
    await assertStored(here, await here.store.snapshots(), image);
  });

  test('keeps every state of a database over more changes than a chain is long', async (t) => {
    const { here, origin, backend } = await start(t);
    const images = new Map<string, Buffer>();
    for (let day = 0; day < 35; day++) {
      change(origin, `UPDATE item SET amount = ${day} WHERE id % 9 = ${day % 2}`);
      const operations = await operationsOf(backend, async () => {
        images.set((await backupHere(here, origin)).id, pageImage(origin));
      });
      if (day > 0) assert.ok(!operations.includes('list indexes'), `day ${day} lists`);
      if (day % 10 === 5) await here.store.prune({ maxUnusedRatio: 0 });
    }
    await assertStored(here, await here.store.snapshots(), images);
    const { problems, damaged } = await here.store.check({ readData: true });
    assert.deepEqual([problems, damaged], [[], []]);
  });

  test('is good, whenever its parent is forgotten and pruned away meanwhile', async (t) => {
    let outdated = 0;
    for (let at = 1, last = Infinity; at <= last; at++) {
      const { here, origin, backend } = await start(t);
      const parent = await backupHere(here, origin);
      change(origin, `UPDATE item SET amount = -1 WHERE id % 5 = 0`);
      const pruneAway = async (): Promise<void> => {
        await here.store.forget([parent.id]);
        for (let prunes = 0; prunes < 3; prunes++) await here.store.prune(AT_ONCE);
      };
      const held = new FaultyBackend(
        backend,
        () => 'none',
        undefined,
        (number) => (number === at ? pruneAway() : undefined),
      );
      const slow = { ...here, access: { ...here.access, backend: held, files: held } };
      const { id } = await backupHere(slow, origin, { onOutdated: () => outdated++ });
      if (held.count < at) last = held.count;
      await assertStored(here, await here.store.snapshots(), new Map([[id, pageImage(origin)]]));
      // These prunes may also have taken a pack from an attempt that was given up.
      const { problems, damaged } = await here.store.check({ readData: true });
      const ofSnapshots = problems.filter(({ file }) => !file.startsWith('packs/'));
      assert.deepEqual([ofSnapshots, damaged], [[], []]);
    }
    assert.ok(outdated > 0, 'some backups began again');
  });

  for (const [fault, isLast] of [
    ['before', true],
    ['after', true],
    ['late', false],
  ] as const) {
    const until = isLast ? 'and so do all after it' : 'and no other';
    test(`leaves a good store if an operation fails (${fault}), ${until}`, async (t) => {
      const { here, origin, backend } = await start(t);
      const images = new Map([[(await backupHere(here, origin)).id, pageImage(origin)]]);
      for (let at = 1, last = Infinity; at <= last; at++) {
        change(origin, `UPDATE item SET amount = ${at} WHERE id % 5 = 0`);
        const image = pageImage(origin);
        const backup = async (access: StoreHere['access']): Promise<void> => {
          images.set((await backupHere({ ...here, access }, origin)).id, image);
        };
        const fails = (number: number): boolean => number === at || (isLast && number > at);
        const faulty = new FaultyBackend(backend, (number) => (fails(number) ? fault : 'none'));
        await backup({ ...here.access, backend: faulty, files: faulty }).catch((error: unknown) =>
          assert.ok(error instanceof SqlsyncError && error.code === 'STORE_UNAVAILABLE', String(error)),
        );
        await faulty.arrive();
        if (faulty.count < at) last = faulty.count;
        await backup(here.access);
        await assertStored(here, await here.store.snapshots(), images);
      }
      const { problems, damaged } = await here.store.check({ readData: true });
      assert.deepEqual([problems, damaged], [[], []]);
    });
  }

  test('notes that its parent was forgotten, if a prune has removed the note before its record was there', async (t) => {
    const { here, origin, backend } = await start(t);
    const parent = await backupHere(here, origin);
    let atRecord = 0;
    const plan = (number: number, operation: string, name: string): 'none' => {
      if (operation === 'put' && name.startsWith('snapshots/')) atRecord = number;
      return 'none';
    };
    const held = new FaultyBackend(backend, plan, undefined, async (number) => {
      if (number !== atRecord) return;
      await here.store.forget([parent.id]);
      await backend.delete(`forgotten/${parent.id}`);
    });
    const slow = { ...here, access: { ...here.access, backend: held, files: held } };
    const made = await backupHere(slow, origin, { onOutdated: () => assert.fail('it began again') });
    assert.equal(made.parent, parent.id);
    assert.ok(backend.files.has(`forgotten/${parent.id}`));
    assert.deepEqual((await here.store.check({ readData: true })).problems, []);
  });

  test('has a base that is not too deep, although a prune had a deeper copy of it in a pack that stays', async (t) => {
    const { here, origin, backend } = await start(t);
    const parent = await backupHere(here, origin);
    const [marked] = (await loadContents(here.access)).index.packs.keys();
    await putDeeperCopies(here, parent);
    const longAgo = new Date(Date.now() - 3 * 24 * 3600 * 1000);
    const mark = jsonBytes({ version: 1, time: longAgo.toISOString(), packs: [marked] });
    const markName = await putRecord(here.access, 'marks', 'mark', mark);
    backend.modified.set(`marks/${markName}`, longAgo);
    change(origin, `UPDATE item SET amount = -1 WHERE id = 3`);
    let atIndex = 0;
    const plan = (number: number, operation: string, name: string): 'none' => {
      if (operation === 'put' && name.startsWith('indexes/')) atIndex = number;
      return 'none';
    };
    const held = new FaultyBackend(backend, plan, undefined, async (number) => {
      if (number !== atIndex) return;
      for (let prunes = 0; prunes < 2; prunes++) await here.store.prune();
      assert.ok(!backend.files.has(`packs/${marked}`), 'the marked pack is gone');
    });
    const slow = { ...here, access: { ...here.access, backend: held, files: held } };
    const onOutdated = (): void => assert.fail('it began again');
    const { id } = await backupHere(slow, origin, { onOutdated });
    await assertStored(here, await here.store.snapshots(), new Map([[id, pageImage(origin)]]));
    const { problems, damaged } = await here.store.check({ readData: true });
    assert.deepEqual([problems, damaged], [[], []]);
  });

  test('reads the lists if this host has lost or damaged a copy, or remembers another state', async (t) => {
    const { here, origin, backend, folder } = await start(t);
    await backupHere(here, origin);
    const listsWith = async (changed: Partial<StoreHere>): Promise<boolean> =>
      (await operationsOf(backend, () => backupHere({ ...here, ...changed }, origin))).includes(
        'list indexes',
      );
    assert.equal(await listsWith({}), false);
    const none = new KeptFiles(join(folder, 'nothing'));
    assert.equal(await listsWith({ access: { ...here.access, kept: none } }), true);
    assert.equal(await listsWith({ parents: new ParentMemory(join(folder, 'nothing'), 'memory') }), true);
    assert.equal(await listsWith({}), true, 'its hashes are of a snapshot that it does not remember');
    assert.equal(await listsWith({}), false);
    let without = 0;
    while (!(await listsWith({}))) without++;
    assert.ok(without >= 60 && without <= 64, `${without} backups without lists`);
    t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 8 * 24 * 3600 * 1000 });
    assert.equal(await listsWith({}), true, 'after a week');
    assert.equal(await listsWith({}), false);
  });

  test('writes again what a repair gave up', async (t) => {
    const { here, origin, backend } = await start(t);
    await backupHere(here, origin);
    const pack = [...backend.files.keys()].find((name) => name.startsWith('packs/'));
    backend.files.delete(pack ?? '');
    const { lost } = await here.store.repair();
    assert.equal(lost.length, 1);
    const access = { ...(await openBackend(backend)), kept: here.access.kept };
    const { id } = await backupHere({ ...here, access }, origin);
    await here.store.forget(lost.map((each) => each.id));
    await assertStored(here, await here.store.snapshots(), new Map([[id, pageImage(origin)]]));
  });

  test('comes behind those of other hosts by the clock of the place', async (t) => {
    const backend = new PlaceWithClock();
    const { here, origin, folder } = await start(t, backend);
    const hostOf = async (name: string): Promise<StoreHere> => {
      const other = await storeElsewhere(new MemoryBackend(), join(folder, name));
      const access = { ...here.access, kept: other.access.kept };
      return { ...other, access, store: new OpenStore(access) };
    };
    const hosts = [await hostOf('a'), await hostOf('b')];
    const made: string[] = [];
    for (let round = 0; round < 6; round++) {
      backend.nowMs += 60_000;
      // One host makes three for each of the other.
      made.push((await backupHere(hosts[round % 4 === 3 ? 1 : 0] as StoreHere, origin)).id);
    }
    assert.deepEqual(
      (await here.store.snapshots()).map(({ id }) => id),
      made,
    );
  });
});

interface Started {
  readonly here: StoreHere;
  readonly backend: MemoryBackend;
  readonly origin: string;
  readonly folder: string;
}

class PlaceWithClock extends MemoryBackend {
  nowMs = 1_800_000_000_000;

  now(): number {
    return this.nowMs;
  }

  override async put(name: string, pieces: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    const outcome = await super.put(name, pieces);
    if (outcome === 'created') this.modified.set(name, new Date(this.nowMs));
    return outcome;
  }
}

async function start(t: TestContext, backend = new MemoryBackend()): Promise<Started> {
  const folder = tempDir(t);
  const origin = join(folder, 'origin.db');
  smallDatabase(origin, { rows: 60 });
  return { here: await storeElsewhere(backend, folder), backend, origin, folder };
}

/** Puts a pack in which each page of a snapshot is a delta, of all its blocks, on a page of zeros. */
async function putDeeperCopies({ access }: StoreHere, snapshot: StoreSnapshot): Promise<void> {
  const { index, reader } = await loadContents(access);
  const writer = new PackWriter(access, index);
  const { pageSize, pageCount } = snapshot;
  const zeros = new Uint8Array(pageSize);
  const base = idOf(zeros);
  writer.addPage(base, { page: { bitmap: undefined, data: zeros }, base: undefined }, 0, pageSize);
  const tree = new SnapshotTree(reader, snapshot);
  const bitmap = new Uint8Array(bitmapBytes(pageSize)).fill(0xff);
  for (let page = 1; page <= pageCount; page++) {
    const id = tree.pageId(page).slice();
    const data = new Uint8Array(pageSize);
    reader.readPage(id, data);
    writer.addPage(id, { page: { bitmap, data, group: groupOf(data) }, base }, 1, pageSize);
  }
  await writer.finish();
}

/** The puts, lists and deletes of `work`, which a service bills. */
async function operationsOf(backend: MemoryBackend, work: () => Promise<unknown>): Promise<string[]> {
  const operations: string[] = [];
  const put = backend.put.bind(backend);
  const list = backend.list.bind(backend);
  backend.put = (name, pieces) => {
    operations.push(`put ${name.split('/')[0]}`);
    return put(name, pieces);
  };
  backend.list = (folder) => {
    operations.push(`list ${folder}`);
    return list(folder);
  };
  try {
    await work();
    return operations;
  } finally {
    Object.assign(backend, { put, list });
  }
}
