import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Database, WriteTransaction } from '../../../src/pool/types.ts';
import { hold, openTemporary, valuesOf } from '../open.ts';

const INSERT = 'INSERT INTO t (x) VALUES (?)';

describe('a write', () => {
  test('a write reports its changes, and they are there when its promise resolves', async (t) => {
    const db = await openTemporary(t);
    assert.deepEqual(await db.write.run(INSERT, ['a']), { changes: 1, lastInsertRowid: 1 });
    assert.deepEqual(await db.write.run('INSERT INTO t (x) VALUES (:x)', { x: 'b' }), {
      changes: 1,
      lastInsertRowid: 2,
    });
    assert.deepEqual(await db.read.all('SELECT * FROM t'), [
      { id: 1, x: 'a' },
      { id: 2, x: 'b' },
    ]);
  });

  test('a write returns rows with RETURNING, by all, get and execute', async (t) => {
    const db = await openTemporary(t);
    const sql = 'INSERT INTO t (x) VALUES (1), (2) RETURNING id';
    assert.deepEqual(await db.write.all(sql), [{ id: 1 }, { id: 2 }]);
    assert.deepEqual(await db.write.get(sql), { id: 3 });
    assert.deepEqual(await db.write.execute(sql), {
      rows: [{ id: 5 }, { id: 6 }],
      changes: 2,
      lastInsertRowid: 6,
    });
    assert.deepEqual(await db.write.execute('DELETE FROM t'), { rows: [], changes: 6, lastInsertRowid: 6 });
    assert.deepEqual((await db.write.execute('SELECT 1 AS one')).rows, [{ one: 1 }]);
  });

  test('a write of several statements is one transaction', async (t) => {
    const db = await openTemporary(t);
    await db.write.exec(`INSERT INTO t (x) VALUES (1); INSERT INTO t (x) VALUES (2)`);
    await assert.rejects(db.write.exec('DELETE FROM t; INSERT INTO t (id) VALUES (1), (1)'), {
      code: 'SQLITE_CONSTRAINT_PRIMARYKEY',
    });
    assert.deepEqual(await valuesOf(db), [1, 2]);
  });

  test('a write that SQLite refuses rejects with its error, and the next one works', async (t) => {
    const db = await openTemporary(t);
    await assert.rejects(db.write.run('INSERT INTO nothing VALUES (1)'), { code: 'SQLITE_ERROR' });
    await assert.rejects(db.write.run('INSERT INTO t (id) VALUES (1), (1)'), {
      code: 'SQLITE_CONSTRAINT_PRIMARYKEY',
    });
    await db.write.run(INSERT, [1]);
    assert.deepEqual(await valuesOf(db), [1]);
  });

  test('a write counts changes in numbers, with safeIntegers too', async (t) => {
    const db = await openTemporary(t, { safeIntegers: true });
    for (const sql of [INSERT, `${INSERT} RETURNING id`]) {
      assert.equal((await db.write.execute(sql, ['x'])).changes, 1);
    }
  });

  test('a write reads integers beyond 2^53 with safeIntegers', async (t) => {
    const db = await openTemporary(t, { safeIntegers: true });
    await db.write.run(INSERT, [2n ** 60n + 1n]);
    assert.deepEqual(await valuesOf(db), [2n ** 60n + 1n]);
    assert.equal((await db.read.get<{ x: bigint }>('SELECT x FROM t'))?.x, 2n ** 60n + 1n);
  });

  test('writes let the event loop turn, however many follow each other', async (t) => {
    const db = await openTemporary(t);
    let turns = 0;
    const timer = setInterval(() => (turns += 1), 0);
    for (let i = 0; i < 200_000 && turns < 3; i += 1) await db.write.run('DELETE FROM t');
    clearInterval(timer);
    assert.ok(turns >= 3, 'no timer came to its turn');
  });
});

