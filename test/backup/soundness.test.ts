import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { LocalBackend } from '../../src/backup/backends/backend.ts';
import { MemoryBackend } from './memory-backend.ts';
import { OpenStore } from '../../src/backup/store.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { change } from '../pages/databases.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

const GRACE_SECONDS = 12;
const UPDATE = ['item', 'other']
  .map((table) => `UPDATE ${table} SET amount = amount + 1 WHERE id % 9 = 4`)
  .join(';');

describe('the base of a delta', () => {
  for (const cache of ['with', 'without']) {
    test(`a backup that finds the base of a delta gone writes it again, ${cache} a hash cache`, async (t) => {
      const { memory, here, origin, folder } = await place(t);
      await backupHere(here, origin);
      const before = namesIn(memory);
      change(origin, UPDATE);
      const image = pageImage(origin);
      await backupHere(here, origin);
      // The deltas stay with their index, as of a failed backup.
      for (const name of memory.files.keys()) {
        const isOld = before.has(name) && name !== 'config';
        if (isOld || name.startsWith('snapshots/')) memory.files.delete(name);
      }
      if (cache === 'without') rmSync(join(folder, 'cache'), { recursive: true });
      const again = await backupHere(here, origin);
      await assertStored(here, [again], new Map([[again.id, image]]));
      const { problems } = await here.store.check();
      assert.deepEqual(problems, []);
    });
  }

  test('a check that reads no data looks for the base of every delta', async (t) => {
    const { memory, here, origin } = await place(t);
    await backupHere(here, origin);
    const before = namesIn(memory);
    change(origin, UPDATE);
    const second = await backupHere(here, origin);
    for (const name of before) if (name !== 'config') memory.files.delete(name);
    memory.files.set(`forgotten/${second.parent}`, new Uint8Array(0));
    const { damaged, intact, problems } = await here.store.check();
    assert.deepEqual([damaged.map(({ snapshot }) => snapshot.id), intact], [[second.id], []]);
    assert.equal(problems.length, 1);
    await assert.rejects(assertStored(here, [second], new Map()), code('STORE_DAMAGED'));
  });
});

describe('a backup that is held up', () => {
  test('a backup that is held up until a prune has taken what it relies on fails, and the next one is good', async (t) => {
    const { memory, here, origin } = await place(t);
    const first = await backupHere(here, origin);
    change(origin, UPDATE);
    const image = pageImage(origin);
    const late = held(here, memory, 'put packs/', async () => {
      await here.store.forget([first.id]);
      for (let i = 0; i < 2; i++) {
        passSeconds(t, GRACE_SECONDS + 1);
        await here.store.prune();
      }
      assert.deepEqual([...namesIn(memory)], ['config']);
    });
    await assert.rejects(backupHere(late, origin), code('STORE_PRUNED'));
    const kinds = new Set([...namesIn(memory)].map((name) => name.split('/')[0]));
    assert.deepEqual(kinds, new Set(['config', 'packs']));
    const again = await backupHere(here, origin);
    await assertStored(here, [again], new Map([[again.id, image]]));
    assert.deepEqual((await here.store.check()).problems, []);
  });

  test('a backup that is held up for much of the grace period, by the clock alone, relies on no marked pack', async (t) => {
    const { memory, here, origin } = await place(t);
    const first = await backupHere(here, origin);
    passSeconds(t, GRACE_SECONDS + 1);
    change(origin, UPDATE);
    const late = held(here, memory, 'put packs/', async () => {
      await here.store.forget([first.id]);
      assert.equal((await here.store.prune()).packsMarked, 1);
      passSeconds(t, GRACE_SECONDS / 2 + 1);
    });
    await assert.rejects(backupHere(late, origin), code('STORE_PRUNED'));
  });

  test('a backup that is held up until nothing tells of its parent any more names no parent', async (t) => {
    const { memory, here, origin } = await place(t);
    await backupHere(here, origin);
    passSeconds(t, 1);
    const parent = await backupHere(here, origin);
    change(origin, UPDATE);
    const late = held(here, memory, 'put packs/', async () => {
      await here.store.forget([parent.id]);
      passSeconds(t, GRACE_SECONDS + 1);
      await here.store.prune();
      assert.ok(!memory.files.has(`forgotten/${parent.id}`));
    });
    const snapshot = await backupHere(late, origin);
    assert.equal(snapshot.parent, undefined);
    const { problems, damaged } = await here.store.check({ readData: true });
    assert.deepEqual([problems, damaged], [[], []]);
  });
});

