import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { initBackend, openBackend } from '../../src/backup/open-store.ts';
import { planForget } from '../../src/backup/prune/plan-forget.ts';
import { OpenStore } from '../../src/backup/store.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { FaultyBackend } from './faulty-backend.ts';
import type { Fault, Operation } from './faulty-backend.ts';
import { MemoryBackend } from './memory-backend.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

interface Source extends StoreHere {
  readonly memory: MemoryBackend;
  readonly folder: string;
  readonly snapshots: readonly StoreSnapshot[];
  /** What each snapshot must restore to, by its id. */
  readonly images: Map<string, Buffer>;
}

/** A store with `days` snapshots of a database in which another row changes each day. */
async function source(t: TestContext, days: number): Promise<Source> {
  const folder = tempDir(t);
  const memory = new MemoryBackend();
  const here = await storeHere(memory, folder);
  const origin = join(folder, 'a.db');
  smallDatabase(origin, { rows: 80 });
  const images = new Map<string, Buffer>();
  for (let day = 0; day < days; day++) {
    change(origin, `UPDATE item SET amount = ${day} WHERE id % 9 = ${day % 9}`);
    const image = pageImage(origin);
    images.set((await backupHere(here, origin)).id, image);
  }
  return { ...here, memory, folder, images, snapshots: await here.store.snapshots() };
}

async function target(graceSeconds?: number): Promise<{ memory: MemoryBackend; store: OpenStore }> {
  const memory = new MemoryBackend();
  return { memory, store: new OpenStore(await initBackend(memory, { graceSeconds })) };
}

/** The store on `memory` has a copy of each of these snapshots, and is sound. */
async function assertCopies(
  memory: MemoryBackend,
  from: Source,
  expected: readonly StoreSnapshot[],
): Promise<void> {
  const access = await openBackend(memory);
  const copies = await new OpenStore(access).snapshots();
  assert.deepEqual(
    copies.map(({ original }) => original),
    expected.map(({ id }) => id),
  );
  const images = copies.map(({ id, original = '' }) => [id, from.images.get(original) as Buffer] as const);
  await assertStored({ access }, copies, new Map(images));
  const { problems, damaged } = await new OpenStore(access).check({ readData: true });
  assert.deepEqual([problems.map(({ file, message }) => [file, message]), damaged], [[], []]);
}