describe('a transaction', () => {
  test('a transaction commits what its function wrote, and hands on its result', async (t) => {
    const db = await openTemporary(t);
    const result = await db.write.transaction(async (tx) => {
      await tx.run(INSERT, [1]);
      await nextTurn();
      await tx.exec('INSERT INTO t (x) VALUES (2); INSERT INTO t (x) VALUES (3)');
      return tx.get('SELECT count(*) AS n FROM t');
    });
    assert.deepEqual(result, { n: 3 });
    assert.deepEqual(await valuesOf(db), [1, 2, 3]);
  });

  for (const [kind, fail] of [
    ['throws', () => assert.fail('no')],
    ['rejects', () => nextTurn().then(() => assert.fail('no'))],
  ] as const) {
    test(`a transaction is undone when its function ${kind}`, async (t) => {
      const db = await openTemporary(t);
      const transaction = db.write.transaction((tx) => {
        void tx.run(INSERT, [1]);
        return fail();
      });
      await assert.rejects(transaction, { message: 'no' });
      assert.deepEqual(await valuesOf(db), []);
      assert.equal(db.stats().write.rollbacks, 1);
    });
  }

  test('a transaction that fails at its commit is undone, and leaves nothing open', async (t) => {
    const db = await openTemporary(t);
    await db.write.exec(`
      CREATE TABLE child (parent REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED)`);
    await assert.rejects(
      db.write.transaction((tx) => tx.run('INSERT INTO child VALUES (7)')),
      { code: 'SQLITE_CONSTRAINT_FOREIGNKEY' },
    );
    await db.write.run(INSERT, [1]);
    assert.deepEqual(await db.read.get('SELECT count(*) AS n FROM child'), { n: 0 });
  });

  test('a transaction sees its own writes while readers do not', async (t) => {
    const db = await openTemporary(t);
    await db.write.transaction(async (tx) => {
      await tx.run(INSERT, [1]);
      assert.deepEqual(await tx.all('SELECT x FROM t'), [{ x: 1 }]);
      assert.deepEqual(await db.read.all('SELECT x FROM t'), []);
    });
    assert.deepEqual(await db.read.all('SELECT x FROM t'), [{ x: 1 }]);
  });

  test('a transaction is of no use when it has ended', async (t) => {
    const db = await openTemporary(t);
    let kept: WriteTransaction | undefined;
    await db.write.transaction((tx) => {
      kept = tx;
    });
    const tx = kept as WriteTransaction;
    for (const use of [
      tx.run(INSERT, [1]),
      tx.all('SELECT 1'),
      tx.get('SELECT 1'),
      tx.execute('SELECT 1'),
      tx.exec('DELETE FROM t'),
      tx.savepoint(() => undefined),
      tx.iterate('SELECT 1')[Symbol.asyncIterator]().next(),
    ]) {
      await assert.rejects(use, { code: 'TX_ENDED' });
    }
    assert.deepEqual(await valuesOf(db), []);
  });

  test('a transaction refuses SQL that would end it or begin another, before anything of it runs', async (t) => {
    const db = await openTemporary(t);
    for (const sql of ['BEGIN', 'commit', ' END', '/**/ROLLBACK', 'SAVEPOINT a', 'RELEASE a']) {
      await assert.rejects(db.write.run(sql), { code: 'TRANSACTION_CONTROL' }, sql);
      for (const way of ['run', 'all', 'get', 'execute', 'exec'] as const) {
        await assert.rejects(
          db.write.transaction(async (tx) => {
            await tx.run(INSERT, [1]);
            await tx[way](sql);
          }),
          { code: 'TRANSACTION_CONTROL' },
          `${way} ${sql}`,
        );
      }
      await assert.rejects(db.write.exec(`DELETE FROM t; ${sql}`), { code: 'TRANSACTION_CONTROL' });
    }
    assert.deepEqual(await valuesOf(db), []);
  });

  test('a transaction that a statement has rolled back runs no other one, and fails though its function goes on', async (t) => {
    const db = await openTemporary(t);
    await db.write.run(INSERT, ['kept']);
    const transaction = db.write.transaction(async (tx) => {
      await tx.run(INSERT, ['lost']);
      await assert.rejects(tx.run('INSERT OR ROLLBACK INTO t (id) VALUES (1)'));
      await assert.rejects(tx.run(INSERT, ['on its own']), { code: 'TX_ENDED' });
    });
    await assert.rejects(transaction, { code: 'SQLITE_CONSTRAINT_PRIMARYKEY' });
    assert.deepEqual(await valuesOf(db), ['kept']);
  });

  test('a transaction reads row by row while it writes', async (t) => {
    const db = await openTemporary(t);
    await db.write.exec('INSERT INTO t (x) VALUES (1), (2), (3)');
    await db.write.transaction(async (tx) => {
      for await (const { x } of tx.iterate<{ x: number }>('SELECT x FROM t')) {
        if (x === 1) await tx.get('INSERT INTO t (x) VALUES (99) RETURNING id');
        await tx.run(INSERT, [x * 10]);
      }
      for await (const { x } of tx.iterate<{ x: number }>('SELECT x FROM t WHERE x < 3')) {
        await tx.run(INSERT, [x * 100]);
      }
      for await (const _ of tx.iterate('SELECT x FROM t')) break;
      const rows = tx.iterate('SELECT x FROM t');
      await rows[Symbol.asyncIterator]().next();
    });
    assert.deepEqual(await valuesOf(db), [1, 2, 3, 99, 10, 20, 30, 100, 200]);
  });

  test('a transaction runs in the context of its caller, also if it had to wait', async (t) => {
    const db = await openTemporary(t);
    const request = new AsyncLocalStorage<string>();
    const ask = (name: string): Promise<string | undefined> =>
      request.run(name, () => db.write.transaction(() => nextTurn().then(() => request.getStore())));
    assert.deepEqual(await Promise.all(['a', 'b', 'c'].map((name) => ask(name))), ['a', 'b', 'c']);
  });
});

