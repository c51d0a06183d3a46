import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { ByteRange } from '../../src/backup/backends/backend.ts';
import { change, largeDatabase } from '../pages/databases.ts';
import { FRAME_KINDS } from '../../src/backup/packs/frame.ts';
import type { IndexedPack } from '../../src/backup/packs/index-file.ts';
import { toHex } from '../../src/backup/packs/object-id.ts';
import { putIndexFiles } from '../../src/backup/objects/pack-writer.ts';
import { loadContents } from '../../src/backup/files/store-files.ts';
import { OpenStore } from '../../src/backup/store.ts';
import type { CheckSummary, StoreSnapshot } from '../../src/backup/types.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { FaultyBackend } from './faulty-backend.ts';
import { MemoryBackend } from './memory-backend.ts';
import { assertStored, backupHere, storeElsewhere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

/** Counts what is read of packs. */
class CountingBackend extends MemoryBackend {
  bytesRead = 0;
  readonly ranges: string[] = [];

  override getNow(name: string, range?: ByteRange): Uint8Array {
    const bytes = super.getNow(name, range);
    if (!name.startsWith('packs/')) return bytes;
    this.bytesRead += bytes.length;
    this.ranges.push(`${name} ${range?.offset ?? 0}`);
    return bytes;
  }
}

describe('a check with all data', () => {
  test('ends with the error of a place that does not answer, which is no damage, and goes on after a bad sector', async (t) => {
    const folder = tempDir(t);
    const origin = join(folder, 'origin.db');
    largeDatabase(origin, 1e6);
    const memory = new MemoryBackend();
    const here = await storeHere(memory, folder);
    await backupHere(here, origin);
    const checkWith = (code: string): Promise<CheckSummary> => {
      const backend = new FaultyBackend(memory, (_, operation, name) =>
        operation === 'get' && name.startsWith('packs/') ? 'before' : 'none',
      );
      backend.code = code;
      return new OpenStore({ ...here.access, backend, files: backend }).check({ readData: true });
    };
    for (const code of ['ECONNRESET', 'CONNECTION_LOST', 'EBUSY', 'EACCES'])
      await assert.rejects(checkWith(code), { code: 'STORE_UNAVAILABLE' });
    assert.ok((await checkWith('EIO')).problems.length > 0);
  });

  test('reads whole objects once, and finds a changed byte anywhere', async (t) => {
    const folder = tempDir(t);
    const origin = join(folder, 'origin.db');
    largeDatabase(origin, 8e6);
    const backend = new CountingBackend();
    const here = await storeHere(backend, folder);
    await backupHere(here, origin);
    backend.bytesRead = 0;
    const { problems, intact, packBytes, bytesRead } = await here.store.check({ readData: true });
    assert.deepEqual([problems.length, intact.length, bytesRead], [0, 1, packBytes]);
    assert.ok(packBytes > 4e6, `${packBytes} bytes`);
    assert.ok(backend.bytesRead < packBytes * 1.4, `${backend.bytesRead} of ${packBytes} bytes`);
    change(origin, 'UPDATE t SET x = randomblob(100) WHERE rowid % 50 = 0');
    await backupHere(here, origin);
    for (const [name, bytes] of backend.files) {
      if (!name.startsWith('packs/')) continue;
      for (const at of [40, bytes.length >> 1, bytes.length - 3]) {
        const changed = new Uint8Array(bytes);
        changed[at] = (changed[at] as number) ^ 1;
        backend.files.set(name, changed);
        const found = await here.store.check({ readData: true });
        assert.ok(
          found.problems.some(({ file }) => file === name),
          `${name} at ${at}`,
        );
      }
      backend.files.set(name, bytes);
    }
    assert.deepEqual((await here.store.check({ readData: true })).problems, []);
  });
});

describe('the bases in an index', () => {
  test('a prune goes by them, and reads no page', async (t) => {
    const folder = tempDir(t);
    const origin = join(folder, 'origin.db');
    largeDatabase(origin, 2e6);
    const backend = new CountingBackend();
    const here = await storeHere(backend, folder);
    await backupHere(here, origin);
    for (let day = 0; day < 3; day++) {
      change(
        origin,
        `UPDATE t SET x = substr(x, 1, 4000) || randomblob(20) || substr(x, 4021) WHERE rowid % 50 = ${day}`,
      );
      await backupHere(here, origin);
    }
    const { index } = await loadContents(here.access);
    assert.ok(index.maxDepth() >= 3);
    const pages = new Set(
      index.frames
        .filter(({ kind }) => kind === FRAME_KINDS.pages)
        .map(({ pack, offset }) => `packs/${pack.id} ${offset}`),
    );
    backend.ranges.length = 0;
    const { packsMarked, packsDeleted } = await here.store.prune();
    assert.deepEqual([packsMarked, packsDeleted], [0, 0]);
    assert.ok(backend.ranges.length > 0);
    assert.deepEqual(
      backend.ranges.filter((range) => pages.has(range)),
      [],
    );
  });

  /** Two snapshots, of which the second has deltas against the first. */
  async function twoBackups<T extends StoreHere>(
    t: TestContext,
    open: (backend: MemoryBackend, folder: string) => Promise<T>,
  ): Promise<{
    backend: CountingBackend;
    here: T;
    origin: string;
    first: StoreSnapshot;
    second: StoreSnapshot;
  }> {
    const folder = tempDir(t);
    const origin = join(folder, 'origin.db');
    largeDatabase(origin, 1e6);
    const backend = new CountingBackend();
    const here = await open(backend, folder);
    const first = await backupHere(here, origin);
    change(
      origin,
      'UPDATE t SET x = substr(x, 1, 4000) || randomblob(20) || substr(x, 4021) WHERE rowid % 50 = 1',
    );
    return { backend, here, origin, first, second: await backupHere(here, origin) };
  }

  /** Puts another index, with a change in the last pack that has deltas; returns the id of that. */
  async function reindex(
    backend: MemoryBackend,
    here: StoreHere,
    alter: (pack: IndexedPack) => void,
  ): Promise<string> {
    const { index, indexFiles } = await loadContents(here.access);
    const packs = [...index.packs.values()].map((pack) => index.describe(pack));
    for (const name of indexFiles.keys()) backend.files.delete(`indexes/${name}`);
    const last = packs.findLast(({ bases }) => bases.length > 0) as IndexedPack;
    alter(last);
    await putIndexFiles(here.access, packs);
    return toHex(last.id);
  }

  test('a check finds that an index names other bases than the frames, and nothing else fails', async (t) => {
    const { backend, here, origin, second } = await twoBackups(t, storeHere);
    const last = await reindex(backend, here, ({ bases }) => bases.fill(7, 0, 16));
    for (const readData of [false, true]) {
      const { problems } = await here.store.check({ readData });
      assert.deepEqual(
        problems.map(({ file }) => file),
        [`packs/${last}`],
      );
      assert.match(problems[0]?.message ?? '', /has deltas on other bases than its index says/);
    }
    await assertStored(here, [second], new Map([[second.id, pageImage(origin)]]));
  });

  test('a base in an index that does not exist makes prune refuse, and repair writes the index anew', async (t) => {
    const { backend, here, origin, second } = await twoBackups(t, storeHere);
    await reindex(backend, here, ({ bases }) => bases.fill(7));
    await assert.rejects(here.store.prune(), { code: 'STORE_DAMAGED', hint: /sqlsync repair STORE/ });
    const { packsIndexed, packsGivenUp, lost } = await here.store.repair();
    assert.deepEqual([packsIndexed, packsGivenUp, lost], [1, 0, []]);
    assert.deepEqual((await here.store.check({ readData: true })).problems, []);
    await here.store.prune();
    await assertStored(here, [second], new Map([[second.id, pageImage(origin)]]));
    const files = new Map(backend.files);
    await here.store.repair();
    assert.deepEqual(backend.files, files);
  });

  test('a base in an index that is another object never makes a prune delete the true one', async (t) => {
    const { backend, here, origin, first, second } = await twoBackups(t, storeHere);
    const { index } = await loadContents(here.access);
    const whole = Array.from({ length: index.objectCount }, (_, object) => object).find(
      (object) => index.depthOf(object) === 0 && index.frameOf(object)?.kind === FRAME_KINDS.pages,
    );
    const other = index.idOf(whole as number).slice(0, 16);
    await reindex(backend, here, ({ bases }) => {
      for (let at = 0; at < bases.length; at += 16) bases.set(other, at);
    });
    await here.store.forget([first.id]);
    const packs = [...backend.files.keys()].filter((name) => name.startsWith('packs/'));
    await assert.rejects(here.store.prune({ graceSeconds: 0, maxUnusedRatio: 0 }), {
      code: 'STORE_DAMAGED',
      message: /has deltas on other bases than its index says/,
    });
    assert.ok(packs.every((name) => backend.files.has(name)));
    assert.equal((await here.store.repair()).packsIndexed, 1);
    for (let i = 0; i < 3; i++) await here.store.prune({ graceSeconds: 0, maxUnusedRatio: 0 });
    assert.deepEqual((await here.store.check({ readData: true })).problems, []);
    await assertStored(here, [second], new Map([[second.id, pageImage(origin)]]));
  });

  test('a host that keeps copies of files compares the bases of a pack once', async (t) => {
    const { backend, here, origin, first, second } = await twoBackups(t, storeElsewhere);
    change(origin, 'UPDATE t SET x = randomblob(length(x)) WHERE rowid % 50 = 2');
    await backupHere(here, origin);
    await here.store.forget([first.id, second.id]);
    const deltas = async (): Promise<Set<string>> => {
      const { index } = await loadContents(here.access);
      const isDelta = (object: number): boolean => index.depthOf(object) > 0;
      const frames = index.frames.filter(
        ({ kind, firstObject, objectCount }) =>
          kind === FRAME_KINDS.pages &&
          Array.from({ length: objectCount }, (_, i) => firstObject + i).some(isDelta),
      );
      return new Set(frames.map(({ pack, offset }) => `packs/${pack.id} ${offset}`));
    };
    /** Which of these frames a prune reads that would delete something. */
    const readOf = async (frames: ReadonlySet<string>): Promise<number> => {
      backend.ranges.length = 0;
      await here.store.prune({ dryRun: true, graceSeconds: 0, maxUnusedRatio: 0 });
      return new Set(backend.ranges.filter((range) => frames.has(range))).size;
    };
    const frames = await deltas();
    assert.ok(frames.size > 0);
    assert.deepEqual([await readOf(frames), await readOf(frames)], [frames.size, 0]);
    change(origin, 'UPDATE t SET x = randomblob(10) WHERE rowid < 9');
    await backupHere(here, origin);
    const more = new Set([...(await deltas())].filter((frame) => !frames.has(frame)));
    assert.ok(more.size > 0);
    const all = new Set([...frames, ...more]);
    assert.deepEqual([await readOf(all), await readOf(all)], [more.size, 0]);
  });
});
