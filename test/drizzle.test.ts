import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { DrizzleQueryError, count, eq, relations, sql } from 'drizzle-orm';
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core';
import { drizzle, migrate } from '../src/drizzle.ts';
import type { SqlsyncDrizzle } from '../src/drizzle.ts';
import { openDatabase } from '../src/pool/database.ts';
import type { Database, DatabaseOptions } from '../src/pool/types.ts';
import { tempDir } from './support/compare.ts';

const user = sqliteTable('user', {
  id: integer().primaryKey(),
  name: text().notNull().unique(),
  active: integer({ mode: 'boolean' }).notNull().default(true),
  since: integer({ mode: 'timestamp' }),
});
const post = sqliteTable('post', {
  id: integer().primaryKey(),
  author: integer().references(() => user.id),
  title: text(),
});
const schema = {
  user,
  post,
  userRelations: relations(user, ({ many }) => ({ posts: many(post) })),
  postRelations: relations(post, ({ one }) => ({
    writer: one(user, { fields: [post.author], references: [user.id] }),
  })),
};

async function open(
  t: TestContext,
  threads = 0,
  options: DatabaseOptions = {},
): Promise<{ db: Database; orm: SqlsyncDrizzle<typeof schema> }> {
  const db = await openDatabase(':memory:', { threads, ...options });
  t.after(() => db.close());
  await db.write.exec(`
    CREATE TABLE user (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, active INTEGER NOT NULL DEFAULT 1, since INTEGER);
    CREATE TABLE post (id INTEGER PRIMARY KEY, author INTEGER REFERENCES user (id), title TEXT);
    INSERT INTO user (id, name) VALUES (1, 'Ada'), (2, 'Bo');
    INSERT INTO post VALUES (7, 2, 'first')`);
  return { db, orm: drizzle(db, { schema }) };
}

async function names(orm: Pick<SqlsyncDrizzle<typeof schema>, 'select'>): Promise<string[]> {
  return (await orm.select().from(user).orderBy(user.id)).map(({ name }) => name);
}