describe('a transaction whose result cannot be looked at', () => {
  for (const isQueued of [false, true]) {
    test(`a transaction whose result cannot be read is undone${isQueued ? ', also if it had to wait' : ''}`, async (t) => {
      const db = await openTemporary(t);
      const holder = isQueued ? hold(db) : undefined;
      const strange = db.write.transaction((tx) => {
        void tx.run(INSERT, [1]);
        return new Proxy({}, { get: () => assert.fail('no') });
      });
      holder?.release();
      await assert.rejects(strange, { message: 'no' });
      await db.write.run(INSERT, [2]);
      assert.deepEqual(await valuesOf(db), [2]);
    });
  }
});

describe('a savepoint', () => {
  test('a savepoint undoes only the writes of its own function', async (t) => {
    const db = await openTemporary(t);
    await db.write.transaction(async (tx) => {
      await tx.run(INSERT, ['outer']);
      const inner = tx.savepoint(async (sp) => {
        await sp.run(INSERT, ['inner']);
        await sp.savepoint((innermost) => innermost.run(INSERT, ['innermost']));
        assert.fail('no');
      });
      await assert.rejects(inner, { message: 'no' });
      assert.equal(await tx.savepoint((sp) => sp.run(INSERT, ['second']).then(() => 'result')), 'result');
    });
    assert.deepEqual(await valuesOf(db), ['outer', 'second']);
  });

  test('a savepoint refuses statements of the outer transaction while it is open, and a second one beside it', async (t) => {
    const db = await openTemporary(t);
    await db.write.transaction(async (tx) => {
      await tx.savepoint(async (sp) => {
        await assert.rejects(tx.run(INSERT, [1]), { code: 'NESTED_WRITE' });
        await assert.rejects(
          tx.savepoint(() => undefined),
          { code: 'NESTED_WRITE' },
        );
        await sp.run(INSERT, [2]);
      });
    });
    assert.deepEqual(await valuesOf(db), [2]);
  });

  test('a savepoint that nobody awaited keeps the transaction from being committed', async (t) => {
    const db = await openTemporary(t);
    let inner: Promise<void> | undefined;
    const transaction = db.write.transaction(async (tx) => {
      inner = tx.savepoint(async (sp) => {
        await sp.run(INSERT, [1]);
        await nextTurn();
        await sp.run(INSERT, [2]);
      });
      inner.catch(() => undefined);
      await tx.run(INSERT, [0]).catch(() => undefined);
    });
    await assert.rejects(transaction, { code: 'NESTED_WRITE' });
    await assert.rejects(inner as Promise<void>, { code: 'TX_ENDED' });
    assert.deepEqual(await valuesOf(db), []);
  });

  test('a savepoint that returns after its transaction has ended does not end one of the next transaction', async (t) => {
    const db = await openTemporary(t);
    const { promise: late, resolve: goOn } = Promise.withResolvers<void>();
    let stale: Promise<void> | undefined;
    const first = db.write.transaction((tx) => {
      stale = tx.savepoint(() => late);
      stale.catch(() => undefined);
    });
    await assert.rejects(first, { code: 'NESTED_WRITE' });
    await db.write.transaction(async (tx) => {
      const undone = tx.savepoint(async (sp) => {
        await sp.run(INSERT, ['undone']);
        goOn();
        await assert.rejects(stale as Promise<void>, { code: 'TX_ENDED' });
        assert.fail('no');
      });
      await assert.rejects(undone, { message: 'no' });
    });
    assert.deepEqual(await valuesOf(db), []);
  });
});

