import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { mendClone } from '../../src/pages/clone-pages.ts';
import { copyPages } from '../../src/pages/copy-pages.ts';
import { RUN_BYTES } from '../../src/pages/file-pages.ts';
import type { PageSource } from '../../src/pages/page-source.ts';
import { pageCount, pageNumber, pageSize } from '../../src/pages/page-types.ts';
import type { PageNumber, PageSize } from '../../src/pages/page-types.ts';
import { tempDir } from '../support/compare.ts';

const SIZES = [512, 4096, 65536].map((size) => pageSize(size) as PageSize);

/** Pages in memory; page `failsAt` cannot be read. */
class Pages implements PageSource {
  readonly bytes: Buffer;
  readonly pageSize: PageSize;
  readonly #failsAt: number;

  constructor(size: PageSize, pages: number, failsAt = Infinity) {
    this.pageSize = size;
    this.bytes = randomBytes(size * pages);
    this.#failsAt = failsAt;
  }

  get pageCount(): ReturnType<typeof pageCount> {
    return pageCount(this.bytes.length / this.pageSize);
  }

  readPage(page: PageNumber): Uint8Array {
    return this.readPages(page, 1);
  }

  readPages(first: PageNumber, count: number): Uint8Array {
    const bytes = new Uint8Array(count * this.pageSize);
    this.readInto(first, bytes);
    return bytes;
  }

  readInto(first: PageNumber, into: Uint8Array): void {
    const end = first + into.length / this.pageSize;
    if (first <= this.#failsAt && this.#failsAt < end) throw new Error('the page is gone');
    this.bytes.copy(into, 0, (first - 1) * this.pageSize);
  }

  close(): void {}
}

function open(
  t: TestContext,
  flags: string,
  path = join(tempDir(t), 'copy'),
): [descriptor: number, path: string] {
  const descriptor = openSync(path, flags);
  t.after(() => closeSync(descriptor));
  return [descriptor, path];
}

for (const size of SIZES) {
  test(`copies databases of any number of pages of ${size} bytes`, async (t) => {
    const perRun = RUN_BYTES / size;
    for (const pages of [0, 1, perRun - 1, perRun, perRun + 1, 6 * perRun + 3]) {
      const source = new Pages(size, pages);
      const [descriptor, path] = open(t, 'wx+');
      const runs: number[] = [];
      await copyPages(source, descriptor, {
        onRun: (first, bytes) => runs.push(first, first + bytes.length / size - 1),
      });
      assert.ok(readFileSync(path).equals(source.bytes), `${pages} pages`);
      const expected = Array.from({ length: Math.ceil(pages / perRun) }, (_, i) => [
        i * perRun + 1,
        Math.min((i + 1) * perRun, pages),
      ]);
      assert.deepEqual(runs, expected.flat());
    }
  });
}

test('a copy may begin at another page than the first, and leaves the place of the pages before it alone', async (t) => {
  const size = SIZES[1] as PageSize;
  const source = new Pages(size, 700);
  const [descriptor, path] = open(t, 'wx+');
  await copyPages(source, descriptor, { first: pageNumber(2) });
  const expected = Buffer.from(source.bytes).fill(0, 0, size);
  assert.ok(readFileSync(path).equals(expected));
});

test('a copy can be compared by every kind of page hash', async (t) => {
  for (const hash of ['nh-siphash', 'xxh64', 'sha256'] as const) {
    const source = new Pages(SIZES[1] as PageSize, 300);
    const [descriptor, path] = open(t, 'wx+');
    await copyPages(source, descriptor, { hash });
    assert.ok(readFileSync(path).equals(source.bytes));
  }
});

test('a copy finds and names a page that the file does not have where it was written', async (t) => {
  const source = new Pages(SIZES[1] as PageSize, 700);
  // Linux appends every write to a file that is open for appending, at any offset.
  const [appended] = open(t, 'ax+');
  await assert.rejects(copyPages(source, appended, { first: pageNumber(2) }), {
    code: 'ROOT_MISMATCH',
    message: /^Page 2 was read back/,
  });
  const [swallowed] = open(t, 'r+', '/dev/null');
  await assert.rejects(copyPages(source, swallowed), {
    code: 'ROOT_MISMATCH',
    message: /^Page 1 was read back/,
  });
});

test('a copy to a disk without room ends with the error of the system', async (t) => {
  const [full] = open(t, 'r+', '/dev/full');
  await assert.rejects(copyPages(new Pages(SIZES[1] as PageSize, 5000), full), { code: 'ENOSPC' });
});

test('a copy of a page that cannot be read ends with the error of the source, after the pages before it are written', async (t) => {
  const size = SIZES[1] as PageSize;
  const source = new Pages(size, 3000, 600);
  const [descriptor, path] = open(t, 'wx+');
  await assert.rejects(copyPages(source, descriptor), { message: 'the page is gone' });
  assert.ok(readFileSync(path).equals(source.bytes.subarray(0, 2 * RUN_BYTES)));
});

test('a copy whose listener throws ends with that error, and no write is under way then', async (t) => {
  const source = new Pages(SIZES[1] as PageSize, 3000);
  const [descriptor, path] = open(t, 'wx+');
  const onRun = (first: number): void => {
    if (first > 256) throw new Error('enough');
  };
  await assert.rejects(copyPages(source, descriptor, { onRun }), { message: 'enough' });
  assert.ok(readFileSync(path).equals(source.bytes.subarray(0, 2 * RUN_BYTES)));
});

for (const size of SIZES) {
  test(`a clone with other pages of ${size} bytes than its source is mended`, async (t) => {
    const perRun = RUN_BYTES / size;
    const source = new Pages(size, 6 * perRun + 3);
    for (const heldPages of [0, 1, perRun, 6 * perRun + 3, 7 * perRun]) {
      const [descriptor, path] = open(t, 'wx+');
      const clone = Buffer.alloc(heldPages * size);
      source.bytes.copy(clone);
      for (const page of [2, 3, perRun + 1, 5 * perRun]) if (page < heldPages) clone[page * size - 1]! ^= 1;
      writeSync(descriptor, clone);
      await mendClone(source, descriptor, { first: pageNumber(1) });
      const mended = readFileSync(path);
      assert.ok(mended.subarray(0, source.bytes.length).equals(source.bytes), `${heldPages} pages`);
      assert.ok(mended.subarray(source.bytes.length).equals(clone.subarray(source.bytes.length)));
    }
  });
}

test('a clone whose pages cannot be mended is found', async (t) => {
  const source = new Pages(SIZES[1] as PageSize, 700);
  const [swallowed] = open(t, 'r+', '/dev/null');
  await assert.rejects(mendClone(source, swallowed, { first: pageNumber(2) }), {
    code: 'ROOT_MISMATCH',
    message: /^Page 2 was read back/,
  });
  const [full] = open(t, 'r+', '/dev/full');
  await assert.rejects(mendClone(source, full, { first: pageNumber(2) }), { code: 'ENOSPC' });
});
