import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { Random } from '../../fixtures/random.ts';
import { FilePages, RUN_BYTES } from '../../src/pages/file-pages.ts';
import type { PageNumber } from '../../src/pages/page-types.ts';
import { pageSize } from '../../src/pages/page-types.ts';
import type { PageSize } from '../../src/pages/page-types.ts';
import { readWalPages } from '../../src/pages/wal-pages.ts';
import { isBusy } from '../../src/sqlite/busy.ts';
import { DatabaseReader } from '../../src/sqlite/database-reader.ts';
import { tempDir } from '../support/compare.ts';

/** Snapshots compared under writers; `SQLSYNC_SNAPSHOTS=5000` for a long run, `SQLSYNC_SEED=N` for another history. */
const SNAPSHOTS = Number(process.env['SQLSYNC_SNAPSHOTS'] ?? 60);
const SEED = Number(process.env['SQLSYNC_SEED'] ?? Date.now() % 1_000_000);

interface Compared {
  snapshots: number;
  pages: number;
  inWal: number;
}

/** Reads every page of one snapshot in both ways, in runs of random length. */
async function compareSnapshot(path: string, random: Random, compared: Compared): Promise<void> {
  const files = new FilePages(path);
  const reader = new DatabaseReader(path);
  try {
    const shape = await beginPatiently(reader);
    const size = pageSize(shape.pageSize) as PageSize;
    const same = files.begin(size, shape.pageCount, (page) => reader.readPage(page));
    assert.ok(same, 'SQLite and we have the same file open');
    const inWal = readWalPages(path, shape.pageSize, shape.pageCount);
    if (inWal !== undefined)
      for (const byte of inWal) compared.inWal += byte.toString(2).replaceAll('0', '').length;
    for (let first = 1; first <= shape.pageCount;) {
      const count = Math.min(random.integer(1, RUN_BYTES / size), shape.pageCount - first + 1);
      const run = files.readPages(first as PageNumber, count);
      for (let i = 0; i < count; i++) {
        const expected = reader.readPage(first + i);
        const actual = run.subarray(i * size, (i + 1) * size);
        assert.ok(
          expected.equals(actual),
          `page ${first + i} of ${shape.pageCount} differs; repeat with SQLSYNC_SEED=${SEED}`,
        );
      }
      first += count;
      compared.pages += count;
      // Lets the writers in between two runs.
      if (random.chance(0.3)) await delay(1);
    }
    compared.snapshots++;
  } finally {
    reader.close();
    files.close();
  }
}

async function beginPatiently(reader: DatabaseReader): Promise<{ pageSize: number; pageCount: number }> {
  for (;;) {
    try {
      return reader.begin();
    } catch (error) {
      if (!isBusy(error)) throw error;
      await delay(1);
    }
  }
}

function makeDatabase(path: string, journalMode: string, size: number): void {
  const database = new Database(path);
  database.pragma(`page_size = ${size}`);
  database.pragma(`journal_mode = ${journalMode}`);
  database.exec(
    'CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB); CREATE INDEX t_body ON t (substr(body, 1, 20))',
  );
  const insert = database.prepare('INSERT INTO t (body) VALUES (randomblob(?))');
  database.transaction(() => {
    for (let i = 0; i < 1000; i++) insert.run(100 + (i % 700));
  })();
  database.close();
}

async function startWriter(path: string, seed: number): Promise<ChildProcess> {
  const writer = fork(join(import.meta.dirname, 'busy-writer.ts'), [path, String(seed)]);
  await once(writer, 'message');
  return writer;
}

async function stop(writer: ChildProcess): Promise<void> {
  const exited = once(writer, 'exit');
  writer.send('stop');
  assert.deepEqual(await exited, [0, null], 'the writer ended well');
}

for (const [journalMode, size] of [
  ['wal', 4096],
  ['wal', 512],
  ['wal', 65536],
  ['delete', 4096],
  ['truncate', 1024],
] as const) {
  test(`pages read from the file are those that SQLite reads, under writers in mode ${journalMode} with pages of ${size}`, async (t) => {
    t.diagnostic(`SQLSYNC_SEED=${SEED}`);
    const path = join(tempDir(t), 'busy.db');
    makeDatabase(path, journalMode, size);
    const writers = [await startWriter(path, SEED), await startWriter(path, SEED + 1)];
    const compared: Compared = { snapshots: 0, pages: 0, inWal: 0 };
    const random = new Random(SEED);
    try {
      for (let i = 0; i < SNAPSHOTS / 5; i++) await compareSnapshot(path, random, compared);
    } finally {
      await Promise.all(writers.map(stop));
    }
    t.diagnostic(`${compared.snapshots} snapshots, ${compared.pages} pages, ${compared.inWal} in a WAL`);
    if (journalMode === 'wal') assert.ok(compared.inWal > 0, 'some pages had to be read by SQLite');
    else assert.equal(compared.inWal, 0);
  });
}

test('pages are right if a killed writer left a WAL that nobody has recovered', async (t) => {
  const folder = tempDir(t);
  const [path, left] = [join(folder, 'a.db'), join(folder, 'left.db')];
  makeDatabase(path, 'wal', 4096);
  const database = new Database(path);
  database.pragma('wal_autocheckpoint = 0');
  database.exec('UPDATE t SET body = randomblob(500) WHERE id % 3 = 0');
  // A killed writer leaves a file, a WAL with frames, and no -shm that could be trusted.
  for (const suffix of ['', '-wal']) copyFileSync(path + suffix, left + suffix);
  database.close();
  const compared: Compared = { snapshots: 0, pages: 0, inWal: 0 };
  await compareSnapshot(left, new Random(1), compared);
  assert.ok(compared.inWal > 100);
});

test('frames of an older generation behind the end of a WAL do not count', (t) => {
  const path = join(tempDir(t), 'a.db');
  makeDatabase(path, 'wal', 4096);
  const database = new Database(path);
  database.pragma('wal_autocheckpoint = 0');
  database.exec('UPDATE t SET body = randomblob(500)');
  database.pragma('wal_checkpoint(RESTART)');
  database.exec('UPDATE t SET body = randomblob(99) WHERE id = 1');
  const pageCount = database.pragma('page_count', { simple: true }) as number;
  const bits = readWalPages(path, 4096, pageCount);
  const frames = bits?.reduce((sum, byte) => sum + byte.toString(2).replaceAll('0', '').length, 0) ?? 0;
  assert.ok(frames >= 1 && frames < 10, `${frames} pages have a frame`);
  database.close();
});
