import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import Database from 'better-sqlite3';
import { dumpSql } from '../../src/sqlite/dump/sql-dump.ts';
import { tempDir } from '../support/compare.ts';

/** Reads a script as drivers do, from a file that is opened as text. */
const EXECUTE_SCRIPTS = `import sqlite3, sys
for i in range(int(sys.argv[1])):
    c = sqlite3.connect(f'{i}.driver', isolation_level=None); c.execute('pragma synchronous=off'); c.executescript(open(f'{i}.sql', encoding='utf-8').read()); c.close()`;

interface Dumped {
  readonly sql: string;
  readonly omissions: readonly string[];
  readonly remarks: readonly string[];
}

function dump(path: string, tables: readonly string[] = [], pieceBytes?: number): Dumped {
  const omissions: string[] = [];
  const remarks: string[] = [];
  const report = {
    onOmission: (omission: string) => omissions.push(omission),
    onRemark: (remark: string) => remarks.push(remark),
  };
  const lines = dumpSql(path, tables, report, pieceBytes);
  return { sql: `${[...lines].join('\n')}\n`, omissions, remarks };
}

/**
 * The databases that the shell of this host and a driver make of each dump, in a folder that must hold
 * nothing else afterwards.
 */
function readBack(t: TestContext, ...dumps: readonly string[]): Database.Database[] {
  const folder = tempDir(t);
  const expected: string[] = [];
  for (const [index, sql] of dumps.entries()) {
    writeFileSync(join(folder, `${index}.sql`), sql);
    const input = sql;
    const shell = spawnSync('sqlite3', ['-bail', '-cmd', 'PRAGMA synchronous=OFF', `${index}.shell`], {
      input,
      encoding: 'utf8',
      cwd: folder,
    });
    assert.deepEqual([shell.status, shell.stderr, shell.stdout], [0, '', ''], sql.slice(0, 10_000));
    expected.push(`${index}.sql`, `${index}.shell`, `${index}.driver`);
  }
  const driver = spawnSync('python3', ['-c', EXECUTE_SCRIPTS, `${dumps.length}`], {
    encoding: 'utf8',
    cwd: folder,
  });
  assert.deepEqual([driver.status, driver.stderr], [0, '']);
  assert.deepEqual(readdirSync(folder).sort(), expected.sort(), 'the dump ran nothing');
  return expected
    .filter((name) => !name.endsWith('.sql'))
    .map((name) => {
      const database = new Database(join(folder, name));
      t.after(() => database.close());
      return database;
    });
}

/** A database whose schema entry `name` has the SQL `stored` instead of its own. */
function tampered(t: TestContext, setUp: string, name: string, stored: string | Buffer): string {
  const path = join(tempDir(t), 'a.db');
  const database = new Database(path);
  database.unsafeMode(true);
  database.exec(setUp);
  database.pragma('writable_schema = ON');
  const update = `UPDATE sqlite_schema SET sql = ${typeof stored === 'string' ? '?' : 'CAST(? AS TEXT)'} WHERE name = ?`;
  assert.equal(database.prepare(update).run(stored, name).changes, 1);
  database.close();
  return path;
}

const SET_UP = `CREATE TABLE good (x); INSERT INTO good VALUES ('precious');
  CREATE TABLE t (a); INSERT INTO t VALUES (1); CREATE INDEX i ON t (a); CREATE VIEW v AS SELECT a FROM t;
  CREATE TRIGGER g AFTER DELETE ON t BEGIN SELECT 1; END; `;

/** Texts that a schema may have after the statement, and that SQLite does not see. */
const TAILS = [
  ';\n.shell touch PWNED\n',
  ';.shell touch PWNED\n',
  ';\r\n.shell touch PWNED\r\n',
  ';\n#\n.shell touch PWNED\n',
  ';\nDROP TABLE good;\n',
  "; ATTACH 'PWNED' AS p; CREATE TABLE p.x (y);",
  '\0;\n.shell touch PWNED\n',
  ' -- the words',
  ' -- the words\n',
  ' --',
  ' /* not closed',
  ' /* not closed\n.shell touch PWNED\n',
  ' /* closed */',
  ' /* of\n.shell touch PWNED\ntwo lines */ -- and one',
  " --\r;ATTACH 'PWNED' AS p; --",
  ';;;\n/\ngo\n',
];