describe('a write from within a transaction of the same pool', () => {
  const CALLS: Record<string, (db: Database) => Promise<unknown>> = {
    run: (db) => db.write.run(INSERT, [1]),
    transaction: (db) => db.write.transaction(() => undefined),
    exec: (db) => db.write.exec('DELETE FROM t'),
  };
  for (const [name, call] of Object.entries(CALLS)) {
    test(`a write from within a transaction of the same pool is refused at once: ${name}`, async (t) => {
      const db = await openTemporary(t);
      await db.write.transaction(async () => {
        await assert.rejects(call(db), { code: 'NESTED_WRITE' });
        await nextTurn();
        await assert.rejects(call(db), { code: 'NESTED_WRITE' });
      });
      await call(db);
    });
  }

  test('a write of the same pool is allowed once the transaction has ended, and one of another database at any time', async (t) => {
    const [db, other] = [await openTemporary(t), await openTemporary(t)];
    let later: Promise<unknown> | undefined;
    await db.write.transaction(async (tx) => {
      await tx.run(INSERT, [1]);
      await other.write.transaction(async (otherTx) => {
        await otherTx.run(INSERT, [2]);
        await assert.rejects(db.write.run(INSERT, [0]), { code: 'NESTED_WRITE' });
      });
      later = nextTurn().then(() => nextTurn().then(() => db.write.run(INSERT, [3])));
    });
    await later;
    assert.deepEqual([await valuesOf(db), await valuesOf(other)], [[1, 3], [2]]);
  });
});

describe('SQL that would change the settings of the pools', () => {
  test('SQL that would change the settings of the pools is refused before anything of it runs', async (t) => {
    const db = await openTemporary(t);
    for (const pragma of ['busy_timeout = 5000', 'main.journal_mode(delete)', 'locking_mode = exclusive']) {
      const refused = { code: 'USAGE' };
      await assert.rejects(db.write.all(`PRAGMA ${pragma}`), refused, pragma);
      await assert.rejects(db.write.exec(`${INSERT.replace('?', '1')}; PRAGMA ${pragma}`), refused, pragma);
    }
    assert.deepEqual(await db.write.all('PRAGMA journal_mode = wal'), [{ journal_mode: 'wal' }]);
    assert.deepEqual(await db.write.all('PRAGMA busy_timeout'), [{ timeout: 0 }]);
    assert.deepEqual(await valuesOf(db), []);
  });
});

describe('closing', () => {
  test('closing finishes running and waiting writes, and takes no more', async (t) => {
    const db = await openTemporary(t);
    const { release, done } = hold(db);
    const waiting = db.write.run(INSERT, [1]);
    const closed = db.close();
    await assert.rejects(db.write.run(INSERT, [2]), { code: 'CLOSED' });
    release();
    await Promise.all([done, waiting, closed]);
    await db.close();
    await assert.rejects(
      db.write.transaction(() => undefined),
      { code: 'CLOSED' },
    );
  });
});
