import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import Database from 'better-sqlite3';
import { generateDatabase, PAGE_SIZES } from '../../fixtures/generate.ts';
import { FRAME_KINDS } from '../../src/backup/packs/frame.ts';
import { verifyBackup } from '../../src/backup/copy/verify-backup.ts';
import { MAX_PAGE_DEPTH } from '../../src/backup/copy/store-sink.ts';
import { MemoryBackend } from './memory-backend.ts';
import { loadContents } from '../../src/backup/files/store-files.ts';
import { tempDir } from '../support/compare.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { backupHere, restoreHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

describe('a backup', () => {
  for (const pageSize of PAGE_SIZES) {
    test(`a backup of pages of ${pageSize} bytes is restored to the exact bytes`, async (t) => {
      const { here, origin, target } = await place(t);
      generateDatabase(origin, { seed: 1, pageSize, rows: 200 });
      const bytes = closed(origin);
      const snapshot = await backupHere(here, origin);
      await restoreHere(here, snapshot, target);
      assert.ok(readFileSync(target).equals(bytes));
      assert.equal(snapshot.pageSize, pageSize);
    });
  }

  test('a backup keeps the true bytes of page 1, also if nothing else changed', async (t) => {
    const { here, origin, target } = await place(t);
    smallDatabase(origin);
    await backupHere(here, origin);
    // The hashes do not cover the journal mode and the change counter.
    change(origin, 'PRAGMA journal_mode = DELETE');
    const bytes = closed(origin);
    const snapshot = await backupHere(here, origin);
    await restoreHere(here, snapshot, target);
    assert.ok(readFileSync(target).equals(bytes));
    assert.equal(snapshot.statistics.pagesChanged, 1);
  });

  test('a second backup writes only what changed, as blocks', async (t) => {
    const { here, origin } = await place(t);
    smallDatabase(origin);
    const first = await backupHere(here, origin);
    change(origin, 'UPDATE item SET amount = amount + 1 WHERE id % 50 = 0');
    const second = await backupHere(here, origin);
    assert.equal(second.parent, first.id);
    assert.ok(second.statistics.pagesAdded > 0);
    assert.ok(
      second.statistics.bytesAdded < second.statistics.pagesAdded * 1024,
      `${second.statistics.bytesAdded} bytes for ${second.statistics.pagesAdded} pages`,
    );
    change(origin, 'SELECT 1');
    const third = await backupHere(here, origin);
    assert.equal(third.statistics.pagesAdded, 0);
    assert.equal(third.root, second.root);
  });

  test('a backup counts each page that changed once, also the first', async (t) => {
    const { here, origin } = await place(t);
    smallDatabase(origin);
    const before = closed(origin);
    await backupHere(here, origin);
    change(origin, 'CREATE TABLE added (x); UPDATE item SET amount = amount + 1');
    const after = closed(origin);
    const { pageSize, pageCount, statistics } = await backupHere(here, origin);
    const page = (bytes: Buffer, n: number): Buffer => bytes.subarray(n * pageSize, (n + 1) * pageSize);
    const pages = Array.from({ length: pageCount }, (_, n) => n);
    const changed = pages.filter((n) => !page(before, n).equals(page(after, n)));
    assert.ok(changed.includes(0) && changed.length > 2);
    assert.equal(statistics.pagesChanged, changed.length);
  });

  test('a backup works the same without the hash cache, and with hashes of another kind', async (t) => {
    const { here, origin, folder } = await place(t);
    smallDatabase(origin);
    await backupHere(here, origin);
    change(origin, 'UPDATE item SET amount = 7 WHERE id = 5');
    const without = await storeOther(here, folder);
    const second = await backupHere(without, origin);
    assert.ok(second.parent !== undefined && second.statistics.pagesChanged < 5);
    const third = await backupHere(here, origin, { hash: 'sha256' });
    assert.equal(third.root, second.root);
  });

  test('a backup of a database without pages is restored to an empty file', async (t) => {
    const { here, origin, target } = await place(t);
    new Database(origin).close();
    assert.equal(statSync(origin).size, 0);
    const snapshot = await backupHere(here, origin);
    assert.equal(snapshot.root, undefined);
    await restoreHere(here, snapshot, target);
    assert.equal(statSync(target).size, 0);
  });

  test('a backup of a database that shrank, grew, and got other pages is restored to the exact bytes', async (t) => {
    const { here, origin, folder } = await place(t);
    smallDatabase(origin, { pageSize: 512, rows: 900 });
    const images: Buffer[] = [];
    const snapshots = [];
    const steps = [
      'SELECT 1',
      'DELETE FROM item WHERE id % 10 <> 1; VACUUM',
      `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
       INSERT INTO item (label, amount, payload) SELECT 'x' || i, i, randomblob(300) FROM n`,
      'PRAGMA journal_mode = DELETE; PRAGMA page_size = 4096; VACUUM',
    ];
    for (const step of steps) {
      change(origin, step);
      images.push(closed(origin));
      snapshots.push(await backupHere(here, origin));
    }
    for (const [i, snapshot] of snapshots.entries()) {
      const target = join(folder, `restored-${i}.db`);
      await restoreHere(here, snapshot, target);
      assert.ok(readFileSync(target).equals(images[i] as Buffer), `snapshot ${i}`);
    }
  });

  test('a backup of two databases stores their equal pages once', async (t) => {
    const { here, origin, folder } = await place(t);
    smallDatabase(origin);
    const first = await backupHere(here, origin);
    const copy = join(folder, 'copy.db');
    change(origin, `VACUUM INTO '${copy}'`);
    change(origin, 'VACUUM');
    const again = await backupHere(here, origin);
    const second = await backupHere(here, copy);
    assert.notEqual(first.path, second.path);
    assert.equal(second.parent, undefined);
    assert.ok(
      second.statistics.pagesAdded <= 2,
      `${second.statistics.pagesAdded} pages of ${again.pageCount}`,
    );
  });

  test('a backup bounds the chains of deltas, and makes later deltas against the whole page', async (t) => {
    const { here, origin, folder } = await place(t);
    smallDatabase(origin);
    const images: Buffer[] = [];
    const snapshots = [];
    let wholePages = 0;
    for (let day = 0; day < 2 * MAX_PAGE_DEPTH + 4; day++) {
      change(origin, `UPDATE item SET amount = ${day} WHERE id = 7`);
      images.push(closed(origin));
      const snapshot = await backupHere(here, origin);
      snapshots.push(snapshot);
      if (day > 0) wholePages = Math.max(wholePages, snapshot.statistics.bytesAdded);
    }
    const { index } = await loadContents(here.access);
    let deepest = 0;
    for (const { kind, firstObject, objectCount } of index.frames) {
      if (kind !== FRAME_KINDS.pages) continue;
      for (let i = 0; i < objectCount; i++) deepest = Math.max(deepest, index.depthOf(firstObject + i));
    }
    assert.equal(deepest, MAX_PAGE_DEPTH);
    for (const [i, snapshot] of snapshots.entries()) {
      const target = join(folder, `restored-${i}.db`);
      await restoreHere(here, snapshot, target);
      assert.ok(readFileSync(target).equals(images[i] as Buffer), `snapshot ${i}`);
    }
    assert.ok(wholePages < 4096, `${wholePages} bytes a day`);
  });

  test('a backup with verify compares its pages with the origin, and passes', async (t) => {
    const { here, origin } = await place(t);
    smallDatabase(origin);
    await backupHere(here, origin, { verify: true });
    change(origin, 'UPDATE item SET amount = 7 WHERE id = 5');
    await backupHere(here, origin, { verify: true });
  });

  test('a verifying backup is right even if the hash cache is wrong, which misleads one that does not verify', async (t) => {
    const { here, origin, target } = await place(t);
    smallDatabase(origin);
    const first = await backupHere(here, origin);
    const name = cacheName(origin);
    const known = here.cache.load(name);
    assert.ok(known !== undefined && known.snapshot === first.id);
    change(origin, 'UPDATE item SET amount = 7 WHERE id = 5');
    const second = await backupHere(here, origin);
    await here.store.forget([second.id]);
    // The test gives the hashes of the second snapshot out as those of the first, so that the change stays
    // unseen.
    const newer = here.cache.load(name);
    assert.ok(newer !== undefined);
    const lie = { ...newer, snapshot: first.id };
    here.cache.save(name, lie);
    const misled = await backupHere(here, origin);
    assert.equal(misled.root, first.root);
    await here.store.forget([misled.id]);
    here.cache.save(name, lie);
    const verified = await backupHere(here, origin, { verify: true });
    await restoreHere(here, verified, target);
    assert.ok(readFileSync(target).equals(closed(origin)));
    const next = await backupHere(here, origin);
    assert.equal(next.root, verified.root);
  });

  test('a verification finds, page by page, a snapshot that is not what the origin had', async (t) => {
    const { here, origin } = await place(t);
    smallDatabase(origin);
    const snapshot = await backupHere(here, origin);
    const known = here.cache.load(cacheName(origin));
    assert.ok(known);
    const { algorithm, key } = known;
    const verify = (hashes: Uint8Array): Promise<Uint8Array[]> => {
      const same: Uint8Array[] = [];
      const options = { algorithm, key, onSame: (found: Uint8Array) => same.push(found) };
      return verifyBackup(here.access, snapshot, { ...known, hashes }, options).then(() => same);
    };
    assert.deepEqual(await verify(known.hashes), [known.hashes]);
    const other = new Uint8Array(known.hashes);
    other[8 * 4] = (other[8 * 4] as number) ^ 1;
    await assert.rejects(verify(other), { code: 'STORE_DAMAGED', message: /^Page 5 of the new snapshot/ });
  });
});

