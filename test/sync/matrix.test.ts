import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type Database from 'better-sqlite3';
import type { GenerateOptions } from '../../fixtures/generate.ts';
import { AUTO_VACUUM_MODES, ENCODINGS, generateDatabase, PAGE_SIZES } from '../../fixtures/generate.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { change, syncHere } from '../support/sync.ts';

const SEED = 20_260_101;

describe('an origin with', () => {
  for (const pageSize of PAGE_SIZES) {
    test(`an origin with pages of ${pageSize} bytes becomes a new replica, which follows it`, (t) =>
      newThenUpdated(tempDir(t), { pageSize, rows: 300 }));
  }

  for (const reservedBytes of [8, 32]) {
    test(`an origin with ${reservedBytes} reserved bytes becomes a new replica, which follows it`, (t) =>
      newThenUpdated(tempDir(t), { reservedBytes, rows: 200 }));

    test(`an origin with ${reservedBytes} reserved bytes replaces a database with none, and the reverse`, async (t) => {
      await overForeign(tempDir(t), { reservedBytes, rows: 50 }, { rows: 300 });
      await overForeign(tempDir(t), { rows: 50 }, { reservedBytes, rows: 300 });
      await overForeign(tempDir(t), { rows: 300 }, { reservedBytes, rows: 50 });
    });
  }

  test('an origin with WITHOUT ROWID tables and full-text search is copied with both in use', async (t) => {
    const folder = tempDir(t);
    const [origin, replica] = paths(folder);
    generateDatabase(origin, { rows: 400, features: ['withoutRowid', 'fts'] });
    await syncHere({ origin, replica });
    change(origin, (db) => {
      db.exec(`UPDATE setting SET value = 'changed' WHERE owner % 3 = 0;
               INSERT INTO note (title, body) VALUES ('needle', 'a needle in the haystack');
               DELETE FROM note WHERE rowid % 5 = 0;`);
    });
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
    const found = (db: Database.Database): unknown[] =>
      db.prepare(`SELECT rowid, title FROM note WHERE note MATCH 'needle'`).all();
    assert.equal(change(replica, found).length, 1);
    change(replica, (db) => db.exec(`INSERT INTO note (note) VALUES ('integrity-check')`));
  });
});

describe('a replica of', () => {
  for (const ofOrigin of ENCODINGS) {
    for (const ofReplica of ENCODINGS) {
      test(`an origin in ${ofOrigin} is copied over a database in ${ofReplica}`, async (t) => {
        // Both directions of the size: the last write, page 1 or the truncation, differs.
        for (const [journalMode, rows, rowsOfReplica] of [
          ['wal', 30, 200],
          ['delete', 200, 30],
        ] as const) {
          await overForeign(
            tempDir(t),
            { encoding: ofOrigin, rows, seed: SEED },
            { encoding: ofReplica, journalMode, rows: rowsOfReplica },
          );
        }
      });
    }
  }

  for (const ofOrigin of AUTO_VACUUM_MODES) {
    for (const ofReplica of AUTO_VACUUM_MODES) {
      test(`an origin with auto_vacuum ${ofOrigin} is copied over a database with ${ofReplica}, both with freelists`, async (t) => {
        for (const [journalMode, rows, rowsOfReplica] of [
          ['wal', 100, 400],
          ['delete', 400, 100],
        ] as const) {
          const folder = tempDir(t);
          const [origin, replica] = paths(folder);
          generateDatabase(origin, { autoVacuum: ofOrigin, rows, seed: SEED });
          generateDatabase(replica, { autoVacuum: ofReplica, journalMode, rows: rowsOfReplica });
          await syncHere({ origin, replica, overwrite: true });
          assertReplicaOf(origin, replica);
          change(origin, (db) => db.exec('DELETE FROM item WHERE id % 3 = 0; DELETE FROM attachment'));
          const { pageSize, pageCount } = await syncHere({ origin, replica });
          assertReplicaOf(origin, replica);
          assert.equal(fileBytes(replica), pageSize * pageCount);
        }
      });
    }
  }
});

