import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { Generated } from 'kysely';
import { Kysely, sql } from 'kysely';
import { SqlsyncDialect } from '../src/kysely.ts';
import { openDatabase, openWith } from '../src/pool/database.ts';
import type { Database, DatabaseOptions } from '../src/pool/types.ts';
import { tempDir } from './support/compare.ts';

interface Schema {
  user: { id: Generated<number>; name: string; visits: Generated<number> };
}

async function open(
  t: TestContext,
  options: DatabaseOptions = {},
): Promise<{ db: Database; kysely: Kysely<Schema> }> {
  const db = await openDatabase(join(tempDir(t), 'a.db'), { admission: 'none', ...options });
  const kysely = new Kysely<Schema>({ dialect: new SqlsyncDialect({ database: db }) });
  t.after(async () => {
    await kysely.destroy();
    await db.close();
  });
  await kysely.schema
    .createTable('user')
    .addColumn('id', 'integer', (column) => column.primaryKey())
    .addColumn('name', 'text', (column) => column.notNull().unique())
    .addColumn('visits', 'integer', (column) => column.notNull().defaultTo(0))
    .execute();
  return { db, kysely };
}

async function names(kysely: Kysely<Schema>): Promise<string[]> {
  const rows = await kysely.selectFrom('user').select('name').orderBy('id').execute();
  return rows.map((row) => row.name);
}