const STATEMENTS: Readonly<Record<string, string>> = {
  t: 'CREATE TABLE t(a)',
  i: 'CREATE INDEX i ON t(a)',
  v: 'CREATE VIEW v AS SELECT a FROM t',
  g: 'CREATE TRIGGER g AFTER DELETE ON t BEGIN SELECT 1; END',
};

/** SQL in a table's entry that is no statement that creates the table. */
const WRONG = [
  "ATTACH 'PWNED' AS p",
  'CREATE TABLE other(a)',
  'CREATE TEMP TABLE t(a)',
  'CREATE TABLE main.t(a)',
  'CREATE TABLE t AS SELECT 1 AS a',
  'CREATE VIEW t AS SELECT 1',
  'CREATE TABLE t(a ((',
  "CREATE TABLE t(a DEFAULT 'not closed)",
  'CREATE TABLE "t\n.shell touch PWNED\n"(a)',
  '.shell touch PWNED',
  'CREATE TABLE t(a) -- ;\n.shell touch PWNED',
  'create',
  '',
];

describe('a dump of a hostile schema', () => {
  test('a dump has one statement of each entry, whatever follows it, and is read back by the shell and a driver', (t) => {
    for (const made of readBack(
      t,
      ...Object.entries(STATEMENTS).flatMap(([name, statement]) =>
        TAILS.map((tail) => {
          const { sql, omissions } = dump(tampered(t, SET_UP, name, `${statement}${tail}`));
          assert.deepEqual(omissions, [], tail);
          return sql;
        }),
      ),
    )) {
      const names = made.prepare('SELECT name FROM sqlite_schema ORDER BY name').pluck().all();
      assert.deepEqual(names, ['g', 'good', 'i', 't', 'v']);
      assert.equal(made.prepare('SELECT x FROM good').pluck().get(), 'precious');
      assert.equal(made.prepare('SELECT a FROM t').pluck().get(), 1);
    }
  });

  test('a dump keeps the comments that SQLite stores with a statement', (t) => {
    const path = join(tempDir(t), 'a.db');
    const database = new Database(path);
    for (const sql of ['CREATE TABLE t (a) STRICT', 'CREATE VIEW v AS SELECT 1'])
      database.prepare(`${sql.replace('(a)', '(a ANY)')} -- the "words`).run();
    database.close();
    for (const made of readBack(t, dump(path).sql)) {
      const stored = made.prepare('SELECT sql FROM sqlite_schema').pluck().all();
      assert.deepEqual(stored, [
        'CREATE TABLE t (a ANY) STRICT -- the "words\n',
        'CREATE VIEW v AS SELECT 1 -- the "words',
      ]);
    }
  });

  test('a dump leaves out an entry whose SQL does not create it, says so, and has all others', (t) => {
    const dumps = WRONG.map((stored) => {
      const { sql, omissions } = dump(tampered(t, SET_UP, 't', stored));
      assert.equal(omissions.length, 1, `${stored}: ${omissions.join()}`);
      assert.match(omissions[0] as string, /^table t: /);
      assert.match(sql, /^-- Left out: table t: /m);
      return sql;
    });
    for (const made of readBack(t, ...dumps)) {
      const names = made.prepare('SELECT name FROM sqlite_schema ORDER BY name').pluck().all();
      assert.deepEqual(names, ['good', 'v']);
      assert.equal(made.prepare('SELECT x FROM good').pluck().get(), 'precious');
    }
  });

  test('a dump says which text after a statement it leaves out', (t) => {
    const { sql, omissions, remarks } = dump(
      tampered(t, SET_UP, 't', 'CREATE TABLE t(a);\n.shell touch PWNED'),
    );
    assert.deepEqual([omissions.length, remarks.length], [0, 1]);
    assert.match(remarks[0] as string, /^table t: more text follows its SQL/);
    assert.match(sql, /^-- table t: more text follows/m);
  });

  test('a dump is whole if lines within a statement mean something to readers of lines', (t) => {
    const path = join(tempDir(t), 'a.db');
    const database = new Database(path);
    database.exec(`
      CREATE TABLE "x\n.shell touch PWNED\n" ("a\n.shell touch PWNED\n", [b\n/\n], \`c\ngo\n\`, 'd\n;\n.quit\n');
      INSERT INTO "x\n.shell touch PWNED\n" VALUES ('\n.shell touch PWNED\n', ';\n/\n', '\r\ngo\r\n.quit\r', '\u2028.quit\u2029');
      CREATE TABLE d (a DEFAULT '\n.shell touch PWNED\n', b DEFAULT 'x\r\ny', c DEFAULT ';
.shell touch PWNED', e CHECK (e
/
2 > 0), f DEFAULT 'ends in \\');
      INSERT INTO d (e) VALUES (9);
      CREATE VIEW w AS SELECT e
/
e -- a comment
/
3 AS q, e AS
go
FROM d;
      CREATE VIEW nine AS SELECT t\n.x FROM (SELECT 5 AS x) AS t /* of\n.shell touch PWNED\nlines */ WHERE 1 -- \r .quit
;
      CREATE TRIGGER \v k AFTER INSERT ON d BEGIN
        SELECT 1;
        SELECT '
.shell touch PWNED
'; SELECT CASE WHEN 1 THEN 2 END;
      END;`);
    const expected = contentOf(database);
    database.close();
    const { sql, omissions } = dump(path);
    assert.deepEqual(omissions, []);
    for (const made of readBack(t, sql)) {
      assert.deepEqual(contentOf(made), expected);
      made.exec(`INSERT INTO d (e) VALUES (4)`);
      const [row] = made.prepare('SELECT b, f FROM d WHERE e = 4').raw().all();
      assert.deepEqual(row, ['x\r\ny', 'ends in \\']);
    }
  });

  test('a dump leaves out a name that SQL cannot have, and a name that the shell would change', (t) => {
    const latin1 = Buffer.from('CREATE TABLE t("caf\xe9")', 'latin1');
    assert.match(dump(tampered(t, SET_UP, 't', latin1)).omissions.join(), /^table t: .*not valid UTF-8$/);
    const windows = dump(tampered(t, SET_UP, 't', 'CREATE TABLE t("a\r\nb")'));
    assert.match(windows.omissions.join(), /^table t: .*line break of Windows/);
    const comment = dump(
      tampered(t, SET_UP, 't', Buffer.from('CREATE TABLE t(a /* caf\xe9 */) -- \xe9', 'latin1')),
    );
    assert.deepEqual(comment.omissions, []);
    for (const made of readBack(t, comment.sql))
      assert.equal(made.prepare('SELECT a FROM t').pluck().get(), 1);
  });

  test('a dump gives back rows that break a CHECK of their table', (t) => {
    const path = join(tempDir(t), 'a.db');
    const database = new Database(path);
    database.exec(
      `PRAGMA ignore_check_constraints = ON; CREATE TABLE t (a CHECK (a > 5)); INSERT INTO t VALUES (1)`,
    );
    database.close();
    for (const made of readBack(t, dump(path).sql)) {
      assert.equal(made.prepare('SELECT a FROM t').pluck().get(), 1);
      assert.throws(() => made.exec('INSERT INTO t VALUES (2)'), /CHECK/);
    }
  });
});

