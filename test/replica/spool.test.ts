import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmdirSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Random } from '../../fixtures/random.ts';
import type { PageSize } from '../../src/pages/page-types.ts';
import { pageNumber } from '../../src/pages/page-types.ts';
import { Spool } from '../../src/replica/spool/spool.ts';
import { tempDir } from '../support/compare.ts';

const SIZE = 4096 as PageSize;
const IDENTITY = '4711';

/** The place of a page in the file, by the format: a header, then groups of 512 hashes and 512 pages. */
const hashAt = (page: number): number =>
  4096 + Math.floor((page - 1) / 512) * 513 * 4096 + ((page - 1) % 512) * 8;
const pageAt = (page: number): number =>
  4096 + Math.floor((page - 1) / 512) * 513 * 4096 + 4096 + ((page - 1) % 512) * 4096;

const PAGES = [2, 3, 4, 511, 512, 513, 514, 1025, 3000];

/** A spool at `path` as a run left it, with a page for each number. */
function leave(path: string, pages: readonly number[] = PAGES): Map<number, Uint8Array> {
  const random = new Random(5);
  const content = new Map(pages.map((page) => [page, random.bytes(SIZE)]));
  const spool = Spool.create(path, IDENTITY, SIZE);
  for (const [page, bytes] of content) spool.write(pageNumber(page), bytes);
  spool.close();
  return content;
}

/** The pages that a spool still has; checks that each is as it was written. */
async function kept(path: string, content: ReadonlyMap<number, Uint8Array>): Promise<number[] | undefined> {
  const spool = await Spool.resume(path, IDENTITY);
  if (spool === undefined) return undefined;
  const pages = [...spool.held];
  for (const page of pages)
    assert.deepEqual(Buffer.from(spool.readChecked(page)), Buffer.from(content.get(page) ?? []));
  spool.close();
  return pages;
}

function flip(path: string, offset: number): void {
  const byte = readFileSync(path)[offset] ?? 0;
  const descriptor = openSync(path, 'r+');
  writeSync(descriptor, Buffer.of(byte ^ 0x10), 0, 1, offset);
  closeSync(descriptor);
}

describe('the spool that a run left', () => {
  test('a spool gives back every page, is for its owner only and is sparse', async (t) => {
    const path = join(tempDir(t), 'spool');
    const content = leave(path);
    assert.deepEqual(await kept(path, content), PAGES);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.ok(statSync(path).blocks * 512 < 2_000_000, 'of 12 MB that it spans');
  });

  test('a spool gives back the last content of a page that came twice', async (t) => {
    const path = join(tempDir(t), 'spool');
    const content = leave(path);
    const spool = await Spool.resume(path, IDENTITY);
    content.set(513, new Random(6).bytes(SIZE));
    spool?.write(pageNumber(513), content.get(513) as Uint8Array);
    spool?.close();
    assert.deepEqual(await kept(path, content), PAGES);
  });

  for (const [what, offset] of [
    ['a page', pageAt(512) + 1234],
    ['the hash of a page', hashAt(512) + 3],
  ] as const) {
    test(`a spool with a flipped bit in ${what} has lost that page and no other`, async (t) => {
      const path = join(tempDir(t), 'spool');
      const content = leave(path);
      flip(path, offset);
      assert.deepEqual(
        await kept(path, content),
        PAGES.filter((page) => page !== 512),
      );
    });
  }

  test('a spool is closed as damaged if a page changes after it was checked', async (t) => {
    const path = join(tempDir(t), 'spool');
    leave(path);
    const spool = await Spool.resume(path, IDENTITY);
    flip(path, pageAt(3));
    assert.throws(() => spool?.readChecked(pageNumber(3)), /has lost page 3/);
    spool?.close();
  });

  test('a spool that was torn anywhere gives back only whole pages', async (t) => {
    const path = join(tempDir(t), 'spool');
    const pages = [2, 3, 510, 511, 512, 513, 514, 515];
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: pageAt(516) }), async (bytes) => {
        const content = leave(path, pages);
        truncateSync(path, bytes);
        const whole = pages.filter((page) => pageAt(page) + SIZE <= bytes);
        assert.deepEqual((await kept(path, content)) ?? [], whole);
      }),
      { numRuns: 30 },
    );
  });

  test('a spool with any damage gives back nothing that was not written', async (t) => {
    const path = join(tempDir(t), 'spool');
    const damage = fc.record({
      at: fc.nat({ max: pageAt(514) }),
      bytes: fc.uint8Array({ minLength: 1, maxLength: 9000 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(damage, { minLength: 1, maxLength: 4 }), async (damages) => {
        const content = leave(path, [2, 3, 512, 513]);
        const descriptor = openSync(path, 'r+');
        for (const { at, bytes } of damages) writeSync(descriptor, bytes, 0, bytes.length, at);
        closeSync(descriptor);
        await kept(path, content); // Asserts.
      }),
      { numRuns: 30 },
    );
  });

  test('a spool is no larger than the database that it is cut to', async (t) => {
    const path = join(tempDir(t), 'spool');
    const content = leave(path);
    const spool = await Spool.resume(path, IDENTITY);
    spool?.cut(513);
    spool?.close();
    assert.deepEqual(await kept(path, content), [2, 3, 4, 511, 512, 513]);
    assert.equal(statSync(path).size, pageAt(514));
  });

  test('a spool is removed when it is closed without a page', (t) => {
    const path = join(tempDir(t), 'spool');
    Spool.create(path, IDENTITY, SIZE).close();
    assert.equal(existsSync(path), false);
  });
});

