import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { generateDatabase } from '../../fixtures/generate.ts';
import { assertReplicaOf, pageImage, tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { change, syncHere } from '../support/sync.ts';

/** Bytes 18 and 19 of the header. */
const WAL_VERSION = 2;
const ROLLBACK_VERSION = 1;

describe('journal modes', () => {
  for (const ofOrigin of ['wal', 'delete'] as const) {
    test(`a new replica of an origin in mode ${ofOrigin} carries its page 1 byte for byte`, async (t) => {
      const [origin, replica] = paths(tempDir(t));
      generateDatabase(origin, { rows: 50, journalMode: ofOrigin });
      await syncHere({ origin, replica });
      const bytes = readFileSync(replica);
      assert.ok(bytes.equals(readFileSync(origin)), 'the file differs from the checkpointed origin');
      const version = ofOrigin === 'wal' ? WAL_VERSION : ROLLBACK_VERSION;
      assert.deepEqual([bytes[18], bytes[19]], [version, version]);
    });

    for (const ofReplica of ['wal', 'delete', 'truncate', 'persist'] as const) {
      test(`an existing replica in mode ${ofReplica} of an origin in mode ${ofOrigin} keeps its mode`, async (t) => {
        const [origin, replica] = paths(tempDir(t));
        generateDatabase(origin, { rows: 100, journalMode: ofOrigin });
        await syncHere({ origin, replica });
        const other = new OtherProcess(t);
        // Truncate and persist are settings of a connection; a connection with one of them leaves its journal
        // file behind.
        const user = await other.open(replica);
        await user.exec(`PRAGMA journal_mode = ${ofReplica}`);
        await user.exec('CREATE TABLE own (x); DROP TABLE own');
        if (ofReplica !== 'wal') {
          assert.equal(existsSync(`${replica}-journal`), ofReplica !== 'delete');
        }
        change(origin, (db) => {
          db.exec('UPDATE item SET amount = amount + 1; DELETE FROM attachment; CREATE TABLE more (x)');
        });
        await syncHere({ origin, replica });
        assert.deepEqual(await user.rows('SELECT count(*) FROM more'), [[0]]);
        await user.call('close');
        assertReplicaOf(origin, replica);
        const version = ofReplica === 'wal' ? WAL_VERSION : ROLLBACK_VERSION;
        const header = readFileSync(replica).subarray(18, 20);
        assert.deepEqual([...header], [version, version]);
      });
    }
  }

  for (const replicaMode of ['none', 'wal', 'delete'] as const) {
    test(`frames in the origin's WAL that no checkpoint has moved are copied (replica: ${replicaMode})`, async (t) => {
      const [origin, replica] = paths(tempDir(t));
      generateDatabase(origin, { rows: 100 });
      if (replicaMode !== 'none') {
        await syncHere({ origin, replica });
        change(replica, (db) => db.pragma(`journal_mode = ${replicaMode}`));
      }
      const other = new OtherProcess(t);
      const writer = await other.open(origin);
      await writer.exec('PRAGMA wal_autocheckpoint = 0');
      const file = readFileSync(origin);
      await writer.exec('UPDATE item SET amount = 17; CREATE TABLE in_wal AS SELECT * FROM item');
      assert.ok(statSync(`${origin}-wal`).size > 0 && readFileSync(origin).equals(file));
      await syncHere({ origin, replica });
      assertReplicaOf(origin, replica);
      // A killed writer leaves a WAL that its next reader has to recover.
      await writer.exec('UPDATE in_wal SET amount = 18');
      await other.end();
      await syncHere({ origin, replica });
      assertReplicaOf(origin, replica);
      assert.equal(
        change(replica, (db) => db.prepare('SELECT min(amount) FROM in_wal').pluck().get()),
        18,
      );
    });
  }
});

describe('an empty database', () => {
  test('an origin of 0 bytes becomes a new replica of 0 bytes', async (t) => {
    const [origin, replica] = paths(tempDir(t));
    writeFileSync(origin, '');
    const { created, pageCount } = await syncHere({ origin, replica });
    assert.deepEqual([created, pageCount], [true, 0]);
    assert.equal(statSync(replica).size, 0);
    assert.equal((await syncHere({ origin, replica })).outcomeName, 'unchanged');
    // The replica grows from there.
    change(origin, (db) => db.exec('CREATE TABLE t (x); INSERT INTO t VALUES (1)'));
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
  });

  for (const journalMode of ['wal', 'delete'] as const) {
    test(`an origin of 0 bytes empties an existing replica in mode ${journalMode}, once`, async (t) => {
      const [origin, replica] = paths(tempDir(t));
      writeFileSync(origin, '');
      generateDatabase(replica, { rows: 50, journalMode, pageSize: 1024 });
      await syncHere({ origin, replica, overwrite: true });
      assert.equal(pageImage(replica).length, 1024);
      assert.deepEqual(
        change(replica, (db) => db.prepare('SELECT * FROM sqlite_schema').all()),
        [],
      );
      assert.equal(
        change(replica, (db) => db.pragma('journal_mode', { simple: true })),
        journalMode,
      );
      assert.equal((await syncHere({ origin, replica })).outcomeName, 'unchanged');
    });

    test(`a database of one page replaces a replica in mode ${journalMode} and is replaced in turn`, async (t) => {
      const [origin, replica] = paths(tempDir(t));
      change(origin, (db) =>
        db.exec(`PRAGMA journal_mode = ${journalMode}; CREATE TABLE t (x); DROP TABLE t; VACUUM`),
      );
      assert.equal(statSync(origin).size, 4096);
      generateDatabase(replica, { rows: 50, journalMode });
      await syncHere({ origin, replica, overwrite: true });
      assertReplicaOf(origin, replica);
      assert.equal(pageImage(replica).length, 4096);
      change(origin, (db) => db.exec('CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(100000))'));
      await syncHere({ origin, replica });
      assertReplicaOf(origin, replica);
    });

    for (const encoding of ['UTF-8', 'UTF-16le'] as const) {
      test(`a replica of 0 bytes is filled with an origin in mode ${journalMode} and ${encoding}`, async (t) => {
        for (const pageSize of [512, 4096, 65536]) {
          const [origin, replica] = paths(tempDir(t));
          writeFileSync(replica, '');
          generateDatabase(origin, { rows: 60, journalMode, encoding, pageSize, autoVacuum: 'full' });
          await syncHere({ origin, replica });
          assertReplicaOf(origin, replica);
        }
      });
    }
  }
});

function paths(folder: string): [origin: string, replica: string] {
  return [join(folder, 'origin.db'), join(folder, 'replica.db')];
}
