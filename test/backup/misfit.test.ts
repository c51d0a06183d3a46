import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { encodeChecked } from '../../src/backup/files/checked-json.ts';
import { MemoryBackend } from './memory-backend.ts';
import { initBackend, openBackend } from '../../src/backup/open-store.ts';
import { SnapshotSource } from '../../src/backup/snapshots/snapshot-source.ts';
import { encodeSnapshot } from '../../src/backup/files/snapshot-record.ts';
import { loadContents, putRecord } from '../../src/backup/files/store-files.ts';
import { stillIntact } from '../../src/backup/check/still-intact.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import type { PageNumber } from '../../src/pages/page-types.ts';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { backupHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

describe('a record that does not fit its tree', () => {
  const wrong: readonly [string, (snapshot: StoreSnapshot) => Partial<StoreSnapshot>, RegExp][] = [
    [
      'of one page more',
      ({ pageCount }) => ({ pageCount: pageCount + 1 }),
      /of .*origin\.db at .* pages; its/,
    ],
    ['of one page less', ({ pageCount }) => ({ pageCount: pageCount - 1 }), /its tree has another number/],
    ['of one page', () => ({ pageCount: 1 }), /its tree has another number/],
    ['of as many pages as can be', () => ({ pageCount: 2 ** 32 - 2 }), /its tree has another number/],
    ['of smaller pages', () => ({ pageSize: 512 }), /have 512 bytes; they have 4096/],
    ['of larger pages', () => ({ pageSize: 65536 }), /have 65536 bytes; they have 4096/],
  ];
  for (const [what, change, message] of wrong) {
    test(`${what} is found by a check, and none is restored from it`, async (t) => {
      const { here, good } = await place(t);
      const { id: _, ...fields } = good;
      const record = encodeSnapshot({ ...fields, ...change(good) });
      const id = await putRecord(here.access, 'snapshots', 'snapshot', record);
      for (const readData of [false, true]) {
        const { problems, intact, damaged } = await here.store.check({ readData });
        assert.deepEqual(
          problems.map(({ file }) => file),
          [`snapshots/${id}`],
        );
        assert.match(problems[0]?.message ?? '', message);
        assert.deepEqual([intact, damaged.map(({ snapshot }) => snapshot.id)], [[good], [id]]);
      }
      const bad = await here.store.find(id);
      const contents = await loadContents(here.access);
      const source = new SnapshotSource(contents.reader, bad);
      const readAll = (): void => {
        for (let page = 1; page <= source.pageCount; page++) source.readPage(page as PageNumber);
      };
      assert.throws(readAll, { code: 'STORE_DAMAGED', file: 'snapshots' });
      assert.deepEqual(stillIntact(contents, [good, bad]), [good]);
    });
  }

  test('a record of pages without a root, or of a root without pages, is damaged', async (t) => {
    const { here, good } = await place(t);
    const { id: _, ...fields } = good;
    for (const change of [{ root: undefined }, { pageCount: 0 }]) {
      const record = encodeSnapshot({ ...fields, ...change });
      const id = await putRecord(here.access, 'snapshots', 'snapshot', record);
      const { problems, intact } = await here.store.check();
      assert.deepEqual([problems.map(({ file }) => file), intact], [[`snapshots/${id}`], [good]]);
      await here.store.forget([id]);
    }
  });
});

describe('the config of a store', () => {
  test('the config of a later version of the store is told apart from a damaged one', async () => {
    const memory = new MemoryBackend();
    const { config } = await initBackend(memory);
    memory.files.set('config', encodeChecked({ ...config, version: 3, more: 'fields' }));
    await assert.rejects(openBackend(memory), { code: 'STORE_VERSION', message: /version 3/ });
    memory.files.set('config', encodeChecked({ ...config, format: 'other' }));
    await assert.rejects(openBackend(memory), { code: 'STORE_DAMAGED', message: /not that of a store/ });
  });

  test('the config of a store is not read if it has more than 1 MiB', async () => {
    const memory = new MemoryBackend();
    const { config } = await initBackend(memory);
    const read: number[] = [];
    const get = memory.get.bind(memory);
    memory.get = async (name, range) => {
      const bytes = await get(name, range);
      read.push(bytes.length);
      return bytes;
    };
    memory.files.set('config', encodeChecked({ ...config, more: 'x'.repeat(8 * 1024 * 1024) }));
    await assert.rejects(openBackend(memory), { code: 'STORE_DAMAGED', message: /more than 1048576 bytes/ });
    assert.deepEqual(read, [1024 * 1024 + 1]);
  });
});

async function place(t: TestContext): Promise<{ here: StoreHere; good: StoreSnapshot }> {
  const folder = tempDir(t);
  const here = await storeHere(new MemoryBackend(), folder);
  const origin = join(folder, 'origin.db');
  smallDatabase(origin);
  await backupHere(here, origin);
  return { here, good: await here.store.find('latest') };
}
