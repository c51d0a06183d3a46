import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import fc from 'fast-check';
import { keepPoolPragmas } from '../../../src/pool/sql/pool-pragmas.ts';
import type { Database } from '../../../src/pool/types.ts';
import type { PoolConnection } from '../../../src/sqlite/pool-connection.ts';
import { openWriteConnection } from '../../../src/sqlite/pool-connection.ts';
import { tempDir } from '../../support/compare.ts';
import { openTemporary, valuesOf } from '../open.ts';

const KEPT = {
  busy_timeout: 0,
  foreign_keys: 1,
  journal_mode: 'wal',
  locking_mode: 'normal',
  query_only: 0,
  synchronous: 1,
};

/** Values that SQLite takes for another setting than the pools have, in all the ways to write them. */
const SETTINGS = [
  ...['9', '09000', '+9', '0x9', '9.5', '9e0', `'9'`, '"9"', '[9]', '`9`'].map(
    (value) => `busy_timeout = ${value}`,
  ),
  ...[
    '0',
    '00',
    '+0',
    '-0',
    '0x0',
    '256',
    '0.0',
    'off',
    'no',
    'false',
    `'off'`,
    '"OFF"',
    'nonsense',
    `'o''n'`,
  ].map((value) => `foreign_keys = ${value}`),
  ...['1', '01', '0x1', '+1', '-1', '257', 'on', 'yes', 'TRUE', `'on'`].map(
    (value) => `query_only = ${value}`,
  ),
  ...['delete', 'DELETE', `'truncate'`, 'off', 'memory', 'persist'].map((value) => `journal_mode = ${value}`),
  ...['exclusive', '"exclusive"'].map((value) => `locking_mode = ${value}`),
  ...['off', '0', '00', '0x0', '4', '-1'].map((value) => `synchronous = ${value}`),
];

/** The ways to write the same statement. */
const FORMS: readonly ((setting: string) => string)[] = [
  (setting) => `PRAGMA ${setting}`,
  (setting) => `pragma main.${setting};`,
  (setting) => `PRAGMA ${setting.replace(' = ', '(')})`,
  (setting) =>
    `/* x */ PRAGMA -- y\n main /**/ . ${setting.replace(/^\w+/, '"$&"').replace('=', '/* = 0 */=')}`,
  (setting) => `EXPLAIN PRAGMA ${setting}`,
  (setting) => `explain query plan PRAGMA ${setting}`,
  (setting) => `;;PRAGMA\t${setting}`,
];

async function assertKept(db: Database): Promise<void> {
  for (const [name, value] of Object.entries(KEPT)) {
    assert.deepEqual(Object.values((await db.write.get(`PRAGMA ${name}`)) ?? {}), [value], name);
  }
}

const WAYS: Record<string, (db: Database, sql: string) => Promise<unknown>> = {
  run: (db, sql) => db.write.run(sql),
  all: (db, sql) => db.write.all(sql),
  get: (db, sql) => db.write.get(sql),
  values: (db, sql) => db.write.values(sql),
  execute: (db, sql) => db.write.execute(sql),
  exec: (db, sql) => db.write.exec(sql),
  'exec of several': (db, sql) => db.write.exec(`INSERT INTO t (x) VALUES ('not kept'); ${sql}`),
  'a transaction': (db, sql) => db.write.transaction((tx) => tx.run(sql)),
  'an iteration': (db, sql) =>
    db.write.transaction(async (tx) => {
      for await (const row of tx.iterate(sql)) assert.ok(row);
    }),
};