describe('Kysely on the pools', () => {
  test('Kysely creates, reads, updates and deletes on the pools', async (t) => {
    const { kysely } = await open(t);
    const inserted = await kysely.insertInto('user').values({ name: 'Ada' }).executeTakeFirstOrThrow();
    assert.equal(inserted.insertId, 1n);
    assert.equal(inserted.numInsertedOrUpdatedRows, 1n);
    await kysely
      .insertInto('user')
      .values([{ name: 'Bo' }, { name: 'Cy' }])
      .execute();
    const updated = await kysely
      .updateTable('user')
      .set({ visits: 3 })
      .where('id', '>', 1)
      .executeTakeFirstOrThrow();
    assert.equal(updated.numUpdatedRows, 2n);
    const deleted = await kysely.deleteFrom('user').where('name', '=', 'Bo').executeTakeFirstOrThrow();
    assert.equal(deleted.numDeletedRows, 1n);
    assert.deepEqual(await kysely.selectFrom('user').selectAll().execute(), [
      { id: 1, name: 'Ada', visits: 0 },
      { id: 3, name: 'Cy', visits: 3 },
    ]);
  });

  test('Kysely returns rows of its writes', async (t) => {
    const { kysely } = await open(t);
    const rows = await kysely
      .insertInto('user')
      .values([{ name: 'Ada' }, { name: 'Bo' }])
      .returning(['id', 'name'])
      .execute();
    assert.deepEqual(rows, [
      { id: 1, name: 'Ada' },
      { id: 2, name: 'Bo' },
    ]);
    assert.deepEqual(await kysely.deleteFrom('user').returning('id').execute(), [{ id: 1 }, { id: 2 }]);
  });

  test('Kysely reads with the readers and writes with the writer', async (t) => {
    const { db, kysely } = await open(t);
    const before = db.stats();
    await names(kysely);
    await sql`select 1`.execute(kysely);
    await kysely
      .with('one', (query) => query.selectFrom('user').select('id'))
      .selectFrom('one')
      .selectAll()
      .execute();
    assert.equal(db.stats().write.commits, before.write.commits);
    assert.equal(db.stats().read.labels['kysely']?.hold.count, 3);
    await kysely.insertInto('user').values({ name: 'Ada' }).execute();
    await sql`pragma user_version = 7`.execute(kysely);
    assert.equal(db.stats().write.commits, before.write.commits + 2);
  });

  test('Kysely answers readers while a transaction is open, from the state before it', async (t) => {
    const { kysely } = await open(t);
    await kysely.transaction().execute(async (trx) => {
      await trx.insertInto('user').values({ name: 'Ada' }).execute();
      assert.deepEqual(await names(trx), ['Ada']);
      assert.deepEqual(await names(kysely), []);
    });
    assert.deepEqual(await names(kysely), ['Ada']);
  });

  test('Kysely rolls back what throws, and hands its error on', async (t) => {
    const { db, kysely } = await open(t);
    const error = new Error('mine');
    await assert.rejects(
      kysely.transaction().execute(async (trx) => {
        await trx.insertInto('user').values({ name: 'Ada' }).execute();
        throw error;
      }),
      (thrown) => thrown === error,
    );
    await assert.rejects(
      kysely.transaction().execute(async (trx) => {
        await trx.insertInto('user').values({ name: 'Bo' }).execute();
        await trx.insertInto('user').values({ name: 'Bo' }).execute();
      }),
      { code: 'SQLITE_CONSTRAINT_UNIQUE' },
    );
    assert.deepEqual(await names(kysely), []);
    assert.equal(db.stats().write.holder, undefined);
    assert.equal(db.stats().write.rollbacks, 2);
  });

  test('Kysely runs transactions that come at the same time one after the other, each whole', async (t) => {
    const { kysely } = await open(t);
    await kysely.insertInto('user').values({ name: 'Ada' }).execute();
    await Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        kysely.transaction().execute(async (trx) => {
          const { visits } = await trx
            .selectFrom('user')
            .select('visits')
            .where('id', '=', 1)
            .executeTakeFirstOrThrow();
          await new Promise((resolve) => setImmediate(resolve));
          await trx
            .updateTable('user')
            .set({ visits: visits + 1 })
            .where('id', '=', 1)
            .execute();
          await trx
            .insertInto('user')
            .values({ name: `of ${index}` })
            .execute();
        }),
      ),
    );
    const { visits } = await kysely.selectFrom('user').select('visits').executeTakeFirstOrThrow();
    assert.equal(visits, 50);
    assert.equal((await names(kysely)).length, 51);
  });

  test('Kysely has savepoints in controlled transactions', async (t) => {
    const { kysely } = await open(t);
    const trx = await kysely.startTransaction().execute();
    await trx.insertInto('user').values({ name: 'kept' }).execute();
    const first = await trx.savepoint('first').execute();
    await first.insertInto('user').values({ name: 'undone' }).execute();
    const second = await first.savepoint('second').execute();
    await second.insertInto('user').values({ name: 'undone too' }).execute();
    const again = await second.rollbackToSavepoint('first').execute();
    await again.insertInto('user').values({ name: 'later' }).execute();
    await again.releaseSavepoint('first').execute();
    await trx.commit().execute();
    assert.deepEqual(await names(kysely), ['kept', 'later']);

    const other = await kysely.startTransaction().execute();
    await other.deleteFrom('user').execute();
    await other.savepoint('open').execute();
    await other.rollback().execute();
    assert.deepEqual(await names(kysely), ['kept', 'later']);
  });

  test('Kysely takes a transaction with access mode read only as a snapshot, which cannot write', async (t) => {
    const { db, kysely } = await open(t);
    await kysely.insertInto('user').values({ name: 'Ada' }).execute();
    const { rollbacks } = db.stats().write;
    await assert.rejects(
      kysely
        .transaction()
        .setAccessMode('read only')
        .execute(async (trx) => {
          await kysely.insertInto('user').values({ name: 'Bo' }).execute();
          assert.deepEqual(await names(trx), ['Ada']);
          await trx.deleteFrom('user').returning('id').execute();
        }),
      { code: 'READ_ONLY' },
    );
    assert.deepEqual(await names(kysely), ['Ada', 'Bo']);
    assert.equal(db.stats().write.rollbacks, rollbacks);
    assert.equal(db.stats().read.inUse, 0);
  });

  test('Kysely cannot write with a statement that it takes for a SELECT', async (t) => {
    const { kysely } = await open(t);
    await assert.rejects(sql`select 1; delete from user`.execute(kysely), /more than one statement/);
    await assert.rejects(sql`begin`.execute(kysely), { code: 'TRANSACTION_CONTROL' });
  });

  test('Kysely streams, and gives the connection back when the loop is left early', async (t) => {
    const { db, kysely } = await open(t, { readers: 1 });
    await kysely
      .insertInto('user')
      .values(Array.from({ length: 100 }, (_, n) => ({ name: `n${n}` })))
      .execute();
    const query = kysely.selectFrom('user').select('name').orderBy('id');
    const streamed: string[] = [];
    for await (const row of query.stream(7)) streamed.push(row.name);
    assert.deepEqual(
      streamed,
      Array.from({ length: 100 }, (_, n) => `n${n}`),
    );
    for await (const row of query.stream(7)) if (row.name === 'n3') break;
    assert.equal(db.stats().read.inUse, 0);
    await kysely.transaction().execute(async (trx) => {
      await trx.deleteFrom('user').where('id', '>', 5).execute();
      let rows = 0;
      for await (const row of trx.selectFrom('user').select('name').stream(2))
        rows += row.name === '' ? 0 : 1;
      assert.equal(rows, 5);
    });
    await assert.rejects(
      async () => {
        for await (const row of kysely.deleteFrom('user').returning('id').stream()) assert.ok(row);
      },
      { code: 'USAGE' },
    );
  });

  test('Kysely reports BUSY_TIMEOUT, and never a raw busy error, if it cannot have the writer', async (t) => {
    const { db, kysely } = await open(t, { busyTimeoutMs: 20 });
    await db.write.transaction(async () => {
      const results = await Promise.allSettled([
        kysely.transaction().execute(() => Promise.resolve()),
        kysely.insertInto('user').values({ name: 'Ada' }).execute(),
      ]);
      for (const result of results) {
        assert.equal(result.status, 'rejected');
        assert.match((result.reason as { code: string }).code, /^(BUSY_TIMEOUT|NESTED_WRITE)$/);
      }
    });
    const held = await kysely.startTransaction().execute();
    await assert.rejects(kysely.startTransaction().execute(), { code: 'BUSY_TIMEOUT' });
    await held.rollback().execute();
    await kysely.transaction().execute((trx) => trx.insertInto('user').values({ name: 'Ada' }).execute());
  });

  test('Kysely rolls back a transaction that SQLite refuses in the middle, and says so', async (t) => {
    const { db } = await open(t);
    // In a transaction with a deferred BEGIN, a write after a read fails once someone else has written:
    // SQLITE_BUSY_SNAPSHOT.
    const deferred = await openWith(db.path, { admission: 'none' }, { begin: 'BEGIN' });
    t.after(() => deferred.close());
    const kysely = new Kysely<Schema>({ dialect: new SqlsyncDialect({ database: deferred }) });
    for (const isCaught of [false, true]) {
      const transaction = kysely.transaction().execute(async (trx) => {
        await names(trx);
        await db.write.run('INSERT INTO user (name) VALUES (?)', [`of another ${isCaught}`]);
        const insert = trx.insertInto('user').values({ name: 'mine' }).execute();
        if (isCaught) await insert.catch(() => undefined);
        else await insert;
      });
      await assert.rejects(transaction, { name: 'SqlsyncError', code: 'BUSY_TIMEOUT' });
    }
    assert.deepEqual(await names(kysely), ['of another false', 'of another true']);
    assert.deepEqual(deferred.stats().write.retries, { SQLITE_BUSY_SNAPSHOT: 2 });
    await kysely.insertInto('user').values({ name: 'later' }).execute();
  });

  test('a write that waits too long for a connection of Kysely gets BUSY_TIMEOUT, which names the connection', async (t) => {
    const { kysely, db } = await open(t, { busyTimeoutMs: 20 });
    await kysely.connection().execute(async (c) => {
      await sql`insert into user (name) values ('mine')`.execute(c);
      await assert.rejects(db.write.run(`INSERT INTO user (name) VALUES ('waits')`), {
        code: 'BUSY_TIMEOUT',
        message: /which "kysely" of this pool has held/,
      });
      await assert.rejects(kysely.insertInto('user').values({ name: 'waits' }).execute(), {
        code: 'BUSY_TIMEOUT',
      });
    });
    assert.deepEqual(await names(kysely), ['mine']);
  });

  test('Kysely describes the tables, and leaves the database open when it is destroyed', async (t) => {
    const { db, kysely } = await open(t);
    const tables = await kysely.introspection.getTables();
    assert.deepEqual(
      tables.map(({ name, columns }) => [name, columns.map((column) => column.name)]),
      [['user', ['id', 'name', 'visits']]],
    );
    await kysely.destroy();
    assert.deepEqual(await db.read.get('SELECT 1 AS n'), { n: 1 });
  });
});