describe('the size of a replica', () => {
  for (const journalMode of ['wal', 'delete'] as const) {
    test(`the size of a replica follows an origin that grows and shrinks (in mode ${journalMode})`, async (t) => {
      const [origin, replica] = paths(tempDir(t));
      generateDatabase(origin, { rows: 100 });
      await syncHere({ origin, replica });
      change(replica, (db) => db.pragma(`journal_mode = ${journalMode}`));
      const sizes: number[] = [];
      for (const [action, ...more] of [
        [`INSERT INTO item (label, payload) SELECT label, zeroblob(9000) FROM item`],
        [`DELETE FROM item WHERE id > 60`], // A large freelist, at the same size.
        [`VACUUM`], // All of the freelist goes away.
        [`INSERT INTO item (label) SELECT label || label FROM item`],
        // The end goes, and remaining pages change: a later page write would cancel the truncation.
        [`UPDATE item SET amount = -amount`, `DELETE FROM attachment`, `VACUUM`],
      ] as [string, ...string[]][]) {
        change(origin, (db) => [action, ...more].forEach((sql) => db.exec(sql)));
        const { pageCount } = await syncHere({ origin, replica });
        sizes.push(pageCount);
        assertReplicaOf(origin, replica);
        assert.equal(fileBytes(replica), pageCount * 4096);
      }
      const [grown, freed, vacuumed, , last] = sizes as [number, number, number, number, number];
      assert.ok(grown === freed && vacuumed < freed / 4 && last < vacuumed * 2, sizes.join(', '));
    });
  }

  test('the size of a replica follows an origin that is mostly freelist', async (t) => {
    const [origin, replica] = paths(tempDir(t));
    generateDatabase(origin, { pageSize: 1024, rows: 200 });
    change(origin, (db) => {
      db.exec(`CREATE TABLE ballast AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
               SELECT i, randomblob(900) AS bytes FROM n; DROP TABLE ballast`);
    });
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
    assert.ok(change(replica, (db) => db.pragma('freelist_count', { simple: true }) as number) > 3900);
    change(origin, (db) => db.exec('DROP TABLE attachment'));
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
  });
});

describe('the way over the wire', () => {
  for (const hash of ['nh-siphash', 'sha256', 'xxh64'] as const) {
    for (const compression of ['none', 'auto', 'zstd'] as const) {
      test(`hash ${hash} and compression ${compression} make an exact replica`, async (t) => {
        const [origin, replica] = paths(tempDir(t));
        generateDatabase(origin, { rows: 400 });
        await syncHere({ origin, replica, hash, compression });
        assertReplicaOf(origin, replica);
        change(origin, (db) => db.exec('UPDATE item SET amount = amount + 1 WHERE id % 40 = 0'));
        const { pagesDelta } = await syncHere({ origin, replica, hash, compression });
        assert.ok(pagesDelta > 0, 'nothing travelled as a delta');
        assertReplicaOf(origin, replica);
      });
    }
  }
});

function paths(folder: string): [origin: string, replica: string] {
  return [join(folder, 'origin.db'), join(folder, 'replica.db')];
}

async function newThenUpdated(folder: string, options: GenerateOptions): Promise<void> {
  const [origin, replica] = paths(folder);
  generateDatabase(origin, { seed: SEED, ...options });
  const { created } = await syncHere({ origin, replica });
  assert.equal(created, true);
  assertReplicaOf(origin, replica);
  change(origin, (db) => {
    db.exec(`UPDATE item SET amount = amount + 1 WHERE id % 10 = 0;
             INSERT INTO attachment (label, payload) VALUES ('long', randomblob(200000));
             CREATE INDEX by_payload ON item (length(payload));`);
  });
  const { pagesDelta } = await syncHere({ origin, replica });
  assert.ok(pagesDelta > 0, 'nothing travelled as a delta');
  assertReplicaOf(origin, replica);
}

/** Syncs an origin over another database of its page size. */
async function overForeign(
  folder: string,
  ofOrigin: GenerateOptions,
  ofReplica: GenerateOptions,
): Promise<void> {
  const [origin, replica] = paths(folder);
  generateDatabase(origin, ofOrigin);
  generateDatabase(replica, { seed: 99, ...ofReplica });
  const { created, pageSize, pageCount } = await syncHere({ origin, replica, overwrite: true });
  assert.equal(created, false);
  assertReplicaOf(origin, replica);
  assert.equal(fileBytes(replica), pageSize * pageCount);
}

/** The header alone could make readers believe that the database was cut: this is the size on the disk. */
function fileBytes(path: string): number {
  change(path, (db) => db.pragma('wal_checkpoint(TRUNCATE)'));
  return statSync(path).size;
}
