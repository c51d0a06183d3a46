import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { describe, test } from 'node:test';
import type { FailureEvent } from '../../src/pool/stats.ts';
import type { Database, WriteOptions } from '../../src/pool/types.ts';
import { hold, openTemporary } from './open.ts';

/** Each way to write, with a statement that fails if `t` has a row 1. */
const WRITES: Record<string, (db: Database, options?: WriteOptions) => Promise<unknown>> = {
  run: (db, options) => db.write.run('INSERT INTO t (id) VALUES (1)', [], options),
  all: (db, options) => db.write.all('INSERT INTO t (id) VALUES (1) RETURNING id', [], options),
  get: (db, options) => db.write.get('INSERT INTO t (id) VALUES (1) RETURNING id', [], options),
  values: (db, options) => db.write.values('INSERT INTO t (id) VALUES (1)', [], options),
  execute: (db, options) => db.write.execute('INSERT INTO t (id) VALUES (1)', [], options),
  exec: (db, options) => db.write.exec('INSERT INTO t (id) VALUES (1)', options),
  transaction: (db, options) =>
    db.write.transaction((tx) => tx.run('INSERT INTO t (id) VALUES (1)'), options),
};

const UNIQUE = 'SQLITE_CONSTRAINT_PRIMARYKEY';

async function withRow(t: Parameters<typeof openTemporary>[0], options = {}): Promise<Database> {
  const db = await openTemporary(t, options);
  await db.write.run('INSERT INTO t (id) VALUES (1)');
  return db;
}

describe('the counters of failed writes', () => {
  for (const [way, write] of Object.entries(WRITES)) {
    test(`a failed write of ${way} is counted by its code, whether it ran at once, waited, timed out, was aborted or refused`, async (t) => {
      const db = await withRow(t);
      const events: FailureEvent[] = [];
      const listener = (event: unknown): void => void events.push(event as FailureEvent);
      subscribe('sqlsync:pool:failure', listener);
      t.after(() => unsubscribe('sqlsync:pool:failure', listener));
      await assert.rejects(write(db, { label: 'mine' }), { code: UNIQUE });
      const { release, done } = hold(db);
      const controller = new AbortController();
      const waiting = [
        assert.rejects(write(db, { label: 'mine' }), { code: UNIQUE }),
        assert.rejects(write(db, { deadlineMs: 0 }), { code: 'BUSY_TIMEOUT' }),
        assert.rejects(write(db, { signal: controller.signal }), { code: 'ABORTED' }),
        assert.rejects(write(db, { signal: AbortSignal.abort() }), { code: 'ABORTED' }),
        assert.rejects(write(db, { lable: 'x' } as WriteOptions), { code: 'USAGE' }),
      ];
      controller.abort();
      await waiting[1];
      release();
      await Promise.all([done, ...waiting]);
      await assert.rejects(
        db.write.connection(() => write(db)),
        { code: 'NESTED_WRITE' },
      );
      const { failed, failures } = db.stats().write;
      assert.deepEqual(failures, { [UNIQUE]: 2, BUSY_TIMEOUT: 1, ABORTED: 2, USAGE: 1, NESTED_WRITE: 2 });
      assert.equal(failed, 8);
      const mine = events.filter(({ path, label }) => path === db.path && label === 'mine');
      assert.deepEqual(
        mine,
        [1, 2].map(() => ({ path: db.path, label: 'mine', code: UNIQUE, kind: 'write' })),
      );
      await db.close();
      await assert.rejects(write(db), { code: 'CLOSED' });
      assert.equal(db.stats().write.failures['CLOSED'], 1);
    });
  }

  test('failed transactions and bulk writes are counted by the error of their function, and a bulk write once', async (t) => {
    const db = await withRow(t);
    const failing = (thrown: unknown): Promise<unknown> =>
      db.write
        .transaction(() => {
          throw thrown;
        })
        .catch(() => undefined);
    await failing(new RangeError('mine'));
    await failing(Object.assign(new Error('mine'), { code: 'MINE' }));
    await failing('a text');
    const insert = (tx: { run(sql: string): Promise<unknown> }): Promise<unknown> =>
      tx.run('INSERT INTO t (id) VALUES (1)');
    await assert.rejects(db.write.bulk([1, 2], insert), { code: 'BULK_INTERRUPTED' });
    const broken: Iterable<number> = {
      [Symbol.iterator]: () => {
        throw new Error('no item');
      },
    };
    await assert.rejects(db.write.bulk(broken, insert), { code: 'BULK_INTERRUPTED' });
    await assert.rejects(db.write.run('INSERT INTO t (id) VALUES (?)', [{} as string]), TypeError);
    await assert.rejects(db.write.run('SELECT nothing'), { code: 'SQLITE_ERROR' });
    const { failed, failures, rollbacks } = db.stats().write;
    assert.deepEqual(failures, {
      RangeError: 1,
      MINE: 1,
      string: 1,
      [UNIQUE]: 1,
      BULK_INTERRUPTED: 1,
      TypeError: 1,
      SQLITE_ERROR: 1,
    });
    assert.deepEqual([failed, rollbacks], [7, 4]);
  });

  test("a failure code made of a user's text does not eat the memory", async (t) => {
    const db = await openTemporary(t);
    for (let n = 0; n < 300; n++) {
      const error = Object.assign(new Error('mine'), { code: `CODE_${n}` });
      await db.write.transaction(() => Promise.reject(error)).catch(() => undefined);
    }
    const { failed, failures } = db.stats().write;
    assert.deepEqual([failed, Object.keys(failures).length, failures['(other)']], [300, 201, 100]);
  });

  test('a failed statement of a transaction that goes on is not counted', async (t) => {
    const db = await withRow(t);
    await db.write.transaction(async (tx) => {
      await tx.run('INSERT INTO t (id) VALUES (1)').catch(() => undefined);
    });
    assert.deepEqual(db.stats().write.failures, {});
  });
});

