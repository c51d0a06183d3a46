import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { STORE_FOLDERS } from '../../src/backup/backends/backend.ts';
import type { Backend } from '../../src/backup/backends/backend.ts';
import { SqlsyncError } from '../../src/errors.ts';

const NAME = `packs/${'ab'.repeat(32)}`;

/** What every backend must do, however it is reached. `open` gives an empty place, and opens the same place again. */
export function backendSuite(name: string, open: (t: TestContext) => Promise<() => Backend>): void {
  describe(`${name} backend`, () => {
    test('gives back what was put, whole and in ranges, also to another who opens it', async (t) => {
      const reopen = await open(t);
      const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, i) => (i * 31) % 251));
      assert.equal(await reopen().put(NAME, [bytes.subarray(0, 7), bytes.subarray(7)]), 'created');
      const backend = reopen();
      assert.ok(bytes.equals(await backend.get(NAME)));
      assert.ok(bytes.equals(backend.getNow(NAME)));
      for (const [offset, length] of [
        [0, 1],
        [99_999, 1],
        [5, 50_000],
      ] as const) {
        const part = bytes.subarray(offset, offset + length);
        assert.ok(part.equals(await backend.get(NAME, { offset, length })));
        assert.ok(part.equals(backend.getNow(NAME, { offset, length })));
      }
    });

    test("gives bytes that are the caller's own, to change or to give back", async (t) => {
      const backend = (await open(t))();
      const bytes = Buffer.alloc(100_000, 7);
      await backend.put(NAME, [bytes]);
      for (const range of [undefined, { offset: 10, length: 50_000 }]) {
        for (const given of [await backend.get(NAME, range), backend.getNow(NAME, range)]) {
          given.fill(1);
          (given.buffer as ArrayBuffer).transfer(0);
        }
      }
      assert.ok(bytes.equals(backend.getNow(NAME)));
    });

    test('gives fewer bytes where a file ends before the range', async (t) => {
      const backend = (await open(t))();
      await backend.put(NAME, [Buffer.from('abcdef')]);
      assert.equal(Buffer.from(await backend.get(NAME, { offset: 4, length: 10 })).toString(), 'ef');
      assert.equal(Buffer.from(backend.getNow(NAME, { offset: 4, length: 10 })).toString(), 'ef');
      assert.equal(backend.getNow(NAME, { offset: 10, length: 10 }).length, 0);
    });

    test('never overwrites', async (t) => {
      const backend = (await open(t))();
      assert.equal(await backend.put('config', [Buffer.from('first')]), 'created');
      assert.equal(await backend.put('config', [Buffer.from('second')]), 'exists');
      assert.equal(Buffer.from(await backend.get('config')).toString(), 'first');
    });

    test('lets exactly one of many win that put one name at once', async (t) => {
      const reopen = await open(t);
      const outcomes = await Promise.all(
        Array.from({ length: 8 }, (_, i) => reopen().put(NAME, [Buffer.from(`by ${i}`)])),
      );
      assert.deepEqual(outcomes.toSorted(), ['created', ...Array.from({ length: 7 }, () => 'exists')]);
      const winner = outcomes.indexOf('created');
      assert.equal(Buffer.from(await reopen().get(NAME)).toString(), `by ${winner}`);
    });

    test('lists what is there, with lengths, by folder', async (t) => {
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

    test('deletes, also what is not there', async (t) => {
      const backend = (await open(t))();
      await backend.put(NAME, [Buffer.from('x')]);
      await backend.delete(NAME);
      await backend.delete(NAME);
      assert.deepEqual(await backend.list('packs'), []);
      assert.equal(await backend.put(NAME, [Buffer.from('y')]), 'created');
    });

    test('says of a file that is missing that it is', async (t) => {
      const backend = (await open(t))();
      const missing = (error: unknown): boolean =>
        error instanceof SqlsyncError && error.code === 'STORE_FILE_MISSING' && error.message.includes(NAME);
      await assert.rejects(backend.get(NAME), missing);
      await assert.rejects(backend.get(NAME, { offset: 0, length: 1 }), missing);
      assert.throws(() => backend.getNow(NAME), missing);
    });
  });
}