test('a spool that fills the disk is removed, so that the disk is not left full', (t) => {
  const disk = mkdtempSync(join(tmpdir(), 'sqlsync-spool-disk-'));
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk]);
  t.after(() => {
    if (mounted.status === 0) spawnSync('umount', [disk]);
    rmdirSync(disk);
  });
  if (mounted.status !== 0) return t.skip('no file system can be mounted');
  const path = join(disk, 'spool');
  const spool = Spool.create(path, IDENTITY, SIZE);
  const fill = (): void => {
    for (let page = 2; page < 1000; page++) spool.write(pageNumber(page), new Uint8Array(SIZE).fill(page));
  };
  assert.throws(fill, { code: 'ENOSPC' });
  spool.close();
  assert.equal(existsSync(path), false);
});

describe('a file in the place of a spool is removed unused', () => {
  const cases: Record<string, (path: string) => void> = {
    'if it is of another replica': (path) => {
      Spool.create(path, '4712', SIZE).write(pageNumber(2), new Uint8Array(SIZE));
    },
    'if it is of another format': (path) => flip(path, 14),
    'if its header is torn': (path) => truncateSync(path, 20),
    'if it is empty': (path) => truncateSync(path, 0),
    'if it has a second name': (path) => linkSync(path, `${path}-link`),
    'if others may read or write it': (path) => chmodSync(path, 0o640),
    'if it is a database': (path) => writeFileSync(path, 'SQLite format 3\0'.padEnd(9000, 'x')),
    ...(process.getuid?.() === 0 ? { 'if it is another user’s': (path) => chownSync(path, 1, 1) } : {}),
  };
  for (const [name, make] of Object.entries(cases)) {
    test(`a file in the place of a spool is removed unused ${name}`, async (t) => {
      const path = join(tempDir(t), 'spool');
      leave(path);
      make(path);
      const link = `${path}-link`;
      const before = existsSync(link) ? readFileSync(link) : undefined;
      assert.equal(await Spool.resume(path, IDENTITY), undefined);
      assert.equal(lstatSync(path, { throwIfNoEntry: false }), undefined);
      if (before !== undefined)
        assert.deepEqual(readFileSync(link), before, 'the other name keeps its bytes');
    });
  }
});
