import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { change, syncHere } from '../support/sync.ts';

const MODES = ['wal', 'delete', 'truncate', 'persist'] as const;

/** Two tables of many pages in which every row holds the same number. */
const STATE = `SELECT min(a.n), max(a.n), (SELECT min(n) FROM b), (SELECT max(n) FROM b),
                      (SELECT count(*) FROM b) - count(*) FROM a`;

describe('a reader of the replica', () => {
  for (const mode of ['wal', 'delete'] as const) {
    test(`a reader in a transaction sees the old state until it ends it, and then the new one (mode ${mode})`, async (t) => {
      const [origin, replica] = await synced(tempDir(t), mode);
      const reader = await new OtherProcess(t).open(replica, { readonly: true });
      await reader.exec('BEGIN');
      assert.deepEqual(await reader.rows(STATE), [[1, 1, 1, 1, 0]]);
      setState(origin, 2);
      let settled = false;
      let reading = true;
      const rootCame = Promise.withResolvers<void>();
      const sync = syncHere({
        origin,
        replica,
        onFrame: async ({ name }) => {
          // In rollback mode the confirmation comes only after the reader has let go.
          if (reading) assert.deepEqual(await reader.rows(STATE), [[1, 1, 1, 1, 0]], `at ${name}`);
          if (name === 'root') rootCame.resolve();
        },
      }).finally(() => (settled = true));
      // In WAL mode the commit waits for no reader; in rollback mode it must wait for this one.
      if (mode === 'wal') await sync;
      else await Promise.race([rootCame.promise, sync]);
      for (let i = 0; i < 20; i++) assert.deepEqual(await reader.rows(STATE), [[1, 1, 1, 1, 0]]);
      assert.equal(settled, mode === 'wal');
      reading = false;
      await reader.exec('COMMIT');
      await sync;
      assert.deepEqual(await reader.rows(STATE), [[2, 2, 2, 2, 0]]);
    });
  }

  test('a reader of a replica in rollback mode that never ends its transaction makes the sync give up, with nothing changed', async (t) => {
    const [origin, replica] = await synced(tempDir(t), 'delete');
    const reader = await new OtherProcess(t).open(replica, { readonly: true });
    await reader.exec('BEGIN');
    await reader.rows(STATE);
    setState(origin, 2);
    await assert.rejects(syncHere({ origin, replica, busyTimeoutMs: 50 }), { code: 'BUSY' });
    await reader.exec('COMMIT');
    assert.deepEqual(await reader.rows(STATE), [[1, 1, 1, 1, 0]]);
    await syncHere({ origin, replica });
    assert.deepEqual(await reader.rows(STATE), [[2, 2, 2, 2, 0]]);
  });

  for (const mode of MODES) {
    test(`a reader that reads all the time never sees a mixture of two states (mode ${mode})`, async (t) => {
      const [origin, replica] = await synced(tempDir(t), mode);
      const reader = await new OtherProcess(t).open(replica, { readonly: true, timeoutMs: 10_000 });
      const seen = new Set<unknown>();
      let done = false;
      const reading = (async () => {
        while (!done) {
          const [[low, high, lowB, highB, missing] = []] = await reader.rows(STATE);
          assert.deepEqual([low, lowB, highB, missing], [high, high, high, 0]);
          seen.add(high);
        }
      })();
      for (let n = 2; n <= 6; n++) {
        setState(origin, n);
        await syncHere({ origin, replica });
        const [[now] = []] = await reader.rows(STATE);
        assert.equal(now, n);
      }
      done = true;
      await reading;
      assert.ok(seen.size > 1, 'no change was seen');
    });

    test(`a reader with a prepared statement reads the right table after a swap under one schema cookie (mode ${mode})`, async (t) => {
      const folder = tempDir(t);
      const [origin, replica] = paths(folder);
      makeTables(origin, ['first', 'second'], mode, 'UTF-8');
      await syncHere({ origin, replica });
      const other = new OtherProcess(t);
      const reader = await other.open(replica, { timeoutMs: 1000 });
      await reader.exec(`PRAGMA journal_mode = ${mode}`);
      await reader.call('prepare', 'cached', 'SELECT x FROM first');
      assert.deepEqual(await reader.call('prepared', 'cached'), [['UTF-8 first']]);
      const roots = await reader.rows('SELECT name, rootpage FROM sqlite_schema ORDER BY 1');
      const cookie = await reader.rows('PRAGMA schema_version');

      // Another database of the origin's name, with the root pages swapped, and with the cookie of the replica or one
      // that the replica's own count could reach.
      for (const [step, order] of [
        [0, ['second', 'first']],
        [1, ['first', 'second']],
        [1, ['second', 'first']],
      ] as [number, string[]][]) {
        for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(origin + suffix, { force: true });
        makeTables(origin, order, mode, 'UTF-8');
        const [[now] = []] = await reader.rows('PRAGMA schema_version');
        change(origin, (db) => {
          db.pragma(`schema_version = ${(now as number) + step}`);
          db.exec(`UPDATE first SET x = 'first of ${order.join()} ${step}'`);
        });
        const before = await reader.rows('SELECT rootpage FROM sqlite_schema ORDER BY name');
        await syncHere({ origin, replica });
        assert.deepEqual(await reader.call('prepared', 'cached'), [[`first of ${order.join()} ${step}`]]);
        assert.deepEqual(await reader.rows('SELECT x FROM second'), [['UTF-8 second']]);
        assert.notDeepEqual(await reader.rows('SELECT rootpage FROM sqlite_schema ORDER BY name'), before);
      }
      assert.deepEqual(roots.length, 2);
      assert.deepEqual(await reader.rows('PRAGMA schema_version'), [[(cookie[0]?.[0] as number) + 3]]);
    });

    test(`a reader gets an error, never wrong rows, when the text encoding changes, until it reopens (mode ${mode})`, async (t) => {
      const [origin, replica] = paths(tempDir(t));
      makeTables(origin, ['first', 'second'], mode, 'UTF-8');
      await syncHere({ origin, replica });
      const other = new OtherProcess(t);
      const reader = await other.open(replica, { timeoutMs: 1000 });
      await reader.exec(`PRAGMA journal_mode = ${mode}`);
      await reader.call('prepare', 'cached', 'SELECT x FROM first');
      await reader.call('prepared', 'cached');
      for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(origin + suffix, { force: true });
      makeTables(origin, ['first', 'second'], mode, 'UTF-16le');
      await syncHere({ origin, replica });
      await assert.rejects(reader.call('prepared', 'cached'));
      await assert.rejects(reader.rows('SELECT x FROM second'));
      const reopened = await other.open(replica, { timeoutMs: 1000 });
      assert.deepEqual(await reopened.rows('SELECT x FROM first'), [['UTF-16le first']]);
      // The next sync finds the encoding in its place: in WAL mode not yet in the file.
      change(origin, (db) => db.exec(`UPDATE first SET x = 'later'`));
      await syncHere({ origin, replica });
      assert.deepEqual(await reopened.rows('SELECT x FROM first'), [['later']]);
      await reader.call('close');
      await reopened.call('close');
      assertReplicaOf(origin, replica);
    });
  }

  test('a reader that keeps its snapshot over a change of encoding does not keep the next sync from writing', async (t) => {
    const [origin, replica] = paths(tempDir(t));
    makeTables(origin, ['first'], 'wal', 'UTF-8');
    await syncHere({ origin, replica });
    const other = new OtherProcess(t);
    const reader = await other.open(replica);
    await reader.exec('BEGIN');
    await reader.rows('SELECT * FROM first');
    for (const suffix of ['', '-wal', '-shm']) rmSync(origin + suffix, { force: true });
    makeTables(origin, ['first'], 'wal', 'UTF-16le');
    await syncHere({ origin, replica });
    change(origin, (db) => db.exec(`UPDATE first SET x = 'later'`));
    await syncHere({ origin, replica });
    assert.deepEqual(await reader.rows('SELECT * FROM first'), [['UTF-8 first']]);
    await reader.call('close');
    assertReplicaOf(origin, replica);
  });
});

