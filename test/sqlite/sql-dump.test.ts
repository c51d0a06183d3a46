import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import Database from 'better-sqlite3';
import fc from 'fast-check';
import { dumpSql } from '../../src/sqlite/sql-dump.ts';
import { tempDir } from '../support/compare.ts';

/** All rows of all tables with the types of their values, by table. */
function contents(database: Database.Database): unknown {
  const tables = database
    .prepare(`SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name`)
    .pluck()
    .all();
  return (tables as string[]).map((name) => {
    const columns = database
      .prepare('SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1')
      .pluck()
      .all(name);
    const list = (columns as string[]).map((each) => `"${each.replaceAll('"', '""')}"`);
    const types = list.map((each) => `typeof(${each})`);
    return [
      name,
      database
        .prepare(`SELECT ${[...list, ...types].join(',')} FROM "${name.replaceAll('"', '""')}"`)
        .raw()
        .safeIntegers()
        .all(),
    ];
  });
}

function schema(database: Database.Database): unknown[] {
  return database.prepare('SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name').all();
}

/** The database that the statements of a dump make. */
function remade(path: string, tables: readonly string[] = []): Database.Database {
  const made = new Database(':memory:');
  made.unsafeMode(true);
  made.exec([...dumpSql(path, tables)].join('\n'));
  made.pragma('writable_schema = RESET');
  return made;
}

describe('a dump', () => {
  test('gives back every value with its type', (t) => {
    const path = join(tempDir(t), 'a.db');
    const origin = new Database(path);
    origin.exec('PRAGMA synchronous = OFF; CREATE TABLE t (id INTEGER PRIMARY KEY, v)');
    const value = fc.oneof(
      fc.constant(null),
      fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
      fc.double({ noNaN: true }),
      fc.constantFrom(0.1, -0, 1e300, 5e-324, Number.MAX_VALUE, Infinity, -Infinity, 2 ** 53, 1e21),
      fc.string().map((text) => text.toWellFormed()),
      fc.string({ unit: fc.constantFrom("'", '\0', '\n', '--', ';', '"', '\\', 'é', '🙂') }),
      fc.uint8Array().map((bytes) => Buffer.from(bytes)),
    );
    fc.assert(
      fc.property(fc.array(value, { maxLength: 30 }), (values) => {
        origin.exec('DELETE FROM t');
        for (const each of values) origin.prepare('INSERT INTO t (v) VALUES (?)').run(each);
        const made = remade(path);
        assert.deepEqual(contents(made), contents(origin));
        made.close();
      }),
      { numRuns: 60 },
    );
    origin.close();
  });

  test('gives back the schema: indexes, views, triggers, odd names, generated columns, virtual tables, numbers', (t) => {
    const path = join(tempDir(t), 'a.db');
    const origin = new Database(path);
    origin.exec(`
      PRAGMA user_version = 7; PRAGMA application_id = -3;
      CREATE TABLE "a ""quoted"" table" (id INTEGER PRIMARY KEY AUTOINCREMENT, "select" TEXT, twice AS (id * 2), kept INT AS (id + 1) STORED);
      INSERT INTO "a ""quoted"" table" ("select") VALUES ('x'), ('it''s');
      DELETE FROM "a ""quoted"" table" WHERE id = 2;
      CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO w VALUES ('k', 1);
      CREATE INDEX i ON w (v) WHERE v > 0;
      CREATE VIEW v AS SELECT * FROM w;
      CREATE TRIGGER g AFTER INSERT ON w BEGIN UPDATE w SET v = 99; END;
      CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f VALUES ('needle in hay');
      ANALYZE;
    `);
    const made = remade(path);
    assert.deepEqual(schema(made), schema(origin));
    assert.deepEqual(contents(made), contents(origin));
    assert.equal(made.pragma('user_version', { simple: true }), 7);
    assert.equal(made.pragma('application_id', { simple: true }), -3);
    assert.equal(made.prepare('SELECT count(*) FROM f WHERE f MATCH ?').pluck().get('needle'), 1);
    made.exec(`INSERT INTO "a ""quoted"" table" ("select") VALUES ('next')`);
    assert.equal(
      made.prepare('SELECT max(id) FROM "a ""quoted"" table"').pluck().get(),
      3,
      'ids are not used again',
    );
    assert.equal(made.pragma('integrity_check', { simple: true }), 'ok');
    made.close();
    origin.close();
  });

  test('of one table has its indexes and triggers, and nothing of others', (t) => {
    const path = join(tempDir(t), 'a.db');
    const origin = new Database(path);
    origin.exec('CREATE TABLE a (x); CREATE INDEX ia ON a (x); INSERT INTO a VALUES (1); CREATE TABLE b (x)');
    origin.close();
    const made = remade(path, ['a']);
    assert.deepEqual(made.prepare('SELECT name FROM sqlite_schema ORDER BY name').pluck().all(), ['a', 'ia']);
    made.close();
    assert.throws(() => [...dumpSql(path, ['c'])], { code: 'USAGE', hint: /It has a, b\./ });
  });
});
