import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { ParentMemory } from '../../src/backup/copy/parent-memory.ts';
import { beginEpoch } from '../../src/backup/files/config.ts';
import { loadContents } from '../../src/backup/files/store-files.ts';
import { openBackend } from '../../src/backup/open-store.ts';
import { FRAME_KINDS } from '../../src/backup/packs/frame.ts';
import { OpenStore } from '../../src/backup/store.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { FaultyBackend } from './faulty-backend.ts';
import type { Fault, Operation } from './faulty-backend.ts';
import { MemoryBackend } from './memory-backend.ts';
import { assertStored, backupHere, storeElsewhere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

/** Without it a prune deletes only what was marked long ago. */
const AT_ONCE = { graceSeconds: 1e-9, maxUnusedRatio: 0 };

describe('what a host remembers of a store', () => {
  test('does not make a prune keep a damaged copy and delete a good one', async (t) => {
    const { here, origin, backend, folder } = await start(t);
    const { id } = await backupHere(here, origin);
    // The files of a backup that ran at the same time, without knowing of the first one.
    const other = new MemoryBackend();
    await other.put('config', [backend.getNow('config')]);
    const access = await openBackend(other);
    const { cache } = await storeHere(new MemoryBackend(), join(folder, 'other'));
    await backupHere({ access, store: new OpenStore(access), cache }, origin);
    for (const [name, bytes] of other.files) await backend.put(name, [bytes]);

    const { index, reader } = await loadContents(here.access);
    const copies = index.frames.filter(({ kind }) => kind === FRAME_KINDS.nodes);
    assert.equal(copies.length, 2);
    for (const number of index.frames.keys()) reader.readFrame(number);
    const [preferred] = index.copies(index.idOf(copies[0]?.firstObject ?? 0));
    const place = index.frames[index.frameNumberOf(preferred ?? 0)];
    const file = `packs/${place?.pack.id}`;
    const bytes = backend.getNow(file);
    const at = (place?.offset ?? 0) + (place?.length ?? 0) - 5;
    bytes[at] = (bytes[at] as number) ^ 1;
    backend.files.set(file, bytes);
    for (let prunes = 0; prunes < 3; prunes++) await here.store.prune(AT_ONCE);
    const { problems, damaged } = await here.store.check({ readData: true });
    assert.deepEqual([problems, damaged], [[], []]);
    await assertStored(
      { access: await openBackend(backend) },
      await here.store.snapshots(),
      new Map([[id, pageImage(origin)]]),
    );
  });

  test('is not asked after a run that failed: the next one uses the packs of that', async (t) => {
    const { here, origin } = await start(t);
    await backupHere(here, origin);
    change(origin, 'UPDATE item SET amount = -1 WHERE id % 5 = 0');
    const failing = held(here, (operation, name) =>
      operation === 'put' && name.startsWith('snapshots/') ? 'before' : 'none',
    );
    const fails = backupHere(failing, origin);
    await assert.rejects(
      fails,
      (error) => error instanceof SqlsyncError && error.code === 'STORE_UNAVAILABLE',
    );
    const operations: string[] = [];
    await backupHere(noted(here, operations), origin);
    assert.ok(operations.includes('list indexes') && !operations.includes('put packs'), operations.join());
  });

  test('counts for nothing at another address, and if the record of the parent was changed', async (t) => {
    const { here, origin, backend, folder } = await start(t);
    const { id } = await backupHere(here, origin);
    const lists = async (changed: Partial<StoreHere> = {}): Promise<boolean> => {
      const operations: string[] = [];
      const damaged = { onWarning: () => {} };
      await backupHere(noted({ ...here, ...changed }, operations), origin, damaged);
      return operations.includes('list indexes');
    };
    const record = backend.getNow(`snapshots/${id}`);
    backend.files.set(
      `snapshots/${id}`,
      record.map((byte, at) => (at === 9 ? byte ^ 1 : byte)),
    );
    assert.equal(await lists(), true);
    assert.equal(backend.files.has(`forgotten/${id}`), false);
    backend.files.set(`snapshots/${id}`, record);
    assert.equal(await lists(), false);
    const elsewhere = new ParentMemory(join(folder, 'parents'), 'a copy of the store');
    assert.equal(await lists({ parents: elsewhere }), true);
  });

  test('counts for nothing if damage is given up while a backup runs', async (t) => {
    const { here, origin } = await start(t);
    await backupHere(here, origin);
    change(origin, 'UPDATE item SET amount = -1 WHERE id = 3');
    const operations: string[] = [];
    let hasBegun = false;
    const slow = noted(here, operations, async (operation, name) => {
      if (operation !== 'put' || !name.startsWith('indexes/') || hasBegun) return;
      hasBegun = true;
      await beginEpoch(here.access);
    });
    await backupHere(slow, origin);
    const [, after = ''] = operations.join().split('put snapshots');
    assert.match(after, /list indexes/);
  });

  test('is read again from the store if a node on this host was wrong when it came', async (t) => {
    const { here, origin, backend } = await start(t);
    const { id } = await backupHere(here, origin);
    const { index } = await loadContents(here.access);
    const frame = index.frames.find(({ kind }) => kind === FRAME_KINDS.nodes);
    assert.ok(frame !== undefined);
    const { offset, length } = frame;
    const name = `packs/${frame.pack.id}`;
    const right = backend.getNow(name, { offset, length });
    const wrong = right.map((byte, at) => (at === right.length - 5 ? byte ^ 1 : byte));
    here.access.kept?.add(name, [wrong], { offset, length });
    const all = await here.store.snapshots();
    await assertStored(here, all, new Map([[id, pageImage(origin)]]));
    assert.equal(here.access.kept?.get(name, { offset, length }), undefined);
    await assertStored(here, all, new Map([[id, pageImage(origin)]]));
    assert.deepEqual(here.access.kept?.get(name, { offset, length }), right);
  });

  test('a reader lists the notes on snapshots before their records', async (t) => {
    const { here } = await start(t);
    const operations: string[] = [];
    await noted(here, operations).store.snapshots();
    assert.deepEqual(operations, ['list forgotten', 'list snapshots']);
  });
});

async function start(
  t: TestContext,
): Promise<{ here: StoreHere; backend: MemoryBackend; origin: string; folder: string }> {
  const folder = tempDir(t);
  const origin = join(folder, 'origin.db');
  smallDatabase(origin, { rows: 60 });
  const backend = new MemoryBackend();
  return { here: await storeElsewhere(backend, folder), backend, origin, folder };
}

/** The same store, each of whose operations has the fate that `plan` gives it, after what `before` does. */
function held(
  here: StoreHere,
  plan: (operation: Operation, name: string) => Fault,
  before?: (operation: Operation, name: string) => Promise<void>,
): StoreHere {
  let last: readonly [Operation, string] | undefined;
  const backend = new FaultyBackend(
    here.access.files as MemoryBackend,
    (_, operation, name) => {
      last = [operation, name];
      return plan(operation, name);
    },
    undefined,
    () => (last === undefined ? undefined : before?.(...last)),
  );
  const access = { ...here.access, backend, files: backend };
  return { ...here, access, store: new OpenStore(access) };
}

/** The same store; adds its puts, lists and deletes to `operations`. */
function noted(
  here: StoreHere,
  operations: string[],
  before?: (operation: Operation, name: string) => Promise<void>,
): StoreHere {
  const plan = (operation: Operation, name: string): Fault => {
    if (operation !== 'get') operations.push(`${operation} ${name.split('/')[0]}`);
    return 'none';
  };
  return held(here, plan, before);
}
