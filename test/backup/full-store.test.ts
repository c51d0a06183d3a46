import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { LocalBackend, ByteRange, StoredFile, StoreFolder } from '../../src/backup/backends/backend.ts';
import { DirectoryBackend } from '../../src/backup/backends/directory-backend.ts';
import { MemoryBackend } from './memory-backend.ts';
import { openBackend } from '../../src/backup/open-store.ts';
import { OpenStore } from '../../src/backup/store.ts';
import { unavailable } from '../../src/backup/store-error.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { FaultyBackend } from './faulty-backend.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-full-'));
const files = new Map<string, Uint8Array>();
const images = new Map<string, Buffer>();
let snapshots: StoreSnapshot[] = [];

before(async () => {
  const memory = new MemoryBackend();
  const here = await storeHere(memory, folder);
  for (let day = 0; day < 4; day++) {
    const image = await backUpDay(here, join(folder, 'origin.db'), day);
    images.set(image.id, image.bytes);
  }
  // A pack that is marked already, with a mark that is old enough.
  snapshots = await here.store.snapshots();
  await here.store.forget([(snapshots[1] as StoreSnapshot).id]);
  await here.store.prune({ graceSeconds: 1e-9, maxUnusedRatio: 0 });
  snapshots = await here.store.snapshots();
  for (const [name, bytes] of memory.files) files.set(name, bytes);
});
after(() => rmSync(folder, { recursive: true, force: true }));

/** Each day has other pages, so that each snapshot has packs of its own. */
async function backUpDay(
  here: StoreHere,
  origin: string,
  day: number,
): Promise<{ id: string; bytes: Buffer }> {
  if (day === 0) smallDatabase(origin, { rows: 60 });
  else
    change(
      origin,
      `UPDATE item SET payload = hex(randomblob(length(payload) / 2)) WHERE id % 2 = ${day % 2}`,
    );
  const bytes = pageImage(origin);
  return { id: (await backupHere(here, origin)).id, bytes };
}

describe('a store without a free byte', () => {
  test('a full store is emptied by a forget and prunes without a grace period, even if each is killed at any point', async () => {
    const [oldest, kept, newest] = snapshots as [StoreSnapshot, StoreSnapshot, StoreSnapshot];
    for (const fault of ['before', 'after'] as const) {
      for (let at = 1, operations = Infinity; at <= operations; at++) {
        const { memory, full } = await fullStore();
        const access = await openBackend(full);
        const faulty = new FaultyBackend(full, (number) => (number >= at ? fault : 'none'));
        const dying = new OpenStore({ ...access, backend: faulty, files: faulty });
        const store = new OpenStore(access);
        try {
          await dying.forget([oldest.id, newest.id]);
          for (let i = 0; i < 2; i++) await dying.prune({ graceSeconds: 0 });
          operations = faulty.count;
        } catch (error) {
          assert.ok(error instanceof SqlsyncError && error.code === 'STORE_UNAVAILABLE', String(error));
        }
        await assertStored({ access }, await store.snapshots(), images);
        await store.forget([oldest.id, newest.id]);
        for (let i = 0; i < 4; i++) await pruneAsFarAsCanBe(store);
        const { problems, damaged, intact } = await store.check({ readData: true });
        assert.deepEqual(
          [problems, damaged, intact.map(({ id }) => id)],
          [[], [], [kept.id]],
          `killed at ${at}`,
        );
        await assertStored({ access }, intact, images);
        assert.ok(
          sizeOf(memory) < sizeOf({ files }) * 0.8,
          `${sizeOf(memory)} of ${sizeOf({ files })} bytes`,
        );
      }
    }
  });

  test('a prune of a full store deletes what is marked and due before it writes anything', async () => {
    const { memory, full } = await fullStore();
    const store = new OpenStore(await openBackend(full));
    const { packsDeleted, outOfSpace } = await store.prune({ graceSeconds: 1e-9 });
    assert.ok(packsDeleted > 0 && !outOfSpace);
    assert.ok(sizeOf(memory) < sizeOf({ files }));
    assert.deepEqual((await store.check({ readData: true })).problems, []);
  });

  test('a prune of a full store that finds nothing to delete says that there is no space', async (t) => {
    const { memory, full } = await fullStore();
    t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 60_000 });
    const store = new OpenStore(await openBackend(full));
    await store.forget(snapshots.slice(1).map(({ id }) => id));
    // Nothing is marked yet, and a prune can do no more.
    for (const name of memory.files.keys()) if (name.startsWith('marks/')) memory.files.delete(name);
    full.capacity = sizeOf(memory);
    await assert.rejects(
      store.prune({ graceSeconds: 1 }),
      (error) => error instanceof SqlsyncError && /--grace 0/.test(error.hint ?? ''),
    );
  });
});

