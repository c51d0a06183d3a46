import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { SqlsyncError } from '../../../src/errors.ts';
import { openDatabase } from '../../../src/pool/database.ts';
import { nextTurn } from '../../../src/pool/event-loop.ts';
import type { Database } from '../../../src/pool/types.ts';
import { tempDir } from '../../support/compare.ts';
import type { OtherConnection } from '../../support/other-process.ts';
import { OtherProcess } from '../../support/other-process.ts';
import { openTemporary, valuesOf } from '../open.ts';

const INSERT = 'INSERT INTO t (x) VALUES (?)';

/** Resolves at the `count`-th SQLITE_BUSY of this database from now on. */
function refused(t: TestContext, db: Database, count = 1): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let left = count;
  const listener = (event: unknown): void => {
    if ((event as { path: string }).path === db.path && (left -= 1) === 0) resolve();
  };
  subscribe('sqlsync:pool:retry', listener);
  t.after(() => unsubscribe('sqlsync:pool:retry', listener));
  return promise;
}

async function other(t: TestContext, path: string): Promise<OtherConnection> {
  return new OtherProcess(t).open(path);
}

for (const admission of ['none', 'cooperative'] as const) {
  describe(`while another program holds the writer's lock (admission: ${admission})`, () => {
    test('a write waits, without blocking the event loop or a reader, and then goes through', async (t) => {
      const db = await openTemporary(t, { admission });
      const holder = await other(t, db.path);
      await holder.exec(`BEGIN IMMEDIATE; INSERT INTO t (x) VALUES ('other')`);
      const again = refused(t, db, 5);
      const writes = [
        db.write.run(INSERT, [1]),
        db.write.transaction((tx) => tx.run(INSERT, [2])),
        db.write.exec('INSERT INTO t (x) VALUES (3)'),
      ];
      await again;
      assert.deepEqual(await db.read.all('SELECT * FROM t'), []);
      await holder.exec('COMMIT');
      await Promise.all(writes);
      assert.deepEqual(await valuesOf(db), ['other', 1, 2, 3]);
      assert.ok((db.stats().write.retries['SQLITE_BUSY'] ?? 0) >= 5);
    });

    test('a write gives up at its deadline, and the error says that another program holds the lock', async (t) => {
      const db = await openTemporary(t, { admission });
      const holder = await other(t, db.path);
      await holder.exec('BEGIN IMMEDIATE');
      const outcomes = await Promise.allSettled([
        db.write.run(INSERT, [1], { deadlineMs: 60 }),
        db.write.transaction((tx) => tx.run(INSERT, [2]), { deadlineMs: 60 }),
        db.write.run(INSERT, [3], { deadlineMs: 0 }),
      ]);
      for (const outcome of outcomes) {
        assert.ok(outcome.status === 'rejected');
        assert.equal((outcome.reason as SqlsyncError).code, 'BUSY_TIMEOUT');
        assert.match((outcome.reason as SqlsyncError).message, /another connection or program holds/);
      }
      await holder.exec('COMMIT');
      await db.write.run(INSERT, [4]);
      assert.deepEqual(await valuesOf(db), [4]);
    });

    test('closing waits until the waiting writes have given up', async (t) => {
      const db = await openTemporary(t, { admission });
      const holder = await other(t, db.path);
      await holder.exec('BEGIN IMMEDIATE');
      const late = assert.rejects(db.write.run(INSERT, [1], { deadlineMs: 30 }), { code: 'BUSY_TIMEOUT' });
      await db.close();
      await late;
    });

    test('200 writers wait, and no write is lost, done twice or out of its turn', async (t) => {
      const db = await openTemporary(t, { admission });
      const holder = await other(t, db.path);
      await holder.exec('BEGIN IMMEDIATE');
      const again = refused(t, db, 3);
      const numbers = Array.from({ length: 200 }, (_, number) => number);
      const writes = numbers.map((number) =>
        number % 2 === 0
          ? db.write.run(INSERT, [number])
          : db.write.transaction(async (tx) => {
              await nextTurn();
              await tx.run(INSERT, [number]);
            }),
      );
      await again;
      assert.equal(db.stats().write.waiting.length, 100);
      assert.equal(db.stats().write.queueLength, 200);
      await holder.exec('COMMIT');
      await Promise.all(writes);
      assert.deepEqual(await valuesOf(db), numbers);
    });
  });
}

