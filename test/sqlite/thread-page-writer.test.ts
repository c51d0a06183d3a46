import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { openRaw } from '../../src/sqlite/binding.ts';
import { isBusy } from '../../src/sqlite/busy.ts';
import { ThreadPageWriter } from '../../src/sqlite/writer/thread-page-writer.ts';

const PAGE_SIZE = 4096;
const PAGES = 3000;

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-thread-'));
after(() => rmSync(folder, { recursive: true }));

const options = { textEncoding: 'UTF-8', wal: true } as const;
let made = 0;

/** A database in WAL mode with some `PAGES` pages, and its file's path. */
function makeDatabase(): string {
  const path = join(folder, `${++made}.db`);
  const database = openRaw(path);
  database.pragma('journal_mode = WAL');
  database.exec('CREATE TABLE t (x BLOB)');
  database.prepare('INSERT INTO t VALUES (zeroblob(?))').run((PAGES - 3) * (PAGE_SIZE - 4));
  database.close();
  return path;
}

function pageOf(number: number): Uint8Array {
  return new Uint8Array(PAGE_SIZE).fill(number % 251);
}

/** Writes pages from 3 on (1 and 2 hold the table's definition and root). */
async function writePages(writer: ThreadPageWriter, end: number): Promise<void> {
  for (let page = 3; page < end; page++) {
    await writer.ready();
    writer.writePage(page, pageOf(page));
  }
}

describe('a writer in a thread', () => {
  test('a writer in a thread commits all pages in one transaction, and sees them itself before', async () => {
    const path = makeDatabase();
    const writer = await ThreadPageWriter.open(path, PAGE_SIZE, options);
    await writer.call('begin', 'immediate');
    await writer.call('prepareForPages', PAGES);
    await writePages(writer, 2500);
    assert.deepEqual(new Uint8Array(writer.readPage(2499)), pageOf(2499), 'the last, not handed over yet');
    assert.deepEqual(new Uint8Array(writer.readPage(3)), pageOf(3));
    const before = readFileSync(path);
    await writer.call('commit');
    await writer.call('checkpoint');
    await writer.call('close');
    await writer.end();
    const bytes = readFileSync(path);
    for (let page = 3; page < 2500; page++) {
      const at = (page - 1) * PAGE_SIZE;
      assert.deepEqual(new Uint8Array(bytes.subarray(at, at + PAGE_SIZE)), pageOf(page), `page ${page}`);
    }
    assert.deepEqual(bytes.subarray(2499 * PAGE_SIZE), before.subarray(2499 * PAGE_SIZE));
    assert.ok(!existsSync(`${path}-wal`), 'the connection was closed');
  });

  test('a writer in a thread leaves the database as it was if it is ended before the commit', async () => {
    const path = makeDatabase();
    const before = readFileSync(path);
    const writer = await ThreadPageWriter.open(path, PAGE_SIZE, options);
    await writer.call('begin', 'immediate');
    await writePages(writer, 2500);
    await writer.end();
    await assert.rejects(writer.call('commit'), /was ended/);
    const database = openRaw(path);
    database.pragma('wal_checkpoint(TRUNCATE)');
    database.close();
    assert.deepEqual(readFileSync(path), before);
  });

  test('a writer in a thread passes on that the database is busy, with SQLite’s code', async () => {
    const path = makeDatabase();
    const other = openRaw(path);
    other.exec('BEGIN IMMEDIATE');
    const writer = await ThreadPageWriter.open(path, PAGE_SIZE, options);
    await assert.rejects(writer.call('begin', 'immediate'), isBusy);
    other.exec('ROLLBACK');
    await writer.call('begin', 'immediate');
    other.close();
    await writer.call('close');
    await writer.end();
  });

  test('a writer in a thread reports a page that it cannot write, commits nothing from then on, and can be rolled back', async () => {
    const path = makeDatabase();
    const before = readFileSync(path);
    const writer = await ThreadPageWriter.open(path, PAGE_SIZE, options);
    await writer.call('begin', 'immediate');
    await writer.call('prepareForPages', PAGES);
    writer.writePage(3, pageOf(1));
    writer.writePage(PAGES + 10, pageOf(2)); // Beyond max_page_count.
    await assert.rejects(writer.call('commit'));
    await assert.rejects(writer.call('pageCount'));
    await assert.rejects(writer.ready());
    await writer.call('rollback');
    assert.equal(await writer.call('pageCount'), before.length / PAGE_SIZE);
    await writer.ready();
    await writer.call('close');
    await writer.end();
    assert.deepEqual(readFileSync(path), before);
  });

  test('a writer in a thread fails to open a missing database, with the system’s code, and leaves no thread', async () => {
    await assert.rejects(ThreadPageWriter.open(join(folder, 'none.db'), PAGE_SIZE, options), {
      code: 'ENOENT',
    });
  });
});