/** All readable rows of all tables and views. */
function contentOf(database: Database.Database): unknown {
  const names = database
    .prepare(`SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') ORDER BY name`)
    .pluck()
    .all() as string[];
  return names.map((name) => [name, database.prepare(`SELECT * FROM "${name.replaceAll('"', '""')}"`).all()]);
}

describe('a dump of a damaged database', () => {
  test('a dump of a damaged database has all rows but those of the damaged pages, in a table with rowids', (t) => {
    const path = join(tempDir(t), 'a.db');
    const database = new Database(path);
    database.exec(`CREATE TABLE good (x); INSERT INTO good VALUES ('precious'); CREATE TABLE big (id INTEGER PRIMARY KEY, x);
      WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
      INSERT INTO big SELECT i, printf('%.900c', 'z') FROM n; CREATE INDEX bx ON big (x);
      CREATE TABLE w (k PRIMARY KEY, x) WITHOUT ROWID; INSERT INTO w SELECT id, x FROM big`);
    const leaves = database
      .prepare(`SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path`)
      .pluck();
    const pages = ['big', 'w'].map((name) => leaves.all(name)[20] as number);
    database.close();
    const bytes = readFileSync(path);
    for (const page of pages) bytes.fill(0xff, (page - 1) * 4096, page * 4096);
    writeFileSync(path, bytes);
    const { sql, omissions } = dump(path);
    assert.match(
      omissions.join('\n'),
      /^table big: its rows after rowid \d+ and before rowid \d+: .*malformed/m,
    );
    assert.match(omissions.join('\n'), /^table w: its rows after the first \d+: .*malformed/m);
    for (const made of readBack(t, sql)) {
      assert.equal(made.prepare('SELECT x FROM good').pluck().get(), 'precious');
      const kept = made.prepare('SELECT count(*) FROM big').pluck().get() as number;
      assert.ok(kept >= 395 && kept < 400, `${kept}`);
      assert.ok((made.prepare('SELECT count(*) FROM w').pluck().get() as number) > 60);
    }
  });

  test('a dump of a database that lost only the schema of page 1 throws no INTERNAL error', (t) => {
    const path = join(tempDir(t), 'a.db');
    const database = new Database(path);
    database.exec('CREATE TABLE good (x); INSERT INTO good VALUES (1)');
    database.close();
    const bytes = readFileSync(path);
    bytes.fill(0xff, 100, 4096);
    writeFileSync(path, bytes);
    const { omissions } = dump(path);
    assert.match(omissions.join(), /^the schema: its entries after the first 0: .*malformed/);
    bytes.fill(0xff, 0, 100);
    writeFileSync(path, bytes);
    assert.throws(() => dump(path), { code: 'ORIGIN_UNREADABLE' });
  });
});