describe('a write that SQLite refuses as busy in the middle', () => {
  test('a write that is refused as busy runs again as a whole after SQLITE_BUSY_SNAPSHOT, before those behind it', async (t) => {
    // With BEGIN IMMEDIATE it is rare, a race within SQLite; a deferred transaction that has read makes it
    // certain.
    const db = await openTemporary(t, { begin: 'BEGIN' });
    const neighbour = await other(t, db.path);
    let runs = 0;
    const result = db.write.transaction(async (tx) => {
      runs += 1;
      const before = await tx.all('SELECT x FROM t');
      if (runs === 1) await neighbour.exec(`INSERT INTO t (x) VALUES ('neighbour')`);
      await tx.run(INSERT, [`after ${before.length}`]);
      return before.length;
    });
    const behind = db.write.run(INSERT, ['behind']);
    assert.equal(await result, 1);
    assert.equal(runs, 2);
    await behind;
    assert.deepEqual(await valuesOf(db), ['neighbour', 'after 1', 'behind']);
    assert.equal(db.stats().write.retries['SQLITE_BUSY_SNAPSHOT'], 1);
  });

  test('a write that is refused as busy runs again though its function caught the error, and within a savepoint', async (t) => {
    const db = await openTemporary(t, { begin: 'BEGIN' });
    const neighbour = await other(t, db.path);
    let runs = 0;
    await db.write.transaction(async (tx) => {
      runs += 1;
      await tx.savepoint(async (sp) => {
        await sp.all('SELECT x FROM t');
        if (runs === 1) await neighbour.exec(`INSERT INTO t (x) VALUES ('neighbour')`);
        await sp.run(INSERT, [runs]).catch(() => undefined);
      });
    });
    assert.deepEqual(await valuesOf(db), ['neighbour', 2]);
  });

  test('a write that is refused as busy pauses between its runs, so that the event loop turns and its deadline ends it', async (t) => {
    const db = await openTemporary(t, { begin: 'BEGIN' });
    const neighbour = await other(t, db.path);
    await neighbour.exec('BEGIN IMMEDIATE');
    const late = db.write.transaction(async (tx) => tx.run(INSERT, ['late']), { deadlineMs: 50 });
    const again = refused(t, db, 5);
    const patient = db.write.transaction(async (tx) => tx.run(INSERT, ['patient']), { deadlineMs: 60_000 });
    await assert.rejects(late, { code: 'BUSY_TIMEOUT' });
    await again;
    await neighbour.exec('COMMIT');
    await patient;
    assert.deepEqual(await valuesOf(db), ['patient']);
  });

  test('a caller whose signal aborts may leave while its write waits to run again', async (t) => {
    const db = await openTemporary(t, { begin: 'BEGIN' });
    const neighbour = await other(t, db.path);
    await neighbour.exec('BEGIN IMMEDIATE');
    const gone = new AbortController();
    const again = refused(t, db, 5);
    const leaving = db.write.transaction(async (tx) => tx.run(INSERT, ['leaving']), { signal: gone.signal });
    await again;
    gone.abort();
    await assert.rejects(leaving, { code: 'ABORTED' });
    await neighbour.exec('COMMIT');
    assert.deepEqual(await valuesOf(db), []);
  });

  test('a write is committed later if only its COMMIT was refused', async (t) => {
    const { db, reader } = await withBusyCommit(t);
    const again = refused(t, db, 3);
    let runs = 0;
    const committed = db.write.transaction(async (tx) => {
      runs += 1;
      await tx.run('INSERT INTO other.u VALUES (1)');
    });
    const behind = db.write.run(INSERT, ['behind']);
    await again;
    await reader.exec('COMMIT');
    await Promise.all([committed, behind]);
    assert.equal(runs, 1);
    assert.deepEqual(await reader.rows('SELECT x FROM u'), [[1]]);
  });

  test('a write is undone if its signal aborts while its COMMIT is refused', async (t) => {
    const { db, reader } = await withBusyCommit(t);
    const again = refused(t, db, 2);
    const gone = new AbortController();
    const aborted = db.write.transaction(
      async (tx) => {
        await tx.run('INSERT INTO other.u VALUES (1)');
      },
      { signal: gone.signal, deadlineMs: 60_000 },
    );
    await again;
    gone.abort();
    await assert.rejects(aborted, { code: 'ABORTED' });
    await reader.exec('COMMIT');
    await db.write.run('INSERT INTO other.u VALUES (2)');
    assert.deepEqual(await reader.rows('SELECT x FROM u'), [[2]]);
  });

  test('a write is undone if its COMMIT is refused until the deadline', async (t) => {
    const { db, reader } = await withBusyCommit(t);
    const late = db.write.transaction(
      async (tx) => {
        await tx.run('INSERT INTO other.u VALUES (1)');
      },
      { deadlineMs: 50 },
    );
    await assert.rejects(late, { code: 'BUSY_TIMEOUT', message: /commit/ });
    await reader.exec('COMMIT');
    await db.write.run('INSERT INTO other.u VALUES (2)');
    assert.deepEqual(await reader.rows('SELECT x FROM u'), [[2]]);
  });
});

