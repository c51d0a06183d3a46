import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { nextTurn } from '../../../src/pool/event-loop.ts';
import type { ReadConnection, WriteConnection } from '../../../src/pool/types.ts';
import { tempDir } from '../../support/compare.ts';
import { OtherProcess } from '../../support/other-process.ts';
import { hold, openTemporary, valuesOf } from '../open.ts';

const INSERT = 'INSERT INTO t (x) VALUES (?)';

/** Lets everything run that is ready. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await nextTurn();
}

describe('a connection that is held', () => {
  test('a held connection has everything that SQLite keeps for each connection, though others write meanwhile', async (t) => {
    const db = await openTemporary(t);
    const { resolve: goOn, promise: others } = Promise.withResolvers<void>();
    const held = db.write.connection(async (c) => {
      await c.run('INSERT INTO t (id, x) VALUES (41, 1), (42, 2)');
      goOn();
      await settle();
      const found = await c.get('SELECT last_insert_rowid() AS id, changes() AS changes');
      await c.run('CREATE TEMP TABLE own AS SELECT id FROM t');
      await c.run(`ATTACH '${join(tempDir(t), 'other.db')}' AS other`);
      await c.run('PRAGMA recursive_triggers = ON');
      await settle();
      return [
        found,
        await c.get('SELECT count(*) AS n FROM own'),
        (await c.all<{ name: string }>('PRAGMA database_list')).map(({ name }) => name),
        await c.get('PRAGMA recursive_triggers'),
      ];
    });
    await others;
    const writes = [db.write.run(INSERT, ['later']), db.write.transaction((tx) => tx.run(INSERT, ['last']))];
    assert.deepEqual(await held, [
      { id: 42, changes: 2 },
      { n: 2 },
      ['main', 'temp', 'other'],
      { recursive_triggers: 1 },
    ]);
    await Promise.all(writes);
    assert.deepEqual(await valuesOf(db), [1, 2, 'later', 'last']);
  });

  test('a held connection reads its own writes by every method, and commits each statement', async (t) => {
    const db = await openTemporary(t);
    await db.write.connection(async (c) => {
      await c.run(INSERT, ['a']);
      await c.exec(`INSERT INTO t (x) VALUES ('b'); INSERT INTO t (x) VALUES ('c')`);
      assert.deepEqual((await c.execute(`INSERT INTO t (x) VALUES ('d') RETURNING x`)).rows, [{ x: 'd' }]);
      assert.deepEqual(await c.values('SELECT x FROM t'), [['a'], ['b'], ['c'], ['d']]);
      const rows: unknown[] = [];
      for await (const { x } of c.iterate<{ x: string }>('SELECT x FROM t ORDER BY id')) {
        rows.push(x);
        // Neither a failed statement nor a write cuts short the rows of an open read.
        if (x === 'a') await assert.rejects(c.run('INSERT INTO t (id) VALUES (1)'), { code: /CONSTRAINT/ });
        if (x === 'b') await c.run('DELETE FROM t WHERE x = ?', ['nothing']);
      }
      assert.deepEqual(rows, ['a', 'b', 'c', 'd']);
      assert.deepEqual(await db.read.get('SELECT count(*) AS n FROM t'), { n: 4 });
    });
  });

  test('a held connection has transactions and savepoints, each whole or not at all', async (t) => {
    const db = await openTemporary(t);
    const mine = new Error('mine');
    await db.write.connection(async (c) => {
      const id = await c.transaction(async (tx) => {
        await tx.run(INSERT, ['kept']);
        await tx
          .savepoint(async (inner) => {
            await inner.run(INSERT, ['undone']);
            throw mine;
          })
          .catch((error: unknown) => assert.equal(error, mine));
        return (await tx.run(INSERT, ['kept too'])).lastInsertRowid;
      });
      assert.deepEqual(await c.get('SELECT last_insert_rowid() AS id'), { id });
      const failing = c.transaction(async (tx) => {
        await tx.run(INSERT, ['undone']);
        await assert.rejects(c.run(INSERT, ['not of the transaction']), { code: 'NESTED_WRITE' });
        throw mine;
      });
      await assert.rejects(failing, mine);
    });
    assert.deepEqual(await valuesOf(db), ['kept', 'kept too']);
  });

  test('a held connection is given back when its function throws, with nothing left open', async (t) => {
    const db = await openTemporary(t);
    const mine = new Error('mine');
    let kept: WriteConnection | undefined;
    const failing = db.write.connection(async (c) => {
      kept = c;
      for await (const row of c.iterate('SELECT 1 UNION SELECT 2')) {
        assert.ok(row);
        throw mine;
      }
    });
    await assert.rejects(failing, mine);
    const throwing = db.write.connection(() => {
      throw mine;
    });
    await assert.rejects(throwing, mine);
    assert.equal(db.stats().write.holder, undefined);
    for (const late of [kept?.run(INSERT, [1]), kept?.transaction(() => 1), kept?.exec('SELECT 1')]) {
      await assert.rejects(late as Promise<unknown>, { code: 'TX_ENDED' });
    }
    await assert.rejects(
      async () => {
        for await (const row of (kept as WriteConnection).iterate('SELECT 1')) assert.ok(row);
      },
      { code: 'TX_ENDED' },
    );
    await db.write.run(INSERT, ['later']);
    assert.deepEqual(await db.write.get('PRAGMA wal_checkpoint(TRUNCATE)'), {
      busy: 0,
      log: 0,
      checkpointed: 0,
    });
  });

  test('a held connection finishes calls that were not awaited before others have their turn', async (t) => {
    const db = await openTemporary(t);
    const late: Promise<unknown>[] = [];
    const held = db.write.connection((c) => {
      late.push(
        c.transaction(async (tx) => {
          await settle();
          await tx.run(INSERT, ['first']);
        }),
        c.run(INSERT, ['second']),
      );
    });
    await Promise.all([held, db.write.run(INSERT, ['third'])]);
    await Promise.all(late);
    assert.deepEqual(await valuesOf(db), ['first', 'second', 'third']);
  });

  test('a held connection is named to those who wait for it, and in the statistics', async (t) => {
    const db = await openTemporary(t, { busyTimeoutMs: 20 });
    const { promise, resolve } = Promise.withResolvers<void>();
    const held = db.write.connection(() => promise, { label: 'migration', priority: 'background' });
    const { holder } = db.stats().write;
    assert.deepEqual([holder?.label, holder?.priority], ['migration', 'background']);
    for (const waiting of [db.write.run(INSERT, [1]), db.write.connection(() => 1)]) {
      await assert.rejects(waiting, {
        code: 'BUSY_TIMEOUT',
        message: /which "migration" of this pool has held/,
      });
    }
    resolve();
    await held;
    assert.equal(db.stats().write.labels['migration']?.hold.count, 1);
  });

  test('a connection waits for its turn like a write, and not beyond its deadline or its signal', async (t) => {
    const db = await openTemporary(t);
    const { release, done } = hold(db);
    const never = (): never => assert.fail('it had given up');
    const controller = new AbortController();
    const aborted = db.write.connection(never, { signal: controller.signal });
    const late = db.write.connection(never, { deadlineMs: 0 });
    const waiting = [
      db.write.run(INSERT, [1]),
      db.write.connection(async (c) => {
        await settle();
        await c.run(INSERT, [2]);
      }),
      db.write.run(INSERT, [3]),
    ];
    controller.abort();
    await assert.rejects(aborted, { code: 'ABORTED' });
    await assert.rejects(late, { code: 'BUSY_TIMEOUT' });
    release();
    await Promise.all([done, ...waiting]);
    assert.deepEqual(await valuesOf(db), [1, 2, 3]);
  });

  test('a held connection runs no further statement once its signal is aborted', async (t) => {
    const db = await openTemporary(t);
    const controller = new AbortController();
    const held = db.write.connection(
      async (c) => {
        await c.run(INSERT, ['kept']);
        controller.abort();
        await c.run(INSERT, ['never']);
      },
      { signal: controller.signal },
    );
    await assert.rejects(held, { code: 'ABORTED' });
    assert.deepEqual(await valuesOf(db), ['kept']);
  });

  test('a held connection refuses a write of the pool within it, which would wait for itself', async (t) => {
    const db = await openTemporary(t);
    const another = await openTemporary(t);
    await db.write.connection(async (c) => {
      for (const nested of [
        db.write.run(INSERT, [1]),
        db.write.connection(() => 1),
        db.write.transaction(() => 1),
      ]) {
        await assert.rejects(nested, { code: 'NESTED_WRITE' });
      }
      await c.transaction(async () => {
        await assert.rejects(db.write.run(INSERT, [1]), { code: 'NESTED_WRITE' });
        await another.write.connection((other) => other.run(INSERT, ['of another database']));
      });
      await assert.rejects(c.run('BEGIN'), { code: 'TRANSACTION_CONTROL' });
    });
    assert.deepEqual([await valuesOf(db), await valuesOf(another)], [[], ['of another database']]);
  });

  for (const admission of ['none', 'cooperative'] as const) {
    test(`a held connection waits for other programs, and lets them write between two statements (admission: ${admission})`, async (t) => {
      const db = await openTemporary(t, { admission });
      const other = await new OtherProcess(t).open(db.path);
      await db.write.connection(async (c) => {
        await c.run(INSERT, [1]);
        await other.exec(`INSERT INTO t (x) VALUES ('between'); BEGIN IMMEDIATE`);
        const waiting = [c.run(INSERT, [2]), c.transaction((tx) => tx.run(INSERT, [3])), c.run(INSERT, [4])];
        await settle();
        await other.exec('COMMIT');
        await Promise.all(waiting);
        await other.exec('BEGIN IMMEDIATE');
        await assert.rejects(c.run(INSERT, [5], { deadlineMs: 30 }), { code: 'BUSY_TIMEOUT' });
        await other.exec('ROLLBACK');
      });
      assert.deepEqual(await valuesOf(db), [1, 'between', 2, 3, 4]);
    });
  }

  test('close() waits for a held connection, which refuses wrong arguments', async (t) => {
    const db = await openTemporary(t);
    const wrong: unknown[] = ['x', undefined, {}];
    for (const fn of wrong) {
      await assert.rejects(db.write.connection(fn as () => void), { code: 'USAGE' });
    }
    await assert.rejects(
      db.write.connection(() => 1, { coalesce: 'x' } as object),
      { code: 'USAGE' },
    );
    const { promise, resolve } = Promise.withResolvers<void>();
    const order: string[] = [];
    const held = db.write.connection(async (c) => {
      await promise;
      await c.run(INSERT, ['before the end']);
      order.push('held');
    });
    const closed = db.close().then(() => order.push('closed'));
    await assert.rejects(
      db.write.connection(() => 1),
      { code: 'CLOSED' },
    );
    resolve();
    await Promise.all([held, closed]);
    assert.deepEqual(order, ['held', 'closed']);
  });

  test('a held connection is a ReadConnection, with parameters of the call and without a word of threads', async (t) => {
    const db = await openTemporary(t);
    const read = (r: ReadConnection): Promise<unknown> => r.get('SELECT ? AS x', [1], { thread: false });
    assert.deepEqual(await db.write.connection(read), { x: 1 });
    await db.write.connection(async (c) => {
      const bytes = Uint8Array.of(1);
      const first = c.transaction(() => settle());
      const second = c.run(INSERT, [bytes]);
      const third = c.iterate<{ x: unknown }>('SELECT ? AS x', [bytes]);
      bytes.fill(9);
      await Promise.all([first, second]);
      for await (const { x } of third) assert.deepEqual(x, Buffer.of(1));
    });
    assert.deepEqual(await valuesOf(db), [Buffer.of(1)]);
  });

  test('a held connection lets the WAL be emptied while it does nothing', async (t) => {
    const db = await openTemporary(t, { walLimitBytes: 200_000 });
    await db.write.connection(async (c) => {
      while (db.stats().wal.truncations === 0) {
        await c.run('INSERT INTO t (x) VALUES (zeroblob(100000))');
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    });
  });
});
