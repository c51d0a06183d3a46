import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { STORE_FOLDERS } from '../../src/backup/backends/backend.ts';
import type { Backend, ByteRange, LocalBackend } from '../../src/backup/backends/backend.ts';
import { SqlsyncError } from '../../src/errors.ts';

const NAME = `packs/${'ab'.repeat(32)}`;

/**
 * What every backend must do, whatever its kind. `open` gives an empty place, and opens the same place again.
 */
export function backendSuite(name: string, open: (t: TestContext) => Promise<() => Backend>): void {
  describe(`${name} backend`, () => {
    test('a backend gives back what was put, whole and in ranges, also to another program that opens it', async (t) => {
      const reopen = await open(t);
      const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, i) => (i * 31) % 251));
      assert.equal(await reopen().put(NAME, [bytes.subarray(0, 7), bytes.subarray(7)]), 'created');
      const backend = reopen();
      for (const read of readsOf(backend)) assert.ok(bytes.equals(await read()));
      for (const [offset, length] of [
        [0, 1],
        [99_999, 1],
        [5, 50_000],
      ] as const) {
        const part = bytes.subarray(offset, offset + length);
        for (const read of readsOf(backend)) assert.ok(part.equals(await read({ offset, length })));
      }
    });

    test("a backend gives bytes that are the caller's own, to change or to give back", async (t) => {
      const backend = (await open(t))();
      const bytes = Buffer.alloc(100_000, 7);
      await backend.put(NAME, [bytes]);
      for (const range of [undefined, { offset: 10, length: 50_000 }]) {
        for (const read of readsOf(backend)) {
          const given = await read(range);
          given.fill(1);
          (given.buffer as ArrayBuffer).transfer(0);
        }
      }
      assert.ok(bytes.equals(await backend.get(NAME)));
    });

    test('a backend gives fewer bytes where a file ends before the range', async (t) => {
      const backend = (await open(t))();
      await backend.put(NAME, [Buffer.from('abcdef')]);
      for (const read of readsOf(backend)) {
        assert.equal(Buffer.from(await read({ offset: 4, length: 10 })).toString(), 'ef');
        assert.equal((await read({ offset: 10, length: 10 })).length, 0);
      }
    });

    test('a backend gives no bytes of an empty file', async (t) => {
      const backend = (await open(t))();
      await backend.put(NAME, []);
      for (const read of readsOf(backend))
        for (const range of [undefined, { offset: 0, length: 10 }])
          assert.equal((await read(range)).length, 0);
    });

    test('a backend does many operations at once', async (t) => {
      const backend = (await open(t))();
      const names = Array.from({ length: 32 }, (_, i) => `packs/${String(i).padStart(64, '0')}`);
      const outcomes = await Promise.all(names.map((each) => backend.put(each, [Buffer.from(each)])));
      assert.deepEqual(new Set(outcomes), new Set(['created']));
      const range = { offset: 6, length: 64 };
      const parts = await Promise.all(names.map((each) => backend.get(each, range)));
      assert.deepEqual(
        parts.map((part) => `packs/${Buffer.from(part).toString()}`),
        names,
      );
      await Promise.all(names.map((each) => backend.delete(each)));
      assert.deepEqual(await backend.list('packs'), []);
    });

    test('a backend never overwrites a file', async (t) => {
      const backend = (await open(t))();
      assert.equal(await backend.put('config', [Buffer.from('first')]), 'created');
      assert.equal(await backend.put('config', [Buffer.from('second')]), 'exists');
      assert.equal(Buffer.from(await backend.get('config')).toString(), 'first');
    });

    test('a backend lets exactly one of many puts of config win', async (t) => {
      const reopen = await open(t);
      const outcomes = await Promise.all(
        Array.from({ length: 8 }, (_, i) => reopen().put('config', [Buffer.from(`by ${i}`)])),
      );
      assert.deepEqual(outcomes.toSorted(), ['created', ...Array.from({ length: 7 }, () => 'exists')]);
      const winner = outcomes.indexOf('created');
      assert.equal(Buffer.from(await reopen().get('config')).toString(), `by ${winner}`);
    });

    test('a backend has a file whole while many put it at once', async (t) => {
      const reopen = await open(t);
      const bytes = Buffer.alloc(300_000, 5);
      await Promise.all(Array.from({ length: 8 }, () => reopen().put(NAME, [bytes])));
      for (const read of readsOf(reopen())) assert.ok(bytes.equals(await read()));
    });

    test('a backend replaces config by other bytes, which every program then reads', async (t) => {
      const reopen = await open(t);
      const backend = reopen();
      await backend.put('config', [Buffer.from('damaged')]);
      await backend.replaceConfig([Buffer.from('new'), Buffer.from('er')]);
      assert.equal(Buffer.from(await reopen().get('config')).toString(), 'newer');
    });

    test('a backend puts nothing where another store has come to lie, and goes on where the same one has another config', async (t) => {
      const reopen = await open(t);
      const backend = reopen();
      const other = reopen();
      if (backend === other) return t.skip('all who open it share one object');
      const config = (id: string, more: string): Buffer => Buffer.from(JSON.stringify({ id, more }));
      await backend.put('config', [config('first', '')]);
      // A look at a bucket counts for a minute.
      t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 120_000 });
      await other.replaceConfig([config('first', 'changed')]);
      assert.equal(await backend.put(NAME, [Buffer.from('x')]), 'created');
      t.mock.timers.setTime(Date.now() + 120_000);
      await reopen().replaceConfig([config('second', '')]);
      for (const work of [
        () => backend.put(`packs/${'cd'.repeat(32)}`, [Buffer.from('y')]),
        () => backend.replaceConfig([config('first', '')]),
      ])
        await assert.rejects(work(), {
          code: 'STORE_UNAVAILABLE',
          message: /another store lies there now: second instead of first/,
        });
      assert.deepEqual(
        (await reopen().list('packs')).map(({ name: file }) => `packs/${file}`),
        [NAME],
      );
      assert.deepEqual(Buffer.from(await reopen().get('config')), config('second', ''));
    });

    test('a backend that has a clock of its own is not ahead of the times of its files', async (t) => {
      const backend = (await open(t))();
      await backend.list('packs');
      const before = backend.now?.() ?? Date.now();
      await backend.put(NAME, [Buffer.from('x')]);
      const [file] = await backend.list('packs');
      // Times of files may be in whole seconds, as far as the file system's ticks.
      assert.ok((file?.modified.getTime() ?? 0) >= before - 2000);
    });

    test('a backend lists its files, with lengths, by folder', async (t) => {
      const backend = (await open(t))();
      for (const folder of STORE_FOLDERS) assert.deepEqual(await backend.list(folder), []);
      const before = Date.now();
      await backend.put('snapshots/00', [Buffer.from('abc')]);
      await backend.put('snapshots/01', []);
      await backend.put('packs/00', [Buffer.from('a')]);
      const listed = await backend.list('snapshots');
      const shapes = listed.map(({ name: file, bytes }) => ({ file, bytes }));
      assert.deepEqual(
        shapes.toSorted((a, b) => (a.file < b.file ? -1 : 1)),
        [
          { file: '00', bytes: 3 },
          { file: '01', bytes: 0 },
        ],
      );
      // A file system's clock may be a little behind.
      for (const { modified } of listed) assert.ok(modified.getTime() >= before - 5000);
    });

    test('a backend deletes files, also one that is missing', async (t) => {
      const backend = (await open(t))();
      await backend.put(NAME, [Buffer.from('x')]);
      await backend.delete(NAME);
      await backend.delete(NAME);
      assert.deepEqual(await backend.list('packs'), []);
      assert.equal(await backend.put(NAME, [Buffer.from('y')]), 'created');
    });

    test('a backend says that a missing file is missing', async (t) => {
      const backend = (await open(t))();
      const missing = (error: unknown): boolean =>
        error instanceof SqlsyncError && error.code === 'STORE_FILE_MISSING' && error.message.includes(NAME);
      for (const read of readsOf(backend))
        for (const range of [undefined, { offset: 0, length: 1 }]) await assert.rejects(read(range), missing);
    });
  });
}

/** The ways to read the file `NAME`. */
function readsOf(backend: Backend): ((range?: ByteRange) => Promise<Uint8Array>)[] {
  const get = (range?: ByteRange): Promise<Uint8Array> => backend.get(NAME, range);
  if (!isLocal(backend)) return [get];
  return [get, (range) => new Promise((resolve) => resolve(backend.getNow(NAME, range)))];
}

function isLocal(backend: Backend): backend is LocalBackend {
  return 'getNow' in backend;
}