test('a prune that is held up deletes nothing of a snapshot that was put meanwhile', async (t) => {
  const { memory, here, origin } = await place(t);
  const first = await backupHere(here, origin);
  passSeconds(t, GRACE_SECONDS + 1);
  change(origin, UPDATE);
  const image = pageImage(origin);
  let snapshot: StoreSnapshot | undefined;
  // The second prune begins during the backup, and goes on after it, when the mark is old.
  const begun = Promise.withResolvers<void>();
  const mayGoOn = Promise.withResolvers<void>();
  const slow = held(here, memory, 'put packs/', () => {
    begun.resolve();
    return mayGoOn.promise;
  });
  const backup = backupHere(slow, origin);
  await begun.promise;
  await here.store.forget([first.id]);
  assert.equal((await here.store.prune()).packsMarked, 1);
  passSeconds(t, GRACE_SECONDS / 3);
  const prune = held(here, memory, 'list marks', async () => {
    mayGoOn.resolve();
    snapshot = await backup;
    passSeconds(t, GRACE_SECONDS);
  });
  await prune.store.prune();
  assert.ok(snapshot !== undefined);
  await assertStored(here, [snapshot], new Map([[snapshot.id, image]]));
});

interface Place {
  readonly folder: string;
  readonly memory: MemoryBackend;
  readonly here: StoreHere;
  readonly origin: string;
}

/** A store with a clock of the test's own, and a database. */
async function place(t: TestContext): Promise<Place> {
  t.mock.timers.enable({ apis: ['Date'], now: 1_700_000_000_000 });
  const folder = tempDir(t);
  const memory = new MemoryBackend();
  const here = await storeHere(memory, folder, GRACE_SECONDS);
  const origin = join(folder, 'origin.db');
  // Three pages; every write changes a few blocks of each, so that all objects of a snapshot are new, and the
  // pages of both tables are deltas. One in a thousand comes whole, because a short hash of a block collides.
  change(
    origin,
    `CREATE TABLE item (id INTEGER PRIMARY KEY, amount, payload);
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30)
     INSERT INTO item SELECT i, 1, hex(i * 1000003) || hex(randomblob(45)) FROM n;
     CREATE TABLE other (id INTEGER PRIMARY KEY, amount, payload);
     INSERT INTO other SELECT id, amount, hex(randomblob(45)) FROM item`,
  );
  return { folder, memory, here, origin };
}

function namesIn({ files }: MemoryBackend): Set<string> {
  return new Set(files.keys());
}

function passSeconds(t: TestContext, seconds: number): void {
  t.mock.timers.setTime(Date.now() + seconds * 1000);
}

/** The same store for a command that waits for `meanwhile` before its first operation with this beginning. */
function held(
  here: StoreHere,
  memory: MemoryBackend,
  operation: string,
  meanwhile: () => Promise<void>,
): StoreHere {
  let isOver = false;
  const pass = async (now: string): Promise<void> => {
    if (isOver || !now.startsWith(operation)) return;
    isOver = true;
    await meanwhile();
  };
  const backend: LocalBackend = {
    description: memory.description,
    get: (name, range) => memory.get(name, range),
    getNow: (name, range) => memory.getNow(name, range),
    delete: (name) => memory.delete(name),
    replaceConfig: (pieces) => memory.replaceConfig(pieces),
    put: async (name, pieces) => {
      await pass(`put ${name}`);
      return memory.put(name, pieces);
    },
    list: async (folder) => {
      await pass(`list ${folder}`);
      return memory.list(folder);
    },
  };
  const access = { ...here.access, backend, files: backend };
  return { ...here, access, store: new OpenStore(access) };
}

function code(expected: string): (error: unknown) => boolean {
  return (error) => error instanceof SqlsyncError && error.code === expected;
}