describe('a dump of objects that need a missing collation, function or module', () => {
  /** Made by a program that has the collation and the function. */
  const MAKE = `import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.create_function('norm', 1, lambda s: s, deterministic=True); c.create_collation('uni', lambda a, b: (a > b) - (a < b))
c.executescript("""create table good(x); insert into good values('precious');
create table f(x, y as (norm(x)) stored, z as (norm(x)), check(norm(x) is not null)); insert into f values('fx'); create index fi on f(norm(x)) where norm(x) > 'a';
create table c(x text collate uni unique); insert into c values('cx');
create table w(k text collate uni primary key) without rowid; insert into w values('wk');
create view v as select norm(x) from good; create trigger g after insert on good begin select norm(x) from good; end;""")`;

  test('a dump says what each object lacks here, and has all rows that can be read', (t) => {
    const folder = tempDir(t);
    const path = join(folder, 'a.db');
    const made = spawnSync('python3', ['-c', MAKE, path], { encoding: 'utf8' });
    assert.deepEqual([made.status, made.stderr], [0, '']);
    const { sql, omissions, remarks } = dump(path);
    assert.match(omissions.join('\n'), /^table w: its rows/);
    assert.equal(omissions.length, 1);
    for (const expected of [
      /^table f: .*the function norm,/m,
      /^index fi: .*the function norm,/m,
      /^table c: .*the collation uni,/m,
      /^table w: .*the collation uni,/m,
    ])
      assert.match(remarks.join('\n'), expected);
    assert.match(sql, /INSERT INTO "f"\("x"\) VALUES\('fx'\);/);
    assert.match(sql, /INSERT INTO "c" VALUES\('cx'\);/);
    const back = join(folder, 'back.db');
    spawnSync('sqlite3', [back], { input: sql });
    assert.equal(new Database(back).prepare('SELECT x FROM good').pluck().get(), 'precious');
  });
});

