import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { copyFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { Random } from '../../fixtures/random.ts';
import { change, damage, smallDatabase } from '../pages/databases.ts';
import { DifferingPages } from '../../src/sync/runs/differing-pages.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { assertRefused, folderState, jsonLines, sqlsync } from './command.ts';
import type { Run, Summary } from './command.ts';

/** Two equal databases in a folder. */
function place(t: TestContext): { folder: string; a: string; b: string } {
  const folder = tempDir(t);
  const [a, b] = [join(folder, 'a.db'), join(folder, 'b.db')];
  smallDatabase(a, { journalMode: 'delete' });
  copyFileSync(a, b);
  return { folder, a, b };
}

/** Changes the byte before `end` to another value. */
function flipLastByte(path: string, end: number): void {
  const byte = readFileSync(path)[end - 1] ?? 0;
  damage(path, end - 1, Buffer.of(byte ^ 1));
}

/** Compares, and checks that nothing was written. */
async function verify(folder: string, args: readonly string[]): Promise<Run> {
  const before = folderState(folder);
  const run = await sqlsync(['verify', ...args]);
  assert.deepEqual(folderState(folder), before);
  return run;
}

describe('verify', () => {
  test('verify exits 0 for the same database, and needs no mark', async (t) => {
    const { folder, a, b } = place(t);
    const { status, stdout, stderr } = await verify(folder, [a, b]);
    assert.match(stdout, /are the same: \d+ pages of 4,096 bytes/);
    assert.equal(status, 0, stderr);
  });

  test('verify compares a database with itself', async (t) => {
    const { folder, a } = place(t);
    assert.equal((await verify(folder, [a, a])).status, 0);
  });

  test('verify ignores what belongs to each file: journal mode, counters, schema cookie', async (t) => {
    const { folder, a, b } = place(t);
    change(b, 'PRAGMA journal_mode = wal; PRAGMA schema_version = 4711');
    const { status, stdout } = await verify(folder, [a, b]);
    assert.equal(status, 0, stdout);
  });

  test('verify exits 1 and names the tables and indexes that differ, and the pages', async (t) => {
    const { folder, a, b } = place(t);
    change(b, "UPDATE item SET label = 'another' || id WHERE id IN (10, 200)");
    const { status, stdout } = await verify(folder, [a, b]);
    assert.equal(status, 1);
    assert.match(stdout, /differ in \d+ pages?/);
    assert.match(stdout, /^ {2}item: \d+ pages?$/m);
    assert.match(stdout, /^ {2}item_label: \d+ pages?/m);
    assert.doesNotMatch(stdout, /attachment|setting/);
    assert.match(stdout, /^ {2}pages {5}\d+/m);
  });

  test('verify shows the name of a table on one line, even if it holds line breaks', async (t) => {
    const { folder, a, b } = place(t);
    change(b, 'CREATE TABLE "x\n/tmp/c.db and /tmp/d.db are the same\r\n" (x)');
    const { status, stdout } = await verify(folder, [a, b]);
    assert.equal(status, 1);
    assert.match(
      stdout,
      /^ {2}x ↵ \/tmp\/c\.db and \/tmp\/d\.db are the same ↵: 0 pages in the first, 1 in the second$/m,
    );
    assert.doesNotMatch(stdout, /^\/tmp\/c\.db/m);
  });

  test('verify names many tables with long names, each as far as there is room', async (t) => {
    const { folder, b } = place(t);
    const a = join(folder, 'many.db');
    const names = Array.from({ length: 1600 }, (_, i) => `${i}${'数'.repeat(490)}`);
    const tables = names.map((name) => `CREATE TABLE "${name}" (x);`).join('\n');
    const most = 'INSERT INTO most SELECT randomblob(3000) FROM most, most, most';
    change(a, `BEGIN; ${tables} CREATE TABLE most (x); INSERT INTO most VALUES (1), (2); ${most}; COMMIT`);
    const { status, stdout, stderr } = await verify(folder, [a, b, '--json']);
    assert.equal(status, 1, stdout + stderr);
    const objects = (jsonLines(stdout).at(-1) as Summary)['objects'] as { name: string }[];
    const ofA = objects.filter(({ name }) => /^\d+数+$/.test(name));
    assert.equal(ofA.length, 1600);
    assert.ok(objects.some(({ name }) => name === 'most'));
    assert.ok(objects.every(({ name }) => Buffer.byteLength(name) <= 500 && !name.includes('\ufffd')));
  });

  test('verify finds a single byte, and exactly its page', async (t) => {
    const { folder, a, b } = place(t);
    damage(b, 30 * 4096 - 1, Buffer.of(0xff));
    const { status, stdout } = await verify(folder, [a, b, '--json']);
    assert.equal(status, 1);
    assert.deepEqual((jsonLines(stdout).at(-1) as Summary)['differingPages'], [[30, 30]]);
  });

  test('verify gives neighbouring pages as one range, the first and the last page of each', async (t) => {
    const { folder, a, b } = place(t);
    for (const page of [5, 6, 7, 30]) damage(b, page * 4096 - 1, Buffer.of(0xff));
    const { stdout } = await verify(folder, [a, b, '--json']);
    const ranges = [
      [5, 7],
      [30, 30],
    ];
    assert.deepEqual((jsonLines(stdout).at(-1) as Summary)['differingPages'], ranges);
    assert.match((await verify(folder, [a, b])).stdout, /differ in 4 pages[^]*^ {2}pages {5}5–7, 30$/m);
  });

  test('verify finds exactly the damaged pages among thousands', async (t) => {
    const { folder, a, b } = place(t);
    change(a, 'PRAGMA page_size = 512; VACUUM; CREATE TABLE much AS SELECT randomblob(2e6) AS x');
    copyFileSync(a, b);
    const seed = randomInt(2 ** 31);
    t.diagnostic(`to repeat: seed ${seed}`);
    const random = new Random(seed);
    const pages = [...new Set(Array.from({ length: 700 }, () => random.integer(100, 4000)))].sort(
      (x, y) => x - y,
    );
    for (const page of pages) flipLastByte(b, page * 512);
    const { status, stdout } = await verify(folder, [a, b, '--json']);
    assert.equal(status, 1);
    const summary = jsonLines(stdout).at(-1) as Summary;
    const ranges = summary['differingPages'] as [number, number][];
    const found = ranges.flatMap(([first, last]) =>
      Array.from({ length: last - first + 1 }, (_, i) => first + i),
    );
    assert.deepEqual(found, pages);
    assert.equal(summary['differingPageCount'], pages.length);
    assert.equal(summary['differingRangeCount'], ranges.length);
  });

  test('verify speaks of databases, not of an origin, since it has none', async (t) => {
    const { folder, a } = place(t);
    const { stderr } = await verify(folder, [a, join(folder, 'missing.db')]);
    assert.match(stderr, /Database \S*missing\.db does not exist/);
    assert.doesNotMatch(stderr, /[Oo]rigin |first argument/);
  });

  test('verify exits 1 for another number of pages, in either order', async (t) => {
    const { folder, a, b } = place(t);
    change(b, 'CREATE TABLE more (x); INSERT INTO more VALUES (randomblob(50000))');
    for (const args of [
      [a, b],
      [b, a],
    ]) {
      const { status, stdout } = await verify(folder, args);
      assert.equal(status, 1);
      assert.match(stdout, /^ {2}size {6}\d+ pages in the first, \d+ in the second$/m);
      assert.match(stdout, /^ {2}more: /m);
    }
  });

  test('verify exits 1 for another page size', async (t) => {
    const { folder, a, b } = place(t);
    change(b, 'PRAGMA page_size = 1024; VACUUM');
    const { status, stdout } = await verify(folder, [a, b]);
    assert.equal(status, 1);
    assert.match(stdout, /pages of 4096 and 1024 bytes/);
  });

  test('verify exits 1 if one database has no pages, 0 if neither has', async (t) => {
    const { folder, a, b } = place(t);
    truncateSync(b, 0);
    assert.equal((await verify(folder, [a, b])).status, 1);
    assert.equal((await verify(folder, [b, a])).status, 1);
    writeFileSync(join(folder, 'c.db'), '');
    assert.equal((await verify(folder, [b, join(folder, 'c.db')])).status, 0);
  });

  test('verify sees pages that are only in the WAL', async (t) => {
    const { folder, a, b } = place(t);
    const writer = await new OtherProcess(t).open(b);
    await writer.exec("PRAGMA journal_mode = wal; INSERT INTO item (label) VALUES ('new')");
    const { status, stdout } = await verify(folder, [a, b]);
    assert.equal(status, 1);
    assert.match(stdout, /item/);
  });

  test('verify refuses a missing database, and a file that is none, with the same codes as a sync', async (t) => {
    const { folder, a } = place(t);
    const [missing, text] = [join(folder, 'missing.db'), join(folder, 'text')];
    writeFileSync(text, 'text '.repeat(1000));
    const notFound = { code: 'ORIGIN_NOT_FOUND', status: 3, says: /missing\.db/ } as const;
    await assertRefused(['verify', a, missing], notFound);
    await assertRefused(['verify', missing, a], notFound);
    const notOne = { code: 'ORIGIN_NOT_A_DATABASE', status: 3, says: /text is not/ } as const;
    await assertRefused(['verify', text, a], notOne);
  });
});

test('verify counts all pages that differ, and keeps the first ones', () => {
  const found = new DifferingPages(3, 5);
  for (const page of [1, 2, 5, 7, 8, 9, 20, 21, 30]) found.add(page);
  assert.deepEqual(found.ranges, [
    [1, 2],
    [5, 5],
    [7, 9],
  ]);
  assert.deepEqual(found.first, [1, 2, 5, 7, 8]);
  assert.deepEqual([found.pageCount, found.rangeCount], [9, 5]);
});

test('verify does not believe an agent whose root hash differs where no page does', async (t) => {
  const { folder, a, b } = place(t);
  const liar = join(import.meta.dirname, '..', 'support', 'tampering-rsh.ts');
  const verifyBy = (types: string): Promise<Run> =>
    verify(folder, [a, `db1:${b}`, '--rsh', `'${process.execPath}' '${liar}' ${types}`]);
  const { status, stderr } = await verifyBy('hashes,root');
  assert.equal(status, 7, stderr);
  assert.match(stderr, /No page of .* differs by its hash, but .* \[ROOT_MISMATCH\]/);
  assert.equal((await verifyBy('none')).status, 0);
});