test('a folder on a full file system is emptied by forget and prune', async (t) => {
  const place = join(tempDir(t), 'disk');
  mkdirSync(place);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', place], { stdio: 'pipe' });
  } catch {
    return t.skip('no file system can be mounted');
  }
  try {
    await fillAndEmpty(place);
  } finally {
    execFileSync('umount', ['-l', place]);
  }
});

async function fillAndEmpty(place: string): Promise<void> {
  const store = join(place, 'store');
  const here = await storeHere(new DirectoryBackend(store), store);
  const origin = join(folder, 'other.db');
  const days: { id: string; bytes: Buffer }[] = [];
  for (let day = 0; day < 3; day++) days.push(await backUpDay(here, origin, day));
  fill(place);
  await assert.rejects(backUpDay(here, origin, 3), /ENOSPC/);
  const [kept, ...others] = days as [(typeof days)[number]];
  const { forgotten } = await here.store.forget(others.map(({ id }) => id));
  assert.equal(forgotten.length, 2);
  let freed = 0;
  for (let i = 0; i < 3; i++) freed += (await here.store.prune({ graceSeconds: 0 })).bytesDeleted;
  assert.ok(freed > 0);
  const { problems, damaged } = await here.store.check({ readData: true });
  assert.deepEqual([problems, damaged], [[], []]);
  await assertStored(here, await here.store.snapshots(), new Map([[kept.id, kept.bytes]]));
  await backUpDay(here, origin, 3);
}

/**
 * It is no failure here if a prune finds no room to copy the needed objects out of a pack, and leaves them.
 */
async function pruneAsFarAsCanBe(store: OpenStore): Promise<void> {
  try {
    await store.prune({ graceSeconds: 0 });
  } catch (error) {
    assert.ok(error instanceof SqlsyncError && /ENOSPC/.test(error.message), String(error));
    assert.match(error.hint ?? '', /free space on this disk/);
  }
}

/** Takes the last byte of a file system. */
function fill(place: string): void {
  for (let n = 0, bytes = 1024 * 1024; bytes >= 1; n++) {
    try {
      writeFileSync(join(place, `filler-${n}`), Buffer.alloc(bytes));
    } catch {
      bytes = Math.floor(bytes / 2);
    }
  }
}

/** A copy of the store that takes new bytes only after something is deleted. */
async function fullStore(): Promise<{ memory: MemoryBackend; full: FullBackend }> {
  const memory = new MemoryBackend();
  for (const [name, bytes] of files) await memory.put(name, [bytes]);
  // A mark put in this millisecond would be due in the next one.
  for (const name of files.keys()) memory.modified.set(name, new Date(Date.now() - 60_000));
  return { memory, full: new FullBackend(memory, sizeOf(memory)) };
}

function sizeOf({ files: all }: { readonly files: ReadonlyMap<string, Uint8Array> }): number {
  return [...all.values()].reduce((sum, { length }) => sum + length, 0);
}

/** Holds at most `capacity` bytes. */
class FullBackend implements LocalBackend {
  readonly description = 'a full store';
  capacity: number;
  readonly #memory: MemoryBackend;

  constructor(memory: MemoryBackend, capacity: number) {
    this.#memory = memory;
    this.capacity = capacity;
  }

  put(name: string, pieces: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    const bytes = pieces.reduce((sum, { length }) => sum + length, 0);
    if (sizeOf(this.#memory) + bytes <= this.capacity) return this.#memory.put(name, pieces);
    const cause = Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    return Promise.reject(unavailable(this.description, `write ${name}`, cause));
  }

  replaceConfig(pieces: readonly Uint8Array[]): Promise<void> {
    return this.#memory.replaceConfig(pieces);
  }

  get(name: string, range?: ByteRange): Promise<Uint8Array> {
    return this.#memory.get(name, range);
  }

  getNow(name: string, range?: ByteRange): Uint8Array {
    return this.#memory.getNow(name, range);
  }

  list(where: StoreFolder): Promise<StoredFile[]> {
    return this.#memory.list(where);
  }

  delete(name: string): Promise<void> {
    return this.#memory.delete(name);
  }
}