describe('a dump of a single table', () => {
  const VIRTUAL = `CREATE TABLE f_other (x); CREATE TABLE docs (body); INSERT INTO docs VALUES ('needle');
    CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f VALUES ('needle in hay');
    CREATE VIRTUAL TABLE f_r USING rtree(id, x0, x1); INSERT INTO f_r VALUES (1, 2, 3);`;

  test('a dump of a virtual table has the tables of its content, and works when it is put back', (t) => {
    const path = join(tempDir(t), 'a.db');
    const database = new Database(path);
    database.exec(VIRTUAL);
    database.close();
    const { sql, omissions } = dump(path, ['f']);
    assert.deepEqual(omissions, []);
    for (const made of readBack(t, sql)) {
      assert.deepEqual(made.prepare(`SELECT body FROM f WHERE f MATCH 'needle'`).pluck().all(), [
        'needle in hay',
      ]);
      const names = made
        .prepare(`SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name`)
        .pluck()
        .all();
      assert.deepEqual(names, ['f', 'f_config', 'f_content', 'f_data', 'f_docsize', 'f_idx']);
      made.exec(`INSERT INTO f VALUES ('another needle')`);
      assert.equal(made.pragma('integrity_check', { simple: true }), 'ok');
    }
    for (const made of readBack(t, dump(path, ['f_r']).sql))
      assert.deepEqual(made.prepare('SELECT x1 FROM f_r WHERE x0 < 5').pluck().all(), [3]);
  });

  test('a dump of a virtual table whose module is missing has the tables whose names begin with its own', (t) => {
    const path = tampered(t, VIRTUAL, 'f', 'CREATE VIRTUAL TABLE f USING "vec0"(body, x?, $y)');
    const { sql, omissions } = dump(path, ['f']);
    assert.deepEqual(omissions, []);
    assert.match(sql, /CREATE TABLE 'f_content'/);
    assert.doesNotMatch(sql, /f_r_node/, 'the tables of another virtual table');
    readBack(t, sql);
  });

  test('a dump of a virtual table leaves a database that has the table already as it is', (t) => {
    const folder = tempDir(t);
    const path = join(folder, 'a.db');
    const database = new Database(path);
    database.exec(VIRTUAL);
    database.close();
    const { sql } = dump(path, ['f']);
    spawnSync('sqlite3', [path], { input: sql });
    const after = new Database(path);
    assert.deepEqual(after.prepare(`SELECT body FROM f WHERE f MATCH 'needle'`).pluck().all(), [
      'needle in hay',
    ]);
    after.close();
  });
});

describe('a dump of large values', () => {
  test('a dump puts large values together from pieces', (t) => {
    const dumps: string[] = [];
    const digest = `SELECT id, typeof(n), hex(n), typeof(v), hex(CAST(v AS BLOB)) FROM t UNION ALL
      SELECT k, typeof(v), hex(CAST(v AS BLOB)), 0, 0 FROM w ORDER BY 1, 2`;
    const expected: unknown[] = [];
    for (const encoding of ['UTF-8', 'UTF-16le']) {
      const path = join(tempDir(t), 'a.db');
      const database = new Database(path);
      database.exec(`PRAGMA encoding = '${encoding}'; PRAGMA journal_mode = OFF;
        CREATE TABLE t (id INTEGER PRIMARY KEY, n NUMERIC, v); CREATE TABLE w (k PRIMARY KEY, v) WITHOUT ROWID;
        INSERT INTO t VALUES (1, 1, 'before'), (2, printf('%.7000c', '7'), x'00ff'), (3, 'after', NULL);
        INSERT INTO w VALUES (11, 'small'), (12, randomblob(3601)), (13, CAST(x'ff00' || randomblob(3500) AS TEXT)), (14, 'ab')`);
      const rows = database.prepare(digest).raw().all();
      expected.push(rows, rows);
      database.close();
      const { sql, omissions } = dump(path, [], 1024);
      assert.deepEqual(omissions, []);
      assert.match(sql, /UPDATE temp\.sqlsync_pieces/);
      dumps.push(sql);
    }
    assert.deepEqual(
      readBack(t, ...dumps).map((made) => made.prepare(digest).raw().all()),
      expected,
    );
  });
});
