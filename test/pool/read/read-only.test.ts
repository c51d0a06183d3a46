import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import fc from 'fast-check';
import { openDatabase } from '../../../src/pool/database.ts';
import type { Database, ReadConnection } from '../../../src/pool/types.ts';
import { tempDir } from '../../support/compare.ts';

const STATEMENTS = [
  `INSERT INTO t VALUES (9, 'x')`,
  `INSERT INTO t VALUES (9, 'x') RETURNING id`,
  `UPDATE t SET name = 'x' RETURNING id`,
  `DELETE FROM t RETURNING id`,
  `REPLACE INTO t VALUES (1, 'x')`,
  `WITH n(i) AS (VALUES (9)) INSERT INTO t SELECT i, 'x' FROM n RETURNING id`,
  `/* SELECT */ INSERT INTO t VALUES (9, 'x')`,
  `-- SELECT\nINSERT INTO t VALUES (9, 'x')`,
  `;;INSERT INTO t VALUES (9, 'x')`,
  'CREATE TABLE u (a)',
  'CREATE TEMP TABLE u (a)',
  'CREATE TEMP VIEW u AS SELECT 1',
  'CREATE TEMP TRIGGER u AFTER INSERT ON t BEGIN SELECT 1; END',
  'DROP TABLE t',
  'ALTER TABLE t ADD COLUMN b',
  'ANALYZE',
  'REINDEX',
  'VACUUM',
  `VACUUM INTO '$OUT'`,
  `ATTACH '$OUT' AS other`,
  `ATTACH 'file:$OUT?mode=rwc' AS other`,
  `ATTACH ':memory:' AS other`,
  'DETACH main',
  'BEGIN',
  'BEGIN IMMEDIATE',
  'COMMIT',
  'END',
  'ROLLBACK',
  'SAVEPOINT s',
  'RELEASE s',
  'PRAGMA query_only = OFF',
  'pragma main.query_only(0)',
  'EXPLAIN PRAGMA query_only = OFF',
  'EXPLAIN QUERY PLAN PRAGMA query_only = OFF',
  '/**/ explain -- x\n query /* y */ plan pragma query_only = off',
  'PRAGMA /**/ query_only = OFF',
  'PRAGMA "query_only" = OFF',
  'PRAGMA user_version = 7',
  'PRAGMA application_id(7)',
  'PRAGMA journal_mode = DELETE',
  'PRAGMA main.journal_mode(DELETE)',
  'PRAGMA wal_checkpoint',
  'PRAGMA wal_checkpoint(TRUNCATE)',
  'PRAGMA incremental_vacuum',
  'PRAGMA optimize',
  'PRAGMA writable_schema = ON',
  'PRAGMA locking_mode = EXCLUSIVE',
  'PRAGMA busy_timeout = 60000',
  'PRAGMA shrink_memory',
  'PRAGMA cache_size = 1',
  'EXPLAIN INSERT INTO t VALUES (9, 1)',
];

const QUERIES = [
  'SELECT id FROM t',
  'VALUES (1)',
  'WITH n AS (SELECT 1 AS i) SELECT i FROM n',
  '  -- first\n /* then */ ; select 1',
  '\ufeffSELECT 1',
  'EXPLAIN QUERY PLAN SELECT * FROM t',
  'EXPLAIN SELECT * FROM t',
  'PRAGMA user_version',
  'EXPLAIN PRAGMA user_version',
  'PRAGMA journal_mode; -- asked, not set',
  'PRAGMA main.table_info(t)',
  `PRAGMA index_list = 't'`,
  'PRAGMA integrity_check',
  `SELECT * FROM pragma_table_info('t')`,
];

interface Fixture {
  readonly folder: string;
  readonly db: Database;
}

async function fixture(t: TestContext, options: { threads?: number } = {}): Promise<Fixture> {
  const folder = tempDir(t);
  const db = await openDatabase(join(folder, 'a.db'), { readers: 1, admission: 'none', ...options });
  await db.write.exec(`CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'one')`);
  return { folder, db };
}

/** Each way to run a statement on a connection that is meant to read only. */
const WAYS: Record<string, (db: Database, sql: string) => Promise<unknown>> = {
  all: (db, sql) => db.read.all(sql),
  get: (db, sql) => db.read.get(sql),
  iterate: (db, sql) => consume(db.read, sql),
  'all of a snapshot': (db, sql) => db.read.snapshot((r) => r.all(sql)),
  'get of a snapshot': (db, sql) => db.read.snapshot((r) => r.get(sql)),
  'iterate of a snapshot': (db, sql) => db.read.snapshot((r) => consume(r, sql)),
};

