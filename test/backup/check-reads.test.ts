import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { ByteRange } from '../../src/backup/backends/backend.ts';
import { change, largeDatabase } from '../pages/databases.ts';
import { FRAME_KINDS } from '../../src/backup/packs/frame.ts';
import { toHex } from '../../src/backup/packs/object-id.ts';
import { putIndexFiles } from '../../src/backup/objects/pack-writer.ts';
import { loadContents } from '../../src/backup/files/store-files.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { MemoryBackend } from './memory-backend.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';

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

  test('a check finds that an index names other bases than the frames, and nothing else fails', async (t) => {
    const folder = tempDir(t);
    const origin = join(folder, 'origin.db');
    largeDatabase(origin, 1e6);
    const backend = new CountingBackend();
    const here = await storeHere(backend, folder);
    await backupHere(here, origin);
    change(
      origin,
      'UPDATE t SET x = substr(x, 1, 4000) || randomblob(20) || substr(x, 4021) WHERE rowid % 50 = 1',
    );
    const { id } = await backupHere(here, origin);
    const { index, indexFiles } = await loadContents(here.access);
    const packs = [...index.packs.values()].map((pack) => index.describe(pack));
    for (const name of indexFiles.keys()) backend.files.delete(`indexes/${name}`);
    const last = packs.findLast(({ bases }) => bases.length > 0);
    last?.bases.fill(7, 0, 16);
    await putIndexFiles(here.access, packs);
    for (const readData of [false, true]) {
      const { problems } = await here.store.check({ readData });
      assert.deepEqual(
        problems.map(({ file }) => file),
        [`packs/${toHex(last?.id as Uint8Array)}`],
      );
      assert.match(problems[0]?.message ?? '', /has deltas on other bases than its index says/);
    }
    await assertStored(here, [await here.store.find(id)], new Map([[id, pageImage(origin)]]));
  });
});