describe('the hash cache of a backup', () => {
  test('the hash cache is of use only if its snapshot is the newest of this database', async (t) => {
    const { here, origin, folder } = await place(t);
    smallDatabase(origin);
    await backupHere(here, origin);
    const elsewhere = await storeOther(here, folder);
    change(origin, 'UPDATE item SET amount = 7 WHERE id = 5');
    const second = await backupHere(elsewhere, origin);
    const third = await backupHere(here, origin);
    assert.equal(third.parent, second.id);
    assert.ok(third.statistics.pagesChanged <= 1);
  });

  test('the hash cache is of no use to a database of the same name that is recorded with another host', async (t) => {
    const { here, origin } = await place(t);
    smallDatabase(origin);
    await backupHere(here, origin);
    const other = await backupHere(here, origin, { host: 'other' });
    assert.deepEqual([other.host, other.parent], ['other', undefined]);
    assert.equal(other.statistics.pagesAdded, 0);
  });
});

describe('a restore', () => {
  test('a restore into an existing database writes only what differs', async (t) => {
    const { here, origin, target } = await place(t);
    smallDatabase(origin);
    const first = await backupHere(here, origin);
    await restoreHere(here, first, target);
    change(target, 'UPDATE item SET amount = amount + 1 WHERE id = 9');
    const { pagesTransferred, pagesDelta } = await restoreHere(here, first, target);
    assert.ok(pagesTransferred <= 2 && pagesDelta >= 1, `${pagesTransferred} pages, ${pagesDelta} as deltas`);
    assert.deepEqual(rows(target), rows(origin));
  });

  test('a restore leaves no mark that would let the database be overwritten', async (t) => {
    const { here, origin, target, folder } = await place(t);
    smallDatabase(origin);
    await restoreHere(here, await backupHere(here, origin), target);
    assert.throws(() => statSync(join(folder, '.target.db.sqlsync')), /ENOENT/);
  });
});

interface Place {
  readonly folder: string;
  readonly here: StoreHere;
  readonly origin: string;
  readonly target: string;
}

async function place(t: TestContext): Promise<Place> {
  const folder = tempDir(t);
  const here = await storeHere(new MemoryBackend(), folder);
  return { folder, here, origin: join(folder, 'origin.db'), target: join(folder, 'target.db') };
}

async function storeOther(here: StoreHere, folder: string): Promise<StoreHere> {
  const { cache } = await storeHere(new MemoryBackend(), join(folder, 'elsewhere'));
  return { ...here, cache };
}

/** The bytes of a database file without a WAL beside it. */
function closed(path: string): Buffer {
  const db = new Database(path);
  db.pragma('wal_checkpoint(TRUNCATE)');
  db.close();
  return readFileSync(path);
}

function rows(path: string): unknown[] {
  const db = new Database(path, { readonly: true });
  try {
    return db.prepare('SELECT * FROM item ORDER BY id').all();
  } finally {
    db.close();
  }
}

function cacheName(origin: string): string {
  return `${hostname()}:${origin}`;
}
