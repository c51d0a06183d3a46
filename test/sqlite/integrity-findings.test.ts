import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import Database from 'better-sqlite3';
import { openRaw } from '../../src/sqlite/binding.ts';
import { findIntegrityFaults } from '../../src/sqlite/integrity/integrity-findings.ts';
import type { IntegrityFindings } from '../../src/sqlite/integrity/integrity-findings.ts';
import { tempDir } from '../support/compare.ts';

/** A database of an application that has the function `norm` and the collation `uni`. */
const MAKE = `import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.create_function('norm', 1, lambda s: s, deterministic=True); c.create_collation('uni', lambda a, b: (a > b) - (a < b))
c.executescript(sys.argv[2])`;

const GOOD = `CREATE TABLE good (x); CREATE INDEX gi ON good (x); INSERT INTO good VALUES ('g');`;

function make(t: TestContext, sql: string): string {
  const path = join(tempDir(t), 'a.db');
  const made = spawnSync('python3', ['-c', MAKE, path, `PRAGMA synchronous = OFF; ${GOOD} ${sql}`], {
    encoding: 'utf8',
  });
  assert.deepEqual([made.status, made.stderr], [0, '']);
  return path;
}

function faults(path: string): IntegrityFindings {
  const database = openRaw(path, { readonly: true });
  try {
    return findIntegrityFaults(database);
  } finally {
    database.close();
  }
}

const ROWS = `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
  INSERT INTO t SELECT printf('%.900c', 'z') || i FROM n`;

/** Parts of an application's SQLite that this one lacks, and that `t` needs. */
const LACKS: Readonly<Record<string, { sql: string; says: RegExp }>> = {
  'a function in an index': {
    sql: 'CREATE TABLE t (x); CREATE INDEX i ON t (norm(x))',
    says: /^table t needs the function norm, .*; its pages were checked/,
  },
  'a function in the WHERE of an index': {
    sql: `CREATE TABLE t (x); CREATE INDEX i ON t (x) WHERE norm(x) > ''`,
    says: /^table t needs the function norm, /,
  },
  'a collation of a UNIQUE column': {
    sql: 'CREATE TABLE t (x TEXT COLLATE uni UNIQUE)',
    says: /^table t needs the collation uni, .*; its rows could be read/,
  },
  'a collation of an index': {
    sql: 'CREATE TABLE t (x); CREATE INDEX i ON t (x COLLATE uni)',
    says: /^table t needs the collation uni, /,
  },
  'a collation of the key of a table without rowid': {
    sql: 'CREATE TABLE t (x TEXT COLLATE uni PRIMARY KEY) WITHOUT ROWID',
    says: /^table t needs the collation uni, .*; it was not checked/,
  },
};

const HARMLESS = [
  'CREATE TABLE t (x CHECK (norm(x) NOT NULL))',
  'CREATE TABLE t (x, y AS (norm(x)))',
  'CREATE TABLE t (x, y AS (norm(x)) STORED)',
  'CREATE TABLE t (x TEXT COLLATE uni)',
  'CREATE TABLE t (x); CREATE VIEW v AS SELECT norm(x) FROM t',
  'CREATE TABLE t (x); CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT norm(x) FROM t; END',
];

describe('a check of a database that needs what this SQLite lacks', () => {
  for (const [name, { sql, says }] of Object.entries(LACKS)) {
    test(`a check of a database with ${name} finds no damage, and says what it could not check`, (t) => {
      const { findings, unchecked } = faults(make(t, `${sql}; ${ROWS}`));
      assert.deepEqual([findings, unchecked.length], [[], 1]);
      assert.match(unchecked[0] as string, says);
    });
  }

  test('a check that does not run the missing part finds nothing and says nothing', (t) => {
    for (const sql of HARMLESS) {
      const path = make(t, `${sql}; INSERT INTO t (x) VALUES ('a')`);
      assert.deepEqual(faults(path), { findings: [], unchecked: [] }, sql);
    }
  });

  test("a check without a missing part finds the damage of other tables, and of the table's own rows", (t) => {
    for (const sql of [LACKS['a function in an index']?.sql, LACKS['a collation of an index']?.sql]) {
      const path = make(
        t,
        `${sql}; ${ROWS}; CREATE TABLE other (x); CREATE INDEX oi ON other (x); INSERT INTO other VALUES (77777777)`,
      );
      const bytes = readFileSync(path);
      const database = new Database(path);
      const leaf = database
        .prepare(`SELECT pageno FROM dbstat WHERE name = 't' AND pagetype = 'leaf' LIMIT 1 OFFSET 9`)
        .pluck()
        .get() as number;
      database.close();
      bytes.fill(0xff, (leaf - 1) * 4096, leaf * 4096);
      bytes.writeUInt8(0x72, bytes.lastIndexOf(Buffer.from('04a2cb71', 'hex')) + 3);
      writeFileSync(path, bytes);
      const { findings, unchecked } = faults(path);
      assert.match(findings.join('\n'), /row 1 missing from index oi|values differ|out of order/);
      assert.match(findings.join('\n'), new RegExp(`[Pp]age ${leaf}|table t: .*malformed`));
      assert.equal(unchecked.length, 1);
    }
  });

  test('a check names missing tokenizers and modules', (t) => {
    const tampered = (stored: string): IntegrityFindings => {
      const module = /fts\d/.exec(stored)?.[0] ?? 'fts5';
      return faults(
        make(
          t,
          `CREATE VIRTUAL TABLE v USING ${module}(a); INSERT INTO v VALUES ('a');
        PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = '${stored}' WHERE name = 'v'`,
        ),
      );
    };
    for (const [stored, says] of [
      ['CREATE VIRTUAL TABLE v USING fts5(a, tokenize=mine)', /v.*the tokenizer mine/],
      ['CREATE VIRTUAL TABLE v USING fts4(a, tokenize=icu en)', /v.*the tokenizer icu/],
      ['CREATE VIRTUAL TABLE v USING vec0(a float[3])', /^table v needs the module vec0,/],
    ] as const) {
      const { findings, unchecked } = tampered(stored);
      assert.deepEqual([findings, unchecked.length], [[], 1], stored);
      assert.match(unchecked[0] as string, says);
    }
  });

  test('a check still takes a schema that cannot be parsed for damage', (t) => {
    const path = make(
      t,
      `CREATE TABLE t (x); PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE TABLE t (x ((' WHERE name = 't'`,
    );
    assert.match(faults(path).findings.join(), /malformed database schema/);
  });
});