describe('a copy of snapshots to another store', () => {
  test('all snapshots are there, as deltas, and in their order, with all that their records say', async (t) => {
    const from = await source(t, 20);
    const { memory, store } = await target();
    const { copied, skipped, bytesAdded } = await from.store.copyTo(store);
    assert.equal(copied.length, 20);
    assert.deepEqual(skipped, []);
    await assertCopies(memory, from, from.snapshots);
    const [there, here] = [await store.stats(), await from.store.stats()];
    assert.equal(there.objects, here.objects);
    assert.ok(bytesAdded < 1.1 * here.storedBytes, `${bytesAdded} of ${here.storedBytes}`);
    const copies = await store.snapshots();
    for (const [i, { id: _, original, parent, ...rest }] of copies.entries()) {
      const { id, parent: parentThere, ...expected } = from.snapshots[i] as StoreSnapshot;
      const own = { generation: 0, stored: undefined };
      assert.deepEqual({ ...rest, ...own }, { ...expected, ...own });
      assert.equal(original, id);
      assert.equal(parent, parentThere && copies[i - 1]?.id);
    }
  });

  test('a copy is made once, also of a copy, and the way back copies nothing', async (t) => {
    const from = await source(t, 3);
    const [second, third] = [await target(), await target()];
    await from.store.copyTo(second.store);
    const again = await from.store.copyTo(second.store);
    assert.deepEqual([again.copied.length, again.skipped.length, again.bytesAdded], [0, 3, 0]);
    await second.store.copyTo(third.store);
    await assertCopies(third.memory, from, from.snapshots);
    const files = third.memory.files.size;
    assert.equal((await from.store.copyTo(third.store)).copied.length, 0);
    assert.equal((await third.store.copyTo(from.store)).copied.length, 0);
    assert.equal(third.memory.files.size, files);
  });

  test('chosen snapshots are copied in any order and stay in that of the source', async (t) => {
    const from = await source(t, 6);
    const { memory, store } = await target();
    const id = (i: number): string => from.snapshots[i]?.id.slice(0, 16) as string;
    for (const ids of [[id(4)], [id(1), id(3)], [id(5)], [id(0)]]) await from.store.copyTo(store, { ids });
    const expected = [0, 1, 3, 4, 5].map((i) => from.snapshots[i] as StoreSnapshot);
    await assertCopies(memory, from, expected);
    assert.equal((await store.find('latest')).original, from.snapshots[5]?.id);
  });

  test('a dry run writes nothing', async (t) => {
    const from = await source(t, 2);
    const { memory, store } = await target();
    const files = memory.files.size;
    const { copied } = await from.store.copyTo(store, { dryRun: true });
    assert.deepEqual(
      copied.map(({ from: each, to }) => [each.id, to]),
      from.snapshots.map((each) => [each.id, undefined]),
    );
    assert.equal(memory.files.size, files);
  });

  test('a copy into itself is refused, and so is a snapshot that is not there', async (t) => {
    const from = await source(t, 1);
    await assert.rejects(from.store.copyTo(from.store), { code: 'USAGE' });
    const { store } = await target();
    await assert.rejects(from.store.copyTo(store, { ids: ['abcdef12'] }), { code: 'SNAPSHOT_NOT_FOUND' });
  });

  test('wherever an operation of the other store fails, the next run completes the copy', async (t) => {
    const from = await source(t, 4);
    for (const fault of ['before', 'after', 'late'] as const satisfies readonly Fault[]) {
      let failures = 0;
      for (let at = 1; ; at++) {
        const { memory } = await target();
        const fate = (number: number): Fault => (number === at ? fault : 'none');
        const faulty = new FaultyBackend(memory, fate);
        // The config is read before the plan counts.
        const access = await openBackend(memory);
        const store = new OpenStore({ ...access, backend: faulty, files: faulty });
        const failure = await from.store.copyTo(store).catch((error: unknown) => error);
        await faulty.arrive();
        const reached = faulty.count >= at;
        if (reached && failure instanceof Error) failures++;
        await from.store.copyTo(new OpenStore(await openBackend(memory)));
        await assertCopies(memory, from, from.snapshots);
        if (!reached) break;
      }
      assert.ok(failures > 5, `${failures} failures (${fault})`);
    }
  });

  test('a damaged copy of an object is not copied: another one is, or the copy fails and records nothing', async (t) => {
    const from = await source(t, 3);
    const [pack] = (await from.memory.list('packs')).map(({ name }) => `packs/${name}`) as [string];
    const bytes = from.memory.files.get(pack) as Uint8Array;
    let failed = 0;
    for (let at = 30; at < bytes.length; at += 97) {
      const flipped = new Uint8Array(bytes);
      flipped[at] = (flipped[at] as number) ^ 0x40;
      from.memory.files.set(pack, flipped);
      const { memory, store } = await target();
      const result = await new OpenStore(await openBackend(from.memory))
        .copyTo(store)
        .catch((error: unknown) => error);
      if (result instanceof Error) {
        failed++;
        assert.match((result as { code?: string }).code ?? '', /^STORE_/);
        assert.deepEqual(await memory.list('snapshots'), []);
      } else await assertCopies(memory, from, from.snapshots);
    }
    assert.ok(failed > 0);
  });

  test('of two copies of an object the right one is copied, whatever is wrong with the other', async (t) => {
    const from = await source(t, 1);
    const packs = async (): Promise<string[]> =>
      (await from.memory.list('packs')).map(({ name }) => `packs/${name}`).toSorted();
    const [first = ''] = await packs();
    const bytes = from.memory.files.get(first) as Uint8Array;
    // Without its pack everything is stored again; then the pack is put back.
    from.memory.files.delete(first);
    const again = await openBackend(from.memory);
    const origin = join(from.folder, 'a.db');
    await backupHere({ ...from, access: again, store: new OpenStore(again) }, origin, { usesParent: false });
    from.memory.files.set(first, bytes);
    const [victim = '', ...others] = await packs();
    assert.equal(others.length, 1);
    const good = from.memory.files.get(victim) as Uint8Array;
    const images = new Map((await from.store.snapshots()).map(({ id }) => [id, pageImage(origin)]));
    for (let at = 30; at < good.length; at += 89) {
      const flipped = new Uint8Array(good);
      flipped[at] = (flipped[at] as number) ^ 0x40;
      from.memory.files.set(victim, flipped);
      const { memory, store } = await target();
      await new OpenStore(await openBackend(from.memory)).copyTo(store);
      await assertCopies(memory, { ...from, images }, await from.store.snapshots());
    }
  });

  test('older snapshots that are copied to a store stay older than what that store has of the database', async (t) => {
    const from = await source(t, 2);
    const memory = new MemoryBackend();
    const here = await storeHere(memory, join(from.folder, 'other'));
    const origin = join(from.folder, 'a.db');
    change(origin, 'UPDATE item SET amount = -5');
    const newest = await backupHere(here, origin);
    await from.store.copyTo(here.store);
    const all = await here.store.snapshots();
    assert.equal(all.length, 3);
    assert.equal(all.at(-1)?.id, newest.id);
    assert.equal((await here.store.find('latest')).id, newest.id);
    const [group] = planForget(all, { last: 1 });
    assert.deepEqual(
      group?.keep.map(({ snapshot }) => snapshot.id),
      [newest.id],
    );
  });

  test('what a prune of the other store takes away meanwhile is noticed, or copied again', async (t) => {
    const from = await source(t, 4);
    const { memory, store } = await target(0);
    await from.store.copyTo(store);
    const copies = await store.snapshots();
    // The third copy is gone, and its pages are garbage that a new copy would rely on.
    await store.forget(copies.slice(2).map(({ id }) => id));
    const access = await openBackend(memory);
    let pruned = false;
    const fate = (_: number, operation: Operation, name: string): Fault => {
      if (operation === 'put' && name.startsWith('packs/')) pruned = true;
      return 'none';
    };
    const faulty = new FaultyBackend(memory, fate, undefined, async () => {
      if (!pruned) return;
      pruned = false;
      await store.prune({ graceSeconds: 0 });
    });
    const copying = new OpenStore({ ...access, backend: faulty, files: faulty });
    await from.store.copyTo(copying).catch((error: unknown) => {
      assert.equal((error as { code?: string }).code, 'STORE_PRUNED');
    });
    await from.store.copyTo(new OpenStore(await openBackend(memory)));
    await assertCopies(memory, from, from.snapshots);
  });
});
