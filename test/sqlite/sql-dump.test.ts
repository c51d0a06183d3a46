import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import Database from 'better-sqlite3';
import fc from 'fast-check';
import { dumpSql } from '../../src/sqlite/dump/sql-dump.ts';
import type { DumpReport } from '../../src/sqlite/dump/sql-dump.ts';
import { tempDir } from '../support/compare.ts';

/** All rows of all tables with the types of their values, text as its bytes, and rowids; by table. Not the statistics of STAT4. */
function contents(database: Database.Database): unknown {
  const tables = database
    .prepare(
      `SELECT name, wr FROM pragma_table_list
       WHERE schema = 'main' AND type IN ('table', 'shadow') AND name NOT IN ('sqlite_schema', 'sqlite_stat4') ORDER BY name`,
    )
    .all() as { name: string; wr: number }[];
  return tables.map(({ name, wr }) => {
    const columns = database
      .prepare('SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1')
      .pluck()
      .all(name) as string[];
    const list = columns.map((each) => `t."${each.replaceAll('"', '""')}"`);
    if (wr === 0 && !name.startsWith('sqlite_')) list.unshift('t._rowid_');
    const values = list.flatMap((each) => [
      `typeof(${each})`,
      `CASE typeof(${each}) WHEN 'text' THEN CAST(${each} AS BLOB) ELSE ${each} END`,
    ]);
    const query = `SELECT ${values.join(',')} FROM "${name.replaceAll('"', '""')}" AS t NOT INDEXED`;
    return [name, database.prepare(query).raw().safeIntegers().all()];
  });
}

function schema(database: Database.Database): unknown[] {
  return database
    .prepare(
      `SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name <> 'sqlite_stat4' ORDER BY type, name`,
    )
    .all();
}

/** The statements of a dump that must leave nothing out. */
const COMPLETE: DumpReport = {
  onOmission: (omission) => assert.fail(`left out: ${omission}`),
  onRemark: (remark) => assert.fail(remark),
};

/** The database that the statements of a dump make. */
function remade(path: string, tables: readonly string[] = []): Database.Database {
  const made = new Database(':memory:');
  made.unsafeMode(true);
  made.exec([...dumpSql(path, tables, COMPLETE)].join('\n'));
  made.pragma('writable_schema = RESET');
  return made;
}

/** The same by the sqlite3 of this host, from a file of `lines`. */
function remadeByShell(path: string, lines: Iterable<string>): Database.Database {
  rmSync(path, { force: true });
  const input = [...lines, ''].join('\n');
  const { status, stderr } = spawnSync('sqlite3', ['-bail', path], { input, encoding: 'utf8' });
  assert.deepEqual([status, stderr], [0, '']);
  return new Database(path);
}

/** The text of these bytes in the encoding of the database, right or wrong. */
interface Raw {
  readonly bytes: Uint8Array;
}

const ODD = [
  "'",
  '"',
  '\0',
  '\n',
  '\r',
  '\r\n',
  '\\',
  '\\r',
  '\\0',
  '1;',
  '--',
  ';',
  '.quit',
  'é',
  '🙂',
  '\ufffe',
  '\uffff',
  '\ufeff',
];
const anyValue = fc.oneof(
  fc.constant(null),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  // SQLite before 3.46 does not read all of the others as they are written.
  fc
    .double({ noNaN: true, min: -1e200, max: 1e200 })
    .filter((value) => value === 0 || Math.abs(value) > 1e-200),
  fc.constantFrom(0.1, -0, Infinity, -Infinity, 2 ** 53, 1e21),
  fc.string({ unit: fc.constantFrom(...ODD) }),
  fc.uint8Array().map((bytes) => Buffer.from(bytes)),
  fc.uint8Array({ maxLength: 8 }).map((bytes): Raw => ({ bytes })),
  fc
    .constantFrom('61d8', 'd861', '3dd86100', '00feff', 'ed a0 bd'.replaceAll(' ', ''), 'fffe')
    .map((hex): Raw => ({
      bytes: Buffer.from(hex, 'hex'),
    })),
);