describe('a PRAGMA that would take from the pools what they rely on', () => {
  for (const [way, run] of Object.entries(WAYS)) {
    test(`a PRAGMA against the settings of the pools is refused by ${way}, in every spelling of its value`, async (t) => {
      const db = await openTemporary(t);
      for (const setting of SETTINGS) {
        for (const form of FORMS) {
          const sql = form(setting);
          await assert.rejects(run(db, sql), { name: 'SqlsyncError', code: 'USAGE' }, sql);
        }
      }
      await assertKept(db);
      assert.deepEqual(await valuesOf(db), []);
    });
  }

  test('a PRAGMA is allowed with the value that the pools have, and with a safer one', async (t) => {
    const db = await openTemporary(t);
    for (const setting of [
      'busy_timeout = 0',
      'foreign_keys = ON',
      `foreign_keys('yes')`,
      'journal_mode = WAL',
      'locking_mode = normal',
      'query_only = off',
      'synchronous = FULL',
      'synchronous = 3',
      'synchronous = normal',
    ]) {
      await db.write.run(`PRAGMA ${setting}`);
    }
    await assertKept(db);
    await db.write.exec('PRAGMA user_version = 0x7; PRAGMA cache_size(-4000)');
    assert.deepEqual(await db.write.get('PRAGMA user_version'), { user_version: 7 });
    assert.deepEqual(await db.write.get('PRAGMA cache_size'), { cache_size: -4000 });
  });

  test('a PRAGMA that only asks has its usual results, also through table-valued functions', async (t) => {
    const db = await openTemporary(t);
    await db.write.run(`INSERT INTO t (x) VALUES ('PRAGMA query_only = 1')`);
    assert.deepEqual(await db.write.all(`SELECT name FROM pragma_table_info('t')`), [
      { name: 'id' },
      { name: 'x' },
    ]);
    assert.deepEqual(await db.write.get('SELECT * FROM pragma_query_only'), { query_only: 0 });
    const seen: unknown[] = [];
    await db.write.transaction(async (tx) => {
      for await (const row of tx.iterate('SELECT 1 AS n UNION ALL SELECT 2')) {
        seen.push(row, await tx.all(`PRAGMA table_info('none')`));
      }
    });
    assert.deepEqual(seen, [{ n: 1 }, [], { n: 2 }, []]);
  });

  test('a PRAGMA with any text before, between and behind its words changes no setting of the pools', async (t) => {
    const db = await openTemporary(t);
    const filler = fc.constantFrom('', ' ', '\n', '\t', '\f', '/* = 0 */', '-- on\n', "/*'*/", `/*/ ; */`);
    const words = fc.constantFrom(
      ...['busy_timeout', 'foreign_keys', 'query_only', 'synchronous', 'locking_mode'].flatMap((name) =>
        ['0', '1', '00', '0x1', '09', '+1', '1.0', 'on', 'off', `'1'`, '"0"', 'exclusive', '1e1'].map(
          (value) => [name, value],
        ),
      ),
    );
    await fc.assert(
      fc.asyncProperty(
        words,
        fc.array(filler, { minLength: 6, maxLength: 6 }),
        async ([name, value], gaps) => {
          const sql = `${gaps[0]}PRAGMA ${gaps[1]}${name}${gaps[2]}=${gaps[3]}${value}${gaps[4]};${gaps[5]}`;
          await db.write
            .run(sql)
            .catch((error: { code: string }) => assert.match(error.code, /^(USAGE|SQLITE_ERROR)$/, sql));
          await db.write.run('PRAGMA synchronous = NORMAL');
          await assertKept(db);
        },
      ),
      { numRuns: 150 },
    );
  });
});

describe('SQL that ends or begins a transaction', () => {
  test('SQL that ends or begins a transaction is refused also where a variable hides it from a search by quotes', async (t) => {
    const db = await openTemporary(t);
    for (const hidden of ['COMMIT', 'ROLLBACK', 'SAVEPOINT x', 'PRAGMA query_only = 1']) {
      const sql = `SELECT $a('); ${hidden}; --')`;
      await assert.rejects(db.write.exec(sql), { code: /^(TRANSACTION_CONTROL|USAGE)$/ }, sql);
      await assert.rejects(
        db.write.transaction(async (tx) => {
          await tx.run(`INSERT INTO t (x) VALUES ('not kept')`);
          await tx.exec(sql);
        }),
        { code: /^(TRANSACTION_CONTROL|USAGE)$/ },
        sql,
      );
    }
    assert.deepEqual(await valuesOf(db), []);
    await assertKept(db);
  });
});

/** Changes that the text does not show: the pool asks SQLite itself. */
describe('a statement that changed a PRAGMA unseen', () => {
  const open = (t: TestContext): PoolConnection => {
    const path = join(tempDir(t), 'a.db');
    const connection = openWriteConnection(path, {
      create: true,
      safeIntegers: false,
      journalSizeLimitBytes: 0,
    });
    t.after(() => connection.close());
    return connection;
  };
  const stateOf = (connection: PoolConnection): Record<string, unknown> =>
    Object.fromEntries(Object.keys(KEPT).map((name) => [name, connection.pragma(name, { simple: true })]));

  for (const setting of [
    'busy_timeout = 9',
    'foreign_keys = 0',
    'query_only = 1',
    'journal_mode = delete',
    'locking_mode = exclusive',
    'synchronous = 0',
  ]) {
    test(`a hidden change of a setting is undone and reported: ${setting}`, (t) => {
      const connection = open(t);
      const name = setting.split(' ')[0] as string;
      const refused = { code: 'USAGE', message: new RegExp(`PRAGMA ${name}`) };
      assert.throws(() => keepPoolPragmas(connection, () => connection.exec(`PRAGMA ${setting}`)), refused);
      assert.deepEqual(stateOf(connection), KEPT);
      const failing = (): unknown => connection.exec(`PRAGMA ${setting}; SELECT nothing`);
      assert.throws(
        () => keepPoolPragmas(connection, failing),
        (error: { code: string; cause: { code: string } }) =>
          error.code === 'USAGE' && error.cause.code === 'SQLITE_ERROR',
      );
      assert.deepEqual(stateOf(connection), KEPT);
    });
  }

  test('the search for hidden changes keeps results, errors and safer values', (t) => {
    const connection = open(t);
    assert.equal(
      keepPoolPragmas(connection, () => 7),
      7,
    );
    assert.throws(() => keepPoolPragmas(connection, () => connection.exec('SELECT nothing')), {
      code: 'SQLITE_ERROR',
    });
    keepPoolPragmas(connection, () => connection.exec('PRAGMA synchronous = FULL'));
    assert.deepEqual(stateOf(connection), { ...KEPT, synchronous: 2 });
  });
});
