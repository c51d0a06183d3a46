import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { openDatabase } from '../../src/pool/database.ts';
import { openTemporary, valuesOf } from './open.ts';

/** Statements of docs/library.md about the pools that no other test shows. */
describe('as the manual says,', () => {
  test('a number is stored as REAL but for a column of type INTEGER, a bigint as an integer, undefined as NULL', async (t) => {
    const db = await openTemporary(t);
    await db.write.exec('CREATE TABLE v (typed INTEGER, untyped)');
    const undefinedValue = undefined as unknown as null;
    for (const value of [7, 7n, undefinedValue])
      await db.write.run('INSERT INTO v VALUES (?, ?)', [value, value]);
    assert.deepEqual(await db.read.values('SELECT typeof(typed), typeof(untyped) FROM v'), [
      ['integer', 'real'],
      ['integer', 'integer'],
      ['null', 'null'],
    ]);
    await db.write.run('UPDATE v SET typed = ?', [2n ** 53n + 1n]);
    assert.deepEqual(await db.read.get('SELECT typed FROM v'), { typed: 2 ** 53 }, 'rounded as it is read');
    assert.deepEqual(await db.read.get('SELECT typed - ? AS more FROM v', [2n ** 53n]), { more: 1 });
  });

  test('VACUUM runs by write.run, and exec and a transaction refuse it', async (t) => {
    const db = await openTemporary(t);
    await db.write.run('VACUUM');
    await assert.rejects(db.write.exec('VACUUM'), { code: 'SQLITE_ERROR' });
    await assert.rejects(
      db.write.transaction((tx) => tx.run('VACUUM')),
      { code: 'SQLITE_ERROR' },
    );
  });

  test('a migration in one transaction takes effect whole or not at all, with its user_version', async (t) => {
    const db = await openTemporary(t);
    const migrated = db.write.transaction(async (tx) => {
      await tx.run('ALTER TABLE t ADD COLUMN y');
      await tx.run('PRAGMA user_version = 2');
      throw new Error('mine');
    });
    await assert.rejects(migrated, /mine/);
    assert.deepEqual(await db.read.get('PRAGMA user_version'), { user_version: 0 });
    await assert.rejects(db.read.get('SELECT y FROM t'), { code: 'SQLITE_ERROR' });
  });

  test('defer_foreign_keys puts the checks off to the end of a transaction', async (t) => {
    const db = await openTemporary(t);
    await db.write.exec('CREATE TABLE child (parent INTEGER REFERENCES t (id))');
    await assert.rejects(db.write.run('INSERT INTO child VALUES (1)'), {
      code: 'SQLITE_CONSTRAINT_FOREIGNKEY',
    });
    await db.write.transaction(async (tx) => {
      await tx.run('PRAGMA defer_foreign_keys = ON');
      await tx.run('INSERT INTO child VALUES (1)');
      await tx.run('INSERT INTO t (id) VALUES (1)');
    });
    const failing = db.write.transaction(async (tx) => {
      await tx.run('PRAGMA defer_foreign_keys = ON');
      await tx.run('INSERT INTO child VALUES (9)');
    });
    await assert.rejects(failing, { code: 'SQLITE_CONSTRAINT_FOREIGNKEY' });
  });

  test('two pools on one file queue for each other, and within a transaction of the other until BUSY_TIMEOUT', async (t) => {
    const first = await openTemporary(t);
    const second = await openDatabase(first.path, { admission: 'none', busyTimeoutMs: 30 });
    t.after(() => second.close());
    const insert = 'INSERT INTO t (x) VALUES (?)';
    await Promise.all(
      Array.from({ length: 20 }, (_, n) => (n % 2 === 0 ? first : second).write.run(insert, [n])),
    );
    await first.write.transaction(async (tx) => {
      await tx.run(insert, ['of the transaction']);
      await assert.rejects(second.write.run(insert, ['never']), { code: 'BUSY_TIMEOUT' });
    });
    assert.equal((await valuesOf(first)).length, 21);
  });

  test('the end of a block with `await using` closes the database', async (t) => {
    const { path } = await openTemporary(t);
    const db = await openDatabase(path, { admission: 'none' });
    await db[Symbol.asyncDispose]();
    await assert.rejects(db.write.run('SELECT 1'), { code: 'CLOSED' });
  });

  test('a function that declares a ReadConnection works with every kind, and the options of a thread have no effect', async (t) => {
    const db = await openTemporary(t, { threads: 1 });
    const count = async (r: Pick<typeof db.read, 'get'>): Promise<unknown> =>
      (await r.get<{ n: number }>('SELECT count(*) AS n FROM t', [], { thread: true }))?.n;
    const counts = [
      await count(db.read),
      await db.read.snapshot(count),
      await db.write.transaction(count),
      await db.write.connection(count),
    ];
    assert.deepEqual(counts, [0, 0, 0, 0]);
  });
});
