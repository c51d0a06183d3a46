import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Database } from '../../src/pool/types.ts';
import { hold, openTemporary, valuesOf } from './open.ts';

const INSERT = 'INSERT INTO t (x) VALUES (1)';

/** Calls with something in the wrong place, as JavaScript lets them. */
const call = (fn: unknown, ...args: unknown[]): Promise<unknown> =>
  (fn as (...given: unknown[]) => Promise<unknown>)(...args);

const WRONG_OPTIONS: readonly unknown[] = [
  { priority: 'high' },
  { prority: 'background' },
  { deadlineMs: -5 },
  { deadlineMs: Number.NaN },
  { label: 1 },
  { signal: true },
  { toString: 'x' },
  null,
  'background',
];

function calls(db: Database, options: unknown): Record<string, () => Promise<unknown>> {
  return {
    run: () => call(db.write.run.bind(db.write), INSERT, [], options),
    exec: () => call(db.write.exec.bind(db.write), INSERT, options),
    transaction: () => call(db.write.transaction.bind(db.write), () => undefined, options),
    bulk: () => call(db.write.bulk.bind(db.write), [1], () => undefined, options),
    all: () => call(db.read.all.bind(db.read), 'SELECT 1', [], options),
    snapshot: () => call(db.read.snapshot.bind(db.read), () => undefined, options),
  };
}

describe('the options of a call', () => {
  for (const isTaken of [false, true]) {
    test(`senseless options of a call are refused ${isTaken ? 'while others write' : 'at rest'}`, async (t) => {
      const db = await openTemporary(t);
      const holder = isTaken ? hold(db) : undefined;
      for (const options of WRONG_OPTIONS) {
        for (const [name, wrong] of Object.entries(calls(db, options))) {
          await assert.rejects(wrong(), { code: 'USAGE' }, `${name} ${JSON.stringify(options)}`);
        }
      }
      holder?.release();
      await holder?.done;
      assert.deepEqual(await valuesOf(db), []);
    });
  }

  test('each option of a call may be undefined', async (t) => {
    const db = await openTemporary(t);
    await db.write.run(INSERT, [], { priority: undefined, signal: undefined, label: undefined });
    await db.write.bulk([1], (tx) => tx.run(INSERT), { priority: undefined, budgetMs: undefined });
    await db.read.all('SELECT 1', [], { signal: undefined, deadlineMs: undefined });
    assert.equal((await valuesOf(db)).length, 2);
  });
});

for (const threads of [0, 1]) {
  describe(`the parameters of a statement${threads === 0 ? '' : ' in a thread'}`, () => {
    test('parameters by a name that the statement lacks are refused', async (t) => {
      const db = await openTemporary(t, { threads });
      const options = { priority: 'background' };
      await assert.rejects(db.write.run(INSERT, options), { code: 'USAGE', hint: /third/ });
      await assert.rejects(db.write.values(INSERT, options), { code: 'USAGE' });
      await assert.rejects(db.read.all('SELECT :id', { id: 1, nmae: 'x' }), {
        code: 'USAGE',
        message: /:nmae/,
      });
      assert.deepEqual(await valuesOf(db), []);
    });

    test('parameters are found behind and before every character that SQLite lets the text begin and end with', async (t) => {
      const db = await openTemporary(t, { threads });
      const sql = 'SELECT :a AS a, @b2 AS b, $c_ AS c, :ä AS d';
      const params = { a: 1, b2: 2, c_: 3, ä: 4 };
      assert.deepEqual(await db.read.get(sql, params), { a: 1, b: 2, c: 3, d: 4 });
    });

    test('parameters of a wrong kind are a TypeError or RangeError, and a statement that is no text is USAGE', async (t) => {
      const db = await openTemporary(t, { threads });
      const all = db.read.all.bind(db.read);
      for (const value of [true, new Date(), () => 1, Symbol('x')]) {
        await assert.rejects(call(all, 'SELECT ?', [value]), TypeError);
      }
      for (const [value, words] of [
        [true, 'the boolean true, which SQLite does not have: pass 1'],
        [false, 'the boolean false, which SQLite does not have: pass 0'],
        [new Date(), 'a Date, which SQLite does not have: pass its toISOString() or getTime()'],
        ...[{}, new DataView(new ArrayBuffer(1))].map(
          (wrong) =>
            [
              wrong,
              'an object, which SQLite does not have: pass a number, a bigint, a string, a Uint8Array or null',
            ] as const,
        ),
      ] as const) {
        const named = { name: 'TypeError', message: `parameter :x is ${words}` };
        const second = { name: 'TypeError', message: `parameter 2 is ${words}` };
        await assert.rejects(call(all, 'SELECT :x', { x: value }), named);
        await assert.rejects(call(all, 'SELECT ?, ?', [1, value]), second);
        await assert.rejects(call(db.write.run.bind(db.write), 'SELECT ?, ?', [1, value]), second);
      }
      await assert.rejects(db.read.all('SELECT ?', [1, 2]), RangeError);
      await assert.rejects(call(all, 'SELECT ?', 1), { code: 'USAGE' });
      for (const sql of [42, undefined, () => 1]) await assert.rejects(call(all, sql), { code: 'USAGE' });
    });
  });
}

describe('an argument of a wrong kind', () => {
  test('an argument of a wrong kind is refused with USAGE', async (t) => {
    const db = await openTemporary(t);
    const { write, read } = db;
    for (const wrong of [
      () => call(write.run.bind(write), 42),
      () => call(write.exec.bind(write), 42),
      () => call(write.transaction.bind(write), 'x'),
      () => call(write.bulk.bind(write), 5, () => undefined),
      () => call(write.bulk.bind(write), undefined, () => undefined),
      () => call(write.bulk.bind(write), [1]),
      () => call(read.snapshot.bind(read), 'SELECT 1'),
      () => write.transaction((tx) => call(tx.savepoint.bind(tx), 'x')),
    ]) {
      await assert.rejects(wrong(), { name: 'SqlsyncError', code: 'USAGE' });
    }
    const letters: string[] = [];
    await write.bulk('ab', (_, letter) => letters.push(letter));
    assert.deepEqual(letters, ['a', 'b']);
  });
});

describe('the connection that writes', () => {
  test('the connection that writes keeps the settings of the pools', async (t) => {
    const db = await openTemporary(t);
    for (const pragma of [
      'journal_mode = delete',
      'locking_mode = exclusive',
      'foreign_keys = off',
      'foreign_keys(0)',
      'query_only = on',
      'busy_timeout = 9',
    ]) {
      await assert.rejects(db.write.run(`PRAGMA ${pragma}`), { code: 'USAGE' }, pragma);
      await assert.rejects(db.write.exec(`SELECT 1; PRAGMA ${pragma}`), { code: 'USAGE' }, pragma);
    }
    await db.write.run('PRAGMA foreign_keys = ON');
    assert.deepEqual(await db.write.get('PRAGMA foreign_keys'), { foreign_keys: 1 });
  });

  test('the connection that writes gives rows as arrays, and none for a statement that returns none', async (t) => {
    const db = await openTemporary(t);
    assert.deepEqual(await db.write.values('INSERT INTO t (x) VALUES (?) RETURNING id, id, x', ['a']), [
      [1, 1, 'a'],
    ]);
    assert.deepEqual(await db.write.values('DELETE FROM t'), []);
    await db.write.transaction(async (tx) => {
      assert.deepEqual(await tx.values('SELECT 1 AS a, 2 AS a'), [[1, 2]]);
    });
    assert.deepEqual(await db.read.snapshot((r) => r.values('SELECT 1 AS a, 2 AS a')), [[1, 2]]);
  });
});