async function consume(connection: ReadConnection, sql: string): Promise<unknown[]> {
  const rows: unknown[] = [];
  for await (const row of connection.iterate(sql)) rows.push(row);
  return rows;
}

async function assertUntouched({ db, folder }: Fixture): Promise<void> {
  assert.deepEqual(await db.read.all('SELECT * FROM t'), [{ id: 1, name: 'one' }]);
  assert.deepEqual(await db.read.get('PRAGMA query_only'), { query_only: 1 });
  assert.equal((await db.read.all('PRAGMA database_list')).length, 1);
  assert.ok(!existsSync(join(folder, 'out.db')), 'another file was made');
  // A transaction that someone left open would still see the old version.
  await db.write.run('PRAGMA user_version = 3');
  assert.deepEqual(await db.read.get('PRAGMA user_version'), { user_version: 3 });
  await db.write.run('PRAGMA user_version = 0');
}

for (const threads of [0, 1]) {
  describe(`a connection that reads${threads === 0 ? '' : ' in a thread'}`, () => {
    for (const [way, query] of Object.entries(WAYS)) {
      test(`a connection that reads refuses each statement that writes or changes the connection, by ${way}`, async (t) => {
        const set = await fixture(t, { threads });
        for (const text of STATEMENTS) {
          const sql = text.replaceAll('$OUT', join(set.folder, 'out.db'));
          await assert.rejects(query(set.db, sql), { name: 'SqlsyncError', code: 'READ_ONLY' }, sql);
        }
        await assertUntouched(set);
        await set.db.close();
      });
    }

    test('a connection that reads answers each statement that only reads', async (t) => {
      const { db } = await fixture(t, { threads });
      for (const sql of QUERIES) {
        for (const query of Object.values(WAYS)) await assert.doesNotReject(query(db, sql), sql);
      }
      await db.close();
    });
  });
}

describe('a connection that reads', () => {
  let set: Fixture;
  let cleanUp: (() => void) | undefined;
  before(async () => {
    const context = { after: (fn: () => void) => (cleanUp = fn) } as unknown as TestContext;
    set = await fixture(context);
  });
  after(async () => {
    await set.db.close();
    cleanUp?.();
  });

  test('a connection that reads calls a wrong statement wrong, not forbidden', async () => {
    for (const sql of ['SELECT nothing FROM nowhere', 'selec 1', '(SELECT 1)', 'EXPLAIN selec 1']) {
      await assert.rejects(set.db.read.all(sql), { code: 'SQLITE_ERROR' }, sql);
    }
    await assert.rejects(set.db.read.all(''), RangeError);
  });

  test('a connection that reads refuses several statements in one text', async () => {
    await assert.rejects(set.db.read.all(`SELECT 1; DELETE FROM t`), /more than one statement/);
    await assertUntouched(set);
  });

  test('a connection that reads has no function that writes a file or loads an extension', async () => {
    for (const call of [
      `writefile('x', 'y')`,
      `load_extension('x')`,
      `edit('x')`,
      `fts3_tokenizer('x', x'00')`,
    ]) {
      await assert.rejects(set.db.read.all(`SELECT ${call}`), { code: /^SQLITE_/ }, call);
    }
  });

  test('a connection that reads stays as it is, with any text before, between and behind the words of a statement', async () => {
    const filler = fc.array(fc.constantFrom(' ', '\n', '\t', '/* ; */', '-- x\n', "/*'*/", ''), {
      maxLength: 3,
    });
    const words = fc.constantFrom(
      ['PRAGMA', 'query_only', '=', '0'],
      ['EXPLAIN', 'PRAGMA', 'query_only', '=', '0'],
      ['BEGIN'],
      ['ATTACH', `':memory:'`, 'AS', 'x'],
      ['DELETE', 'FROM', 't', 'RETURNING', 'id'],
    );
    await fc.assert(
      fc.asyncProperty(words, fc.array(filler, { minLength: 6, maxLength: 6 }), async (parts, fillers) => {
        const gap = (index: number): string => (fillers[index] ?? []).join('');
        const sql = gap(0) + parts.map((word, index) => word + (gap(index + 1) || ' ')).join('');
        await assert.rejects(set.db.read.all(sql));
        await assertUntouched(set);
      }),
      { numRuns: 100 },
    );
  });
});