describe('the counters of failed reads', () => {
  for (const threads of [0, 1]) {
    test(`a failed read of every method is counted by its code${threads === 0 ? '' : ', in a thread'}`, async (t) => {
      const db = await openTemporary(t, { threads });
      const { read } = db;
      const iterate = async (sql: string): Promise<void> => {
        for await (const row of read.iterate(sql)) assert.ok(row);
      };
      for (const sql of ['SELECT nothing', 'DELETE FROM t']) {
        for (const call of [
          () => read.all(sql),
          () => read.get(sql),
          () => read.values(sql),
          () => iterate(sql),
          () => read.snapshot((r) => r.all(sql)),
        ]) {
          await assert.rejects(call(), { code: /^(SQLITE_ERROR|READ_ONLY)$/ });
        }
      }
      await assert.rejects(read.all('SELECT 1', [], { signal: AbortSignal.abort() }), { code: 'ABORTED' });
      await assert.rejects(read.all('SELECT 1', [], 'x' as unknown as object), { code: 'USAGE' });
      const { failed, failures } = db.stats().read;
      assert.deepEqual(failures, { SQLITE_ERROR: 5, READ_ONLY: 5, ABORTED: 1, USAGE: 1 });
      assert.equal(failed, 12);
      for await (const row of read.iterate('SELECT 1 UNION SELECT 2')) {
        assert.ok(row);
        break;
      }
      assert.equal(db.stats().read.failed, 12);
    });
  }

  test('a read that waited too long for a connection is counted by its code', async (t) => {
    const db = await openTemporary(t, { readers: 1 });
    await db.read.snapshot(async () => {
      await assert.rejects(db.read.all('SELECT 1', [], { deadlineMs: 0 }), { code: 'READ_TIMEOUT' });
    });
    assert.deepEqual(db.stats().read.failures, { READ_TIMEOUT: 1 });
    assert.deepEqual(db.stats().write.failures, {});
  });
});