function paths(folder: string): [origin: string, replica: string] {
  return [join(folder, 'origin.db'), join(folder, 'replica.db')];
}

/** An origin in state 1 and its replica, in this journal mode. */
async function synced(folder: string, mode: string): Promise<[origin: string, replica: string]> {
  const [origin, replica] = paths(folder);
  change(origin, (db) => {
    db.exec(`PRAGMA journal_mode = wal;
             CREATE TABLE a (id INTEGER PRIMARY KEY, n, filler); CREATE TABLE b (id INTEGER PRIMARY KEY, n, filler);`);
    const fill = `WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 300)
                  SELECT i, 1, zeroblob(200) FROM c`;
    db.exec(`INSERT INTO a ${fill}; INSERT INTO b ${fill};`);
  });
  await syncHere({ origin, replica });
  change(replica, (db) => db.pragma(`journal_mode = ${mode}`));
  return [origin, replica];
}

function setState(origin: string, n: number): void {
  change(origin, (db) => db.exec(`BEGIN; UPDATE a SET n = ${n}; UPDATE b SET n = ${n}; COMMIT`));
}

function makeTables(path: string, names: string[], mode: string, encoding: string): void {
  change(path, (db) => {
    db.exec(`PRAGMA encoding = '${encoding}'; PRAGMA journal_mode = ${mode}`);
    for (const name of names) db.exec(`CREATE TABLE ${name} (x TEXT)`);
    for (const name of names) db.prepare(`INSERT INTO ${name} VALUES (?)`).run(`${encoding} ${name}`);
  });
}