/** A second database in rollback mode, where a reader holds up a commit. */
async function withBusyCommit(t: TestContext): Promise<{ db: Database; reader: OtherConnection }> {
  const db = await openTemporary(t);
  const path = join(tempDir(t), 'other.db');
  const reader = await other(t, path);
  await reader.exec('CREATE TABLE u (x)');
  await db.write.run('ATTACH ? AS other', [path]);
  await reader.exec('BEGIN; SELECT * FROM u');
  await reader.rows('SELECT * FROM u');
  return { db, reader };
}

describe('a full disk', () => {
  test('a full disk undoes the transaction that met it, and the next one works', async (t) => {
    const db = await openTemporary(t);
    await db.write.run(INSERT, ['before']);
    await db.write.run('PRAGMA max_page_count = 12');
    const seen: unknown[] = [];
    const full = db.write.transaction(async (tx) => {
      await tx.run(INSERT, ['small']);
      await tx.run('INSERT INTO t (x) VALUES (randomblob(200000))').catch((error) => seen.push(error.code));
      await tx.run(INSERT, ['after the failure']);
    });
    await assert.rejects(full);
    assert.deepEqual(seen, ['SQLITE_FULL']);
    await assert.rejects(db.write.run('INSERT INTO t (x) VALUES (randomblob(200000))'), {
      code: 'SQLITE_FULL',
    });
    await db.write.run(INSERT, ['next']);
    assert.deepEqual(await valuesOf(db), ['before', 'next']);
  });
});

describe('opening', () => {
  test('opening waits for a program that has the whole database locked', async (t) => {
    const path = join(tempDir(t), 'a.db');
    const holder = await other(t, path);
    await holder.exec(`CREATE TABLE t (id INTEGER PRIMARY KEY, x); BEGIN EXCLUSIVE`);
    await assert.rejects(openDatabase(path, { busyTimeoutMs: 30 }), { code: 'BUSY_TIMEOUT' });
    const opening = openDatabase(path);
    await holder.exec('COMMIT');
    const db = await opening;
    t.after(() => db.close());
    await db.write.run(INSERT, [1]);
    assert.deepEqual(await valuesOf(db), [1]);
  });
});