/** The parts of a database that a dump has to give back, each present or not. */
const PARTS = [
  'CREATE TABLE "a ""quoted"" \'table\'" ("select", "a b", [c"d]); CREATE INDEX cover ON "a ""quoted"" \'table\'" ("select", "a b", [c"d]); INSERT INTO "a ""quoted"" \'table\'" SELECT v, id, NULL FROM t;',
  'CREATE TABLE w (k PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO w SELECT DISTINCT v, typeof(v) FROM t WHERE v NOT NULL;',
  `CREATE TABLE gone (id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE TABLE auto (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
   DROP TABLE gone; INSERT INTO auto (v) SELECT v FROM t; DELETE FROM auto WHERE id > 1;`,
  'CREATE TABLE g (v, size AS (length(v)), kept INT AS (typeof(v)) STORED); INSERT INTO g (v) SELECT v FROM t; CREATE INDEX narrow ON g (v);',
  'CREATE TABLE sparse (v, rowid); INSERT INTO sparse (_rowid_, v) SELECT id * 3 - 7, v FROM t; CREATE INDEX s ON sparse (v, rowid);',
  'CREATE TABLE down (id INTEGER PRIMARY KEY DESC, v); INSERT INTO down SELECT -id, v FROM t;',
  'CREATE TABLE strict (v ANY, i INT) STRICT; INSERT INTO strict SELECT v, id FROM t;',
  'CREATE VIEW view AS SELECT v FROM t; CREATE TRIGGER trigger INSTEAD OF INSERT ON view BEGIN INSERT INTO t (v) VALUES (new.v); END;',
  "CREATE TRIGGER grow AFTER INSERT ON t BEGIN INSERT INTO t (v) SELECT 'grown' WHERE new.id < 0; END;",
  "CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f SELECT 'needle ' || id FROM t; CREATE VIRTUAL TABLE fv USING fts5vocab(f, row);",
  'CREATE VIRTUAL TABLE r USING rtree(id, x0, x1); INSERT INTO r SELECT id, id, id + 0.5 FROM t;',
  'CREATE INDEX expression ON t (typeof(v)) WHERE v NOT NULL; ANALYZE;',
  'PRAGMA user_version = 7; PRAGMA application_id = -3;',
];

/** Makes a new database at `path`. */
function build(
  path: string,
  encoding: string,
  parts: readonly string[],
  values: readonly unknown[],
): Database.Database {
  rmSync(path, { force: true });
  const origin = new Database(path);
  origin.exec(
    `PRAGMA encoding = '${encoding}'; PRAGMA synchronous = OFF; BEGIN; CREATE TABLE t (id INTEGER PRIMARY KEY, v)`,
  );
  for (const value of values) {
    const isRaw = typeof value === 'object' && value !== null && 'bytes' in value;
    const sql = `INSERT INTO t (v) VALUES (${isRaw ? 'CAST(? AS TEXT)' : '?'})`;
    origin.prepare(sql).run(isRaw ? (value as Raw).bytes : value);
  }
  for (const part of parts) origin.exec(part);
  origin.exec('COMMIT');
  return origin;
}

describe('a dump', () => {
  test('a dump gives the same database to the shell of SQLite, with any content', (t) => {
    const folder = tempDir(t);
    const encodings = fc.constantFrom('UTF-8', 'UTF-16le', 'UTF-16be');
    const values = fc.array(anyValue, { maxLength: 20 });
    fc.assert(
      fc.property(encodings, fc.subarray(PARTS), values, (encoding, parts, given) => {
        const path = join(folder, 'a.db');
        const origin = build(path, encoding, parts, given);
        const made = remadeByShell(join(folder, 'made.db'), dumpSql(path, [], COMPLETE));
        try {
          assert.deepEqual(schema(made), schema(origin));
          assert.deepEqual(contents(made), contents(origin));
          for (const name of ['encoding', 'user_version', 'application_id', 'integrity_check'])
            assert.deepEqual(made.pragma(name), origin.pragma(name), name);
          if (parts.some((part) => part.includes('fts5')) && given.length > 0)
            assert.equal(made.prepare(`SELECT rowid FROM f WHERE f MATCH 'needle' LIMIT 1`).pluck().get(), 1);
        } finally {
          made.close();
          origin.close();
        }
      }),
      { numRuns: 25 },
    );
  });

  test('a dump gives back every value with its type', (t) => {
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

  test('a dump gives back the schema: indexes, views, triggers, odd names, generated columns, virtual tables, numbers', (t) => {
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

  test('a dump of one table has its indexes and triggers, and nothing of others', (t) => {
    const path = join(tempDir(t), 'a.db');
    const origin = new Database(path);
    origin.exec('CREATE TABLE a (x); CREATE INDEX ia ON a (x); INSERT INTO a VALUES (1); CREATE TABLE b (x)');
    origin.close();
    const made = remade(path, ['a']);
    assert.deepEqual(made.prepare('SELECT name FROM sqlite_schema ORDER BY name').pluck().all(), ['a', 'ia']);
    made.close();
    assert.throws(() => [...dumpSql(path, ['c'], COMPLETE)], { code: 'USAGE', hint: /It has a, b\./ });
  });
});
