import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { drizzleProxy } from '../src/drizzle.ts';
import { openDatabase } from '../src/pool/database.ts';
import type { Database } from '../src/pool/types.ts';
import { tempDir } from './support/compare.ts';

/** The type that `drizzle()` of drizzle-orm/sqlite-proxy takes, from its driver.d.ts. */
type RemoteCallback = (
  sql: string,
  // oxlint-disable-next-line typescript/no-explicit-any -- as it stands there
  params: any[],
  method: 'run' | 'all' | 'values' | 'get',
  // oxlint-disable-next-line typescript/no-explicit-any -- as it stands there
) => Promise<{ rows: any[] }>;

async function open(t: TestContext, threads = 0): Promise<Database> {
  const db = await openDatabase(join(tempDir(t), 'a.db'), { admission: 'none', threads });
  t.after(() => db.close());
  await db.write.exec(`
    CREATE TABLE user (id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE post (id INTEGER PRIMARY KEY, user INTEGER, title TEXT);
    INSERT INTO user VALUES (1, 'Ada'), (2, 'Bo');
    INSERT INTO post VALUES (7, 2, 'first')`);
  return db;
}

const JOIN =
  'select "user"."id", "user"."name", "post"."id", "post"."title" from "user" inner join "post" on "post"."user" = "user"."id"';

describe('the callback for Drizzle', () => {
  for (const threads of [0, 1]) {
    test(`the callback for Drizzle gives rows as arrays, columns of the same name too${threads > 0 ? ', from a thread' : ''}`, async (t) => {
      const proxy: RemoteCallback = drizzleProxy(await open(t, threads));
      assert.deepEqual(await proxy(JOIN, [], 'all'), { rows: [[2, 'Bo', 7, 'first']] });
      assert.deepEqual(await proxy(JOIN, [], 'values'), { rows: [[2, 'Bo', 7, 'first']] });
    });
  }

  test('the callback for Drizzle gives the first row for get, and undefined if there is no row', async (t) => {
    const proxy = drizzleProxy(await open(t));
    const sql = 'select "name", "id" from "user" where "id" >= ?';
    assert.deepEqual(await proxy(sql, [1], 'get'), { rows: ['Ada', 1] });
    assert.deepEqual(await proxy(sql, [9], 'get'), { rows: undefined });
  });

  test('the callback for Drizzle writes, with and without RETURNING', async (t) => {
    const db = await open(t);
    const proxy = drizzleProxy(db);
    assert.deepEqual(await proxy('insert into "user" ("name") values (?)', ['Cy'], 'run'), { rows: [] });
    const sql = `insert into "user" ("name") values (?), ('a, b (c)') returning "name", "id", max("id", 2)`;
    assert.deepEqual(await proxy(sql, ['Di'], 'all'), {
      rows: [
        ['Di', 4, 4],
        ['a, b (c)', 5, 5],
      ],
    });
    assert.deepEqual(await db.read.get('SELECT count(*) AS n FROM user'), { n: 5 });
    assert.ok(db.stats().write.commits >= 2);
  });

  test('the callback for Drizzle gives columns of the same name, or named like numbers, in their order when it writes', async (t) => {
    const proxy = drizzleProxy(await open(t));
    for (const [columns, row] of [
      ['"id", "id"', [3, 3]],
      ['"name", "id" as "1"', ['Cy', 4]],
    ] as const) {
      const sql = `insert into "user" ("name") values ('Cy') returning ${columns}`;
      assert.deepEqual(await proxy(sql, [], 'all'), { rows: [row] });
    }
  });

  test('the callback for Drizzle is refused the transaction that its proxy cannot have', async (t) => {
    const proxy = drizzleProxy(await open(t));
    await assert.rejects(proxy('begin', [], 'run'), { code: 'TRANSACTION_CONTROL' });
    await assert.rejects(proxy('commit', [], 'run'), { code: 'TRANSACTION_CONTROL' });
  });

  test('the callback for Drizzle stays within a transaction that it is made for', async (t) => {
    const db = await open(t);
    const error = new Error('mine');
    await assert.rejects(
      db.write.transaction(async (tx) => {
        const proxy = drizzleProxy(tx);
        await proxy('delete from "user" where "id" = ?', [1], 'run');
        assert.deepEqual(await proxy('select "id" from "user"', [], 'all'), { rows: [[2]] });
        assert.deepEqual(await proxy('select * from "user"', [], 'get'), { rows: [2, 'Bo'] });
        assert.deepEqual(await proxy(JOIN, [], 'all'), { rows: [[2, 'Bo', 7, 'first']] });
        throw error;
      }),
      (thrown) => thrown === error,
    );
    assert.deepEqual(await db.read.get('SELECT count(*) AS n FROM user'), { n: 2 });
  });

  test('the callback for Drizzle has one connection if it is made for one', async (t) => {
    const db = await open(t);
    const found = await db.write.connection(async (connection) => {
      const proxy = drizzleProxy(connection);
      await proxy('insert into "user" ("id", "name") values (?, ?)', [41, 'Cy'], 'run');
      await proxy('create temp table own as select 7 as x', [], 'run');
      return [
        await proxy('select last_insert_rowid(), changes()', [], 'get'),
        await proxy('select x from own', [], 'values'),
      ];
    });
    assert.deepEqual(found, [{ rows: [41, 1] }, { rows: [[7]] }]);
    // The callback asks the writer for facts that only the writer knows.
    const proxy = drizzleProxy(db);
    assert.deepEqual(await proxy('select last_insert_rowid()', [], 'get'), { rows: [41] });
    assert.deepEqual(await proxy('select x from temp.own', [], 'get'), { rows: [7] });
  });
});