describe('Drizzle on the pools', () => {
  for (const threads of [0, 1]) {
    test(`Drizzle reads joins, aggregates and relations, with the types of its columns${threads > 0 ? ', from a thread' : ''}`, async (t) => {
      const { orm } = await open(t, threads);
      assert.deepEqual(await orm.select().from(user).innerJoin(post, eq(post.author, user.id)), [
        {
          user: { id: 2, name: 'Bo', active: true, since: null },
          post: { id: 7, author: 2, title: 'first' },
        },
      ]);
      assert.deepEqual(await orm.select({ n: count() }).from(user), [{ n: 2 }]);
      assert.equal(await orm.$count(user), 2);
      assert.deepEqual(await orm.query.user.findMany({ with: { posts: true }, columns: { name: true } }), [
        { name: 'Ada', posts: [] },
        { name: 'Bo', posts: [{ id: 7, author: 2, title: 'first' }] },
      ]);
      const found = await orm.query.post.findFirst({ with: { writer: true } });
      assert.equal(found?.writer?.name, 'Bo');
      assert.equal(await orm.query.user.findFirst({ where: eq(user.id, 9) }), undefined);
      assert.equal(await orm.select().from(user).where(eq(user.id, 9)).get(), undefined);
    });
  }

  test('Drizzle writes, tells what changed, and returns rows', async (t) => {
    const { db, orm } = await open(t);
    const since = new Date('2026-11-20T12:00:00Z');
    const { changes, lastInsertRowid } = await orm
      .insert(user)
      .values([{ name: 'Cy', active: false, since }, { name: 'Di' }]);
    assert.deepEqual([changes, lastInsertRowid], [2, 4]);
    assert.deepEqual(await orm.select().from(user).where(eq(user.name, 'Cy')), [
      { id: 3, name: 'Cy', active: false, since },
    ]);
    assert.deepEqual(
      await orm.delete(user).where(eq(user.id, 4)).returning({ id: user.id, again: user.id }),
      [{ id: 4, again: 4 }],
    );
    assert.deepEqual(await orm.update(user).set({ active: false }).run(), { changes: 3, lastInsertRowid: 4 });
    const insert = orm
      .insert(user)
      .values({ name: sql.placeholder('name') })
      .prepare();
    await insert.run({ name: 'Ed' });
    assert.deepEqual(await names(orm), ['Ada', 'Bo', 'Cy', 'Ed']);
    await assert.rejects(orm.insert(user).values({ name: 'Ed' }), (error: Error) => {
      assert.equal((error.cause as { code?: unknown }).code, 'SQLITE_CONSTRAINT_UNIQUE');
      return true;
    });
    assert.equal(db.stats().write.labels['drizzle']?.hold.count, 4);
  });

  test('Drizzle answers raw queries with objects, and values() with arrays', async (t) => {
    const { orm } = await open(t);
    assert.deepEqual(await orm.all(sql`select id, name from user where id = ${2}`), [{ id: 2, name: 'Bo' }]);
    assert.deepEqual(await orm.get(sql`select 1 as one`), { one: 1 });
    assert.equal(await orm.get(sql`select 1 as one where 0`), undefined);
    assert.deepEqual(await orm.values(sql`select id, id from user`), [
      [1, 1],
      [2, 2],
    ]);
    assert.equal((await orm.run(sql`delete from post`)).changes, 1);
    assert.equal((await orm.run(sql`select 1`)).changes, 0);
    assert.deepEqual(await orm.all(sql`insert into post (title) values ('x') returning title`), [
      { title: 'x' },
    ]);
  });

  test('Drizzle commits a transaction or rolls it back, with its savepoints, while others read the state before', async (t) => {
    const { db, orm } = await open(t);
    const result = await orm.transaction(async (tx) => {
      await tx.insert(user).values({ name: 'Cy' });
      await assert.rejects(
        tx.transaction(async (inner) => {
          await inner.insert(user).values({ name: 'Di' });
          assert.deepEqual(await names(inner), ['Ada', 'Bo', 'Cy', 'Di']);
          inner.rollback();
        }),
        { message: 'Rollback' },
      );
      await tx.transaction((inner) => inner.insert(user).values({ name: 'Ed' }));
      assert.deepEqual(await names(orm), ['Ada', 'Bo']);
      assert.equal((await tx.query.user.findMany()).length, 4);
      return 'done';
    });
    assert.equal(result, 'done');
    assert.deepEqual(await names(orm), ['Ada', 'Bo', 'Cy', 'Ed']);
    const error = new Error('mine');
    await assert.rejects(
      orm.transaction(async (tx) => {
        await tx.delete(post);
        throw error;
      }),
      (thrown) => thrown === error,
    );
    assert.equal(await orm.$count(post), 1);
    assert.equal(db.stats().write.holder, undefined);
  });

  test('Drizzle runs a batch in one transaction, and undoes all of it', async (t) => {
    const { db, orm } = await open(t);
    const before = db.stats().write.commits;
    const [inserted, rows, raw, one] = await orm.batch([
      orm.insert(user).values({ name: 'Cy' }),
      orm.select({ name: user.name }).from(user),
      orm.all(sql`select 1 as one`),
      orm.query.user.findFirst({ columns: { id: true } }),
    ]);
    assert.equal(inserted.changes, 1);
    assert.deepEqual([rows.length, raw, one], [3, [{ one: 1 }], { id: 1 }]);
    assert.equal(db.stats().write.commits, before + 1);
    await assert.rejects(
      orm.batch([orm.insert(user).values({ name: 'Di' }), orm.insert(user).values({ name: 'Cy' })]),
      (error: Error) => {
        assert.ok(error instanceof DrizzleQueryError);
        assert.equal((error.cause as { code?: unknown }).code, 'SQLITE_CONSTRAINT_UNIQUE');
        return true;
      },
    );
    assert.deepEqual(await names(orm), ['Ada', 'Bo', 'Cy']);
    const logged: string[] = [];
    const logging = drizzle(db, { logger: { logQuery: (query) => void logged.push(query) } });
    await logging.batch([logging.run(sql`select 1`), logging.run(sql`select 2`)]);
    assert.deepEqual(logged, ['select 1', 'select 2']);
  });

  test('Drizzle of another version is refused with the one to install', () => {
    const program = `import { registerHooks } from 'node:module';
      registerHooks({
        load: (url, context, next) => url.endsWith('/drizzle-orm/version.js')
          ? { format: 'module', shortCircuit: true, source: "export const npmVersion = '0.46.0', compatibilityVersion = 10;" }
          : next(url, context),
      });
      const { drizzle } = await import(${JSON.stringify(new URL('../src/drizzle.ts', import.meta.url))});
      try { drizzle({}); } catch ({ code, message, hint }) { console.log(code, message, hint); }`;
    const args = ['--input-type=module', '-e', program];
    const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    assert.match(
      stdout,
      /^USAGE drizzle-orm 0\.46\.0 is installed.* npm install drizzle-orm@0\.45\n$/,
      stderr,
    );
  });

  test('Drizzle reads with common table expressions while others write', async (t) => {
    const { db, orm } = await open(t);
    const ids = orm.$with('ids').as(orm.select({ id: user.id }).from(user));
    await db.write.transaction(async () => {
      assert.equal((await orm.with(ids).select().from(ids)).length, 2);
    });
  });

  test('Drizzle has numbers and dates also where integers are read as bigint, and refuses a deferred transaction', async (t) => {
    const { orm } = await open(t, 0, { safeIntegers: true });
    const since = new Date('2026-11-20T12:00:00Z');
    await orm.update(user).set({ since }).where(eq(user.id, 1));
    assert.deepEqual(await orm.select().from(user).where(eq(user.id, 1)), [
      { id: 1, name: 'Ada', active: true, since },
    ]);
    assert.equal(await orm.$count(user), 2);
    assert.deepEqual(await orm.values(sql`select 9007199254740993`), [[9007199254740993n]]);
    await assert.rejects(
      orm.transaction(() => Promise.resolve(), { behavior: 'deferred' }),
      { code: 'USAGE' },
    );
    await orm.transaction(() => Promise.resolve(), { behavior: 'immediate' });
  });

  test('Drizzle stays within the transaction, connection or snapshot that it is made for', async (t) => {
    const { db, orm } = await open(t);
    await db.write.transaction(async (tx) => {
      const own = drizzle(tx, { schema });
      await own.insert(user).values({ name: 'Cy' });
      assert.equal((await names(own)).length, 3);
      await own.transaction((inner) => inner.insert(user).values({ name: 'Di' }));
    });
    await db.write.connection(async (connection) => {
      const own = drizzle(connection);
      await own.run(sql`create temp table own as select 7 as x`);
      assert.deepEqual(await own.get(sql`select x from own`), { x: 7 });
      await own.transaction((tx) => tx.insert(user).values({ name: 'Ed' }));
      assert.deepEqual(await own.get(sql`select last_insert_rowid() as id`), { id: 5 });
    });
    await db.read.snapshot(async (r) => {
      const own = drizzle(r, { schema });
      await orm.delete(post);
      assert.equal(await own.$count(post), 1);
      await assert.rejects(
        own.transaction(() => Promise.resolve()),
        { code: 'USAGE' },
      );
      await assert.rejects(own.insert(user).values({ name: 'x' }), (error: Error) => {
        assert.equal((error.cause as { code?: unknown }).code, 'READ_ONLY');
        return true;
      });
    });
    assert.deepEqual(await names(orm), ['Ada', 'Bo', 'Cy', 'Di', 'Ed']);
  });

  test('a migration that builds a table anew keeps the rows that refer to it, and loses none silently', async (t) => {
    const { db, orm } = await open(t);
    const migrationsFolder = tempDir(t);
    const steps: string[] = [];
    const add = (...statements: string[]): Promise<void> => {
      steps.push(statements.join('\n--> statement-breakpoint\n'));
      writeMigrations(migrationsFolder, steps);
      return migrate(orm, { migrationsFolder });
    };
    await add(
      'CREATE TABLE author (id integer PRIMARY KEY, name text);',
      'CREATE TABLE book (id integer PRIMARY KEY, author integer REFERENCES author(id) ON DELETE CASCADE);',
      `INSERT INTO author VALUES (1, 'Ada'), (2, 'Bo');`,
      'INSERT INTO book VALUES (10, 1), (20, 2);',
    );
    // As drizzle-kit 0.31 writes it.
    const rebuild = (select: string): string[] => [
      'PRAGMA foreign_keys=OFF;',
      'CREATE TABLE `__new_author` (`id` integer PRIMARY KEY, `name` text NOT NULL);',
      `INSERT INTO \`__new_author\`("id", "name") SELECT "id", "name" FROM \`author\`${select};`,
      'DROP TABLE `author`;',
      'ALTER TABLE `__new_author` RENAME TO `author`;',
      'PRAGMA foreign_keys=ON;',
    ];
    await assert.rejects(
      add(...rebuild(' WHERE id = 1')),
      /1 rows of book refer to rows that author does not have/,
    );
    steps.pop();
    assert.deepEqual(await db.read.values('SELECT id FROM author'), [[1], [2]]);
    await add(...rebuild(''));
    assert.deepEqual(await db.read.values('SELECT id, author FROM book'), [
      [10, 1],
      [20, 2],
    ]);
    await assert.rejects(db.write.run('INSERT INTO author VALUES (3, NULL)'), {
      code: 'SQLITE_CONSTRAINT_NOTNULL',
    });
    await assert.rejects(db.write.run('INSERT INTO book VALUES (30, 9)'), {
      code: 'SQLITE_CONSTRAINT_FOREIGNKEY',
    });
    // Once it is there, later migrations have foreign keys on.
    await add('DELETE FROM author WHERE id = 2;');
    assert.deepEqual(await db.read.values('SELECT id FROM book'), [[10]]);
  });

  test("Drizzle's migrations run once each, and all or none", async (t) => {
    const { db, orm } = await open(t);
    const migrationsFolder = tempDir(t);
    const write = (...steps: string[]): void => writeMigrations(migrationsFolder, steps);
    const first = 'CREATE TABLE a (x);--> statement-breakpoint\nCREATE TABLE b (x);';
    write(first);
    await migrate(orm, { migrationsFolder });
    await migrate(orm, { migrationsFolder });
    write(first, 'CREATE TABLE c (x);--> statement-breakpoint\nCREATE TABLE a (x);');
    await assert.rejects(migrate(orm, { migrationsFolder }));
    write(first, 'CREATE TABLE c (x);');
    await migrate(orm, { migrationsFolder });
    const tables = await db.read.values(
      `SELECT name FROM sqlite_schema WHERE name IN ('a', 'b', 'c') ORDER BY 1`,
    );
    assert.deepEqual(tables.flat(), ['a', 'b', 'c']);
    // Two that begin together: the second finds what the first has done.
    write(first, 'CREATE TABLE c (x);', 'INSERT INTO c VALUES (1);');
    await Promise.all([migrate(orm, { migrationsFolder }), migrate(orm, { migrationsFolder })]);
    assert.deepEqual(await db.read.values('SELECT count(*) FROM c'), [[1]]);
  });
});

/** The files that drizzle-kit makes. */
function writeMigrations(folder: string, steps: readonly string[]): void {
  mkdirSync(join(folder, 'meta'), { recursive: true });
  const entries = steps.map((step, idx) => {
    writeFileSync(join(folder, `000${idx}.sql`), step);
    return { idx, version: '6', when: 1_790_000_000_000 + idx, tag: `000${idx}`, breakpoints: true };
  });
  const journal = { version: '7', dialect: 'sqlite', entries };
  writeFileSync(join(folder, 'meta', '_journal.json'), JSON.stringify(journal));
}
