import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import Database from 'better-sqlite3';
import { runSync } from '../../src/sync/runs/sync.ts';
import { MASKED_HEADER_BYTES, tempDir } from '../support/compare.ts';
import { change } from '../support/sync.ts';

const PAGE_BYTES = 65536;
const LOCK_BYTE_PAGE = 2 ** 30 / PAGE_BYTES + 1;
const PAGE_COUNT = LOCK_BYTE_PAGE + 12;
/** Page numbers that a freelist trunk of this page size holds. */
const TRUNK_CAPACITY = PAGE_BYTES / 4 - 8;

test('a database over 1 GiB is copied across the lock-byte page, new and by an update in either mode', async (t) => {
  const folder = tempDir(t);
  const [origin, replica] = [join(folder, 'origin.db'), join(folder, 'replica.db')];
  makeLargeDatabase(origin);
  const first = await runSync({ origin, replica });
  assert.deepEqual([first.created, first.pageCount], [true, PAGE_COUNT]);
  // All pages but the lock-byte page, which never travels.
  assert.equal(first.pagesTransferred, PAGE_COUNT - 1);
  assertSame(origin, replica);

  for (const mode of ['delete', 'wal']) {
    change(replica, (db) => db.pragma(`journal_mode = ${mode}`));
    change(origin, (db) => db.prepare('UPDATE t SET payload = ?').run(payload(mode.length)));
    const update = await runSync({ origin, replica });
    assert.ok(update.pagesTransferred >= 20 && update.pagesTransferred < 40, String(update.pagesTransferred));
    change(replica, (db) => db.pragma('wal_checkpoint(TRUNCATE)'));
    assertSame(origin, replica);
  }
  assert.equal((await runSync({ origin, replica })).pagesChanged, 0);
});

/**
 * A sound database whose pages are nearly all free and take no space on the disk. The payload of its one row lies on
 * both sides of the lock-byte page, because SQLite takes the first free page of the list and then its neighbours.
 */
function makeLargeDatabase(path: string): void {
  change(path, (db) => {
    db.pragma(`page_size = ${PAGE_BYTES}`);
    db.exec('CREATE TABLE t (id INTEGER PRIMARY KEY, payload BLOB); INSERT INTO t VALUES (1, NULL)');
  });
  appendFreePages(path);
  change(path, (db) => db.prepare('UPDATE t SET payload = ?').run(payload(0)));
  const pages = overflowPages(path);
  assert.ok(
    pages.has(LOCK_BYTE_PAGE - 1) && pages.has(LOCK_BYTE_PAGE + 1),
    `the payload lies on ${[...pages].join()}`,
  );
  assert.ok(statSync(path).size > 2 ** 30 && statSync(path).blocks * 512 < 2 ** 24, 'the file is not sparse');
}

function payload(seed: number): Buffer {
  return Buffer.alloc(22 * PAGE_BYTES, `payload ${seed} `);
}

function appendFreePages(path: string): void {
  const firstFree = statSync(path).size / PAGE_BYTES + 1;
  const free: number[] = [];
  for (let page = firstFree; page <= PAGE_COUNT; page++) if (page !== LOCK_BYTE_PAGE) free.push(page);
  const file = openSync(path, 'r+');
  try {
    ftruncateSync(file, PAGE_COUNT * PAGE_BYTES);
    const trunks = free.splice(0, Math.ceil(free.length / TRUNK_CAPACITY));
    const count = trunks.length + free.length;
    // SQLite takes this leaf first: one soon after the lock-byte page, from which it goes downwards.
    free.splice(free.indexOf(LOCK_BYTE_PAGE + 8), 1);
    free.unshift(LOCK_BYTE_PAGE + 8);
    for (const [i, trunk] of trunks.entries()) {
      // The last pages first, so that the neighbours of the first leaf are in the first trunk.
      const leaves = [...free.splice(0, 1), ...free.splice(-(TRUNK_CAPACITY - 1))];
      const page = Buffer.alloc(PAGE_BYTES);
      for (const [at, value] of [trunks[i + 1] ?? 0, leaves.length, ...leaves].entries())
        page.writeUInt32BE(value, at * 4);
      writeSync(file, page, 0, PAGE_BYTES, (trunk - 1) * PAGE_BYTES);
    }
    assert.equal(free.length, 0);
    const header = Buffer.alloc(12);
    for (const [at, value] of [PAGE_COUNT, trunks[0] as number, count].entries())
      header.writeUInt32BE(value, at * 4);
    writeSync(file, header, 0, 12, 28);
  } finally {
    closeSync(file);
  }
}

function overflowPages(path: string): Set<number> {
  return change(path, (db: Database.Database) => {
    const rows = db
      .prepare(`SELECT pageno FROM dbstat WHERE name = 't' AND pagetype = 'overflow'`)
      .pluck()
      .all();
    return new Set(rows as number[]);
  });
}

/**
 * Compares page for page, in pieces, and as an independent SQLite reads them. Both databases are checkpointed
 * and closed.
 */
function assertSame(origin: string, replica: string): void {
  const [a, b] = [origin, replica].map((path) => openSync(path, 'r')) as [number, number];
  try {
    const [ofA, ofB] = [Buffer.alloc(16 * PAGE_BYTES), Buffer.alloc(16 * PAGE_BYTES)];
    for (let offset = 0; ; offset += ofA.length) {
      const length = readSync(a, ofA, 0, ofA.length, offset);
      assert.equal(readSync(b, ofB, 0, ofB.length, offset), length);
      if (length === 0) break;
      if (offset === 0) {
        for (const bytes of [ofA, ofB])
          for (const [at, count] of MASKED_HEADER_BYTES) bytes.fill(0, at, at + count);
      }
      assert.ok(ofA.equals(ofB), `they differ between page ${offset / PAGE_BYTES + 1} and the 15 after it`);
    }
  } finally {
    closeSync(a);
    closeSync(b);
  }
  const [expected, actual] = [origin, replica].map(read);
  assert.match(actual ?? '', /^ok\n/);
  assert.equal(actual, expected);
}

function read(path: string): string {
  const sql = 'PRAGMA integrity_check; SELECT id, hex(payload) FROM t; PRAGMA freelist_count';
  const { stdout, stderr } = spawnSync('sqlite3', ['-readonly', '-batch', path, sql], { maxBuffer: 2 ** 28 });
  assert.equal(stderr.toString(), '');
  return stdout.toString();
}
