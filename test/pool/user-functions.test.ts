import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { openTemporary, valuesOf } from './open.ts';

for (const threads of [0, 1]) {
  describe(`functions of an application${threads === 0 ? '' : ', with threads'}`, () => {
    test('functions of an application are there in every way to read and to write', async (t) => {
      const db = await openTemporary(t, { threads });
      db.function('twice', (x: number) => x * 2);
      await db.write.run('INSERT INTO t (x) VALUES (twice(?))', [21]);
      assert.deepEqual(await valuesOf(db), [42]);
      const sql = 'SELECT TWICE(x) AS x FROM t';
      assert.deepEqual(await db.read.all(sql), [{ x: 84 }]);
      assert.deepEqual(await db.read.get(sql), { x: 84 });
      assert.deepEqual(await db.read.values(sql), [[84]]);
      const rows: unknown[] = [];
      for await (const row of db.read.iterate(sql)) rows.push(row);
      assert.deepEqual(rows, [{ x: 84 }]);
      assert.deepEqual(await db.read.snapshot((r) => r.all(sql)), [{ x: 84 }]);
      assert.deepEqual(await db.write.transaction((tx) => tx.all(sql)), [{ x: 84 }]);
    });

    test('functions of an application reach connections that were open before, and those opened later', async (t) => {
      const db = await openTemporary(t, { threads, readers: 2 });
      await db.read.all('SELECT 1', [], { thread: false });
      db.function('one', () => 1);
      const sql = 'SELECT one() AS one';
      await db.read.snapshot(async (first) => {
        assert.deepEqual(await first.all(sql), [{ one: 1 }]);
        assert.deepEqual(await db.read.snapshot((second) => second.all(sql)), [{ one: 1 }]);
      });
    });

    test('a generated column may use a function of an application', async (t) => {
      const db = await openTemporary(t, { threads });
      db.function('twice', { deterministic: true }, (x: number) => x * 2);
      await db.write.exec(
        'CREATE TABLE g (x, v AS (twice(x)), s AS (twice(x)) STORED); INSERT INTO g (x) VALUES (4)',
      );
      assert.deepEqual(await db.read.all('SELECT * FROM g'), [{ x: 4, v: 8, s: 8 }]);
    });

    test('functions of an application may be aggregates and window functions', async (t) => {
      const db = await openTemporary(t, { threads });
      await db.write.exec('INSERT INTO t (x) VALUES (2), (3), (4)');
      db.aggregate('product', {
        start: 1,
        step: (state: number, x: number) => state * x,
        inverse: (state: number, x: number) => state / x,
      });
      assert.deepEqual(await db.read.get('SELECT product(x) AS p FROM t'), { p: 24 });
      const sql = 'SELECT product(x) OVER (ORDER BY id ROWS 1 PRECEDING) AS p FROM t';
      assert.deepEqual(await db.read.values(sql), [[2], [6], [12]]);
      db.aggregate<string[]>('listed', {
        start: () => [],
        step: (list, x: number) => void list.push(`${x}`),
        result: (list) => list.join('+'),
      });
      assert.deepEqual(await db.read.get('SELECT listed(x) AS l FROM t'), { l: '2+3+4' });
    });

    test('an error that a function of an application throws is that of the statement, which changes nothing', async (t) => {
      const db = await openTemporary(t, { threads });
      const error = new Error('mine');
      db.function('fails', () => {
        throw error;
      });
      await assert.rejects(
        db.write.run('INSERT INTO t (x) VALUES (1), (fails())'),
        (thrown) => thrown === error,
      );
      await assert.rejects(db.read.all('SELECT fails()'), (thrown) => thrown === error);
      await assert.rejects(db.read.all('SELECT absent()'), { message: 'no such function: absent' });
      assert.deepEqual(await valuesOf(db), []);
    });

    test('a function of an application with the options of better-sqlite3 can be indexed, and refused to the schema', async (t) => {
      const db = await openTemporary(t, { threads });
      db.function('digits', { deterministic: true, varargs: true }, (...x: string[]) => x.join('').length);
      await db.write.exec('CREATE INDEX i ON t (digits(x)); INSERT INTO t (x) VALUES (123)');
      assert.deepEqual(await db.read.all('SELECT x FROM t WHERE digits(x) = 3'), [{ x: 123 }]);
      db.function('secret', { directOnly: true, deterministic: undefined }, () => 1);
      await db.write.exec('CREATE VIEW v AS SELECT secret() AS s');
      await assert.rejects(db.read.all('SELECT * FROM v'), /unsafe use of secret/);
    });
  });
}

describe('defining a function', () => {
  test('defining a function with wrong arguments is refused with USAGE, and after close() with CLOSED', async (t) => {
    const db = await openTemporary(t);
    const define = db.function.bind(db) as (...args: unknown[]) => void;
    const aggregate = db.aggregate.bind(db) as (...args: unknown[]) => void;
    for (const wrong of [
      () => define('f'),
      () => define('', () => 1),
      () => define(5, () => 1),
      () => define('f', { deterministic: 1 }, () => 1),
      () => define('f', { pure: true }, () => 1),
      () => define('f', () => 1, {}),
      () => aggregate('f'),
      () => aggregate('f', { start: 1 }),
      () => aggregate('f', { step: () => 1, result: 5 }),
    ]) {
      assert.throws(wrong, { code: 'USAGE' });
    }
    await db.close();
    assert.throws(() => db.function('f', () => 1), { code: 'CLOSED' });
  });

  test('defining a function while a result is being read is refused, and works afterwards', async (t) => {
    const db = await openTemporary(t);
    await db.write.exec('INSERT INTO t (x) VALUES (1), (2)');
    for await (const row of db.read.iterate('SELECT x FROM t')) {
      assert.ok(row);
      assert.throws(() => db.function('f', () => 1), { code: 'USAGE', hint: /openDatabase/ });
      // Not on the other connections either.
      await assert.rejects(db.write.all('SELECT f()'), /no such function/);
    }
    db.function('f', () => 1);
    assert.deepEqual(await db.read.get('SELECT f() AS f'), { f: 1 });
  });

  test('a function may replace one of SQLite, unless threads would go on with that', async (t) => {
    const alone = await openTemporary(t);
    alone.function('upper', { deterministic: true }, (text: string) => text.toLocaleUpperCase('en'));
    assert.deepEqual(await alone.read.get(`SELECT upper('ä') AS u`), { u: 'Ä' });
    const db = await openTemporary(t, { threads: 1 });
    for (const name of ['UPPER', 'snippet'])
      assert.throws(() => db.function(name, (text: string) => text), { code: 'USAGE', hint: /threads/ });
    for (const version of [1, 2]) db.function('version', () => version);
    assert.deepEqual(await db.read.get('SELECT version() AS v'), { v: 2 });
  });
});