describe("a connection of Kysely's", () => {
  const rowidOf = async (on: Kysely<Schema>): Promise<number> =>
    (await sql<{ id: number }>`select last_insert_rowid() as id`.execute(on)).rows[0]?.id as number;

  test('a connection of Kysely has its rowids, counts of changes, temp tables and PRAGMAs, whatever others write meanwhile', async (t) => {
    const { kysely } = await open(t);
    const others: Promise<unknown>[] = [];
    const write = (name: string): void => {
      others.push(kysely.insertInto('user').values({ name }).execute());
    };
    await kysely.connection().execute(async (c) => {
      const total = async (): Promise<number> =>
        (await sql<{ n: number }>`select total_changes() as n`.execute(c)).rows[0]?.n as number;
      const before = await total();
      write('first other');
      await sql`insert into user (id, name) values (41, 'a'), (42, 'b')`.execute(c);
      write('second other');
      assert.equal(await rowidOf(c), 42);
      assert.deepEqual((await sql`select changes() as n`.execute(c)).rows, [{ n: 2 }]);
      assert.equal((await total()) - before, 2);
      await sql`create temp table own (x)`.execute(c);
      await sql`insert into own values (1)`.execute(c);
      write('third other');
      assert.deepEqual((await sql`select x from own`.execute(c)).rows, [{ x: 1 }]);
      const rows: unknown[] = [];
      for await (const row of c.selectFrom('user').select('name').where('id', '<', 43).stream(1))
        rows.push(row.name);
      assert.deepEqual(rows, ['a', 'b']);
      await sql`pragma recursive_triggers = on`.execute(c);
      assert.deepEqual((await sql`pragma recursive_triggers`.execute(c)).rows, [{ recursive_triggers: 1 }]);
    });
    await Promise.all(others);
    assert.deepEqual(await names(kysely), ['a', 'b', 'first other', 'second other', 'third other']);
  });

  test('a connection of Kysely has transactions, savepoints and what they leave behind', async (t) => {
    const { kysely } = await open(t);
    await kysely.connection().execute(async (c) => {
      await c.transaction().execute(async (trx) => {
        await trx.insertInto('user').values({ id: 7, name: 'kept' }).execute();
      });
      const other = kysely.insertInto('user').values({ name: 'other' }).execute();
      assert.equal(await rowidOf(c), 7);
      const trx = await c.startTransaction().execute();
      await trx.insertInto('user').values({ name: 'undone' }).execute();
      const point = await trx.savepoint('point').execute();
      await point.insertInto('user').values({ name: 'undone too' }).execute();
      await point.rollbackToSavepoint('point').execute();
      await trx.rollback().execute();
      await assert.rejects(
        c.transaction().execute(async (inner) => {
          await inner.insertInto('user').values({ name: 'undone' }).execute();
          throw new Error('mine');
        }),
        /mine/,
      );
      await c.insertInto('user').values({ name: 'last' }).execute();
      void other.catch(() => undefined);
    });
    assert.deepEqual(new Set(await names(kysely)), new Set(['kept', 'last', 'other']));
  });

  test('a connection of Kysely is given back when its callback throws, after an error of SQL, and when a query is aborted', async (t) => {
    const { db, kysely } = await open(t);
    await assert.rejects(
      kysely.connection().execute(async (c) => {
        await sql`insert into user (name) values ('kept')`.execute(c);
        await assert.rejects(sql`insert into user (name) values ('kept')`.execute(c), {
          code: 'SQLITE_CONSTRAINT_UNIQUE',
        });
        assert.equal(db.stats().write.holder?.label, 'kysely');
        throw new Error('mine');
      }),
      /mine/,
    );
    assert.equal(db.stats().write.holder, undefined);
    const controller = new AbortController();
    await kysely.connection().execute(async (c) => {
      await c.insertInto('user').values({ name: 'first' }).execute({ signal: controller.signal });
      controller.abort();
      await assert.rejects(
        c.insertInto('user').values({ name: 'never' }).execute({ signal: controller.signal }),
        /abort/i,
      );
      await c.insertInto('user').values({ name: 'second' }).execute();
    });
    assert.equal(db.stats().write.holder, undefined);
    assert.deepEqual(await names(kysely), ['kept', 'first', 'second']);
  });

  test('a connection of Kysely that is aborted while it waits leaves the place to others', async (t) => {
    const { db, kysely } = await open(t);
    const held = await kysely.startTransaction().execute();
    const controller = new AbortController();
    const waiting = kysely
      .connection()
      .execute((c) => c.insertInto('user').values({ name: 'never' }).execute({ signal: controller.signal }));
    await new Promise((resolve) => setImmediate(resolve));
    controller.abort();
    await assert.rejects(waiting, /abort/i);
    await held.commit().execute();
    await kysely.insertInto('user').values({ name: 'later' }).execute();
    assert.deepEqual(await names(kysely), ['later']);
    assert.equal(db.stats().write.holder, undefined);
  });

  test('a connection of Kysely reads with the readers as long as it only reads, and holds nothing', async (t) => {
    const { db, kysely } = await open(t);
    await kysely.connection().execute(async (c) => {
      await names(c);
      assert.equal(db.stats().write.holder, undefined);
      await db.write.run(`INSERT INTO user (name) VALUES ('other')`);
      assert.deepEqual(await names(c), ['other']);
    });
  });
});
