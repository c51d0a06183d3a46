import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { leadingKeywords, pragmaSettings } from '../../../src/pool/sql/sql-keywords.ts';

const CASES: readonly (readonly [string, readonly string[]])[] = [
  ['SELECT 1', ['SELECT']],
  ['  select 1 ;  commit ; ', ['SELECT', 'COMMIT']],
  [';;COMMIT', ['COMMIT']],
  ['-- a comment; BEGIN\nROLLBACK', ['ROLLBACK']],
  ['/* BEGIN; */ END', ['END']],
  ['/* not closed; BEGIN', []],
  [`INSERT INTO t VALUES ('; BEGIN', "; COMMIT", \`; END\`, [; ROLLBACK])`, ['INSERT']],
  [`SELECT 'it''s; BEGIN'; SAVEPOINT a`, ['SELECT', 'SAVEPOINT']],
  [`SELECT 'not closed; BEGIN`, ['SELECT']],
  ['SELECT CASE 1 WHEN 1 THEN 2 END; RELEASE a', ['SELECT', 'RELEASE']],
  ['(SELECT 1)', ['']],
  ['', []],
  ['SELECT :begin; SELECT @commit, $end, ?1', ['SELECT', 'SELECT']],
  ['SELECT 1;BEGIN', ['SELECT', 'BEGIN']],
  [
    'CREATE TRIGGER a AFTER INSERT ON t BEGIN UPDATE t SET x = CASE y WHEN 1 THEN 2 END; DELETE FROM u; END; COMMIT',
    ['CREATE', 'COMMIT'],
  ],
  ['CREATE TEMP TRIGGER a DELETE ON t BEGIN SELECT 1; END; SELECT 2', ['CREATE', 'SELECT']],
  ['create temporary trigger a delete on t begin select 1; end; rollback', ['CREATE', 'ROLLBACK']],
  ['CREATE TABLE trigger_log (x); BEGIN', ['CREATE', 'BEGIN']],
  ['CREATE TABLE "TRIGGER" (x); BEGIN', ['CREATE', 'BEGIN']],
  ['EXPLAIN BEGIN', ['EXPLAIN']],
  ['\ufeffbegin', ['BEGIN']],
  // A name to SQLite, and so no statement.
  ['\u00a0begin', ['']],
  // One variable, whose quote begins no text.
  [`SELECT $a('); COMMIT; --')`, ['SELECT', 'COMMIT']],
  [`SELECT @a::b('), #c('); END`, ['SELECT', 'END']],
  [`SELECT :a ('; END')`, ['SELECT']],
  ['SELECT 1e+5; END', ['SELECT', 'END']],
  [`SELECT x'00'; END`, ['SELECT', 'END']],
  ['SELECT a--;\n;END', ['SELECT', 'END']],
  ['SELECT 1/*/; END */', ['SELECT']],
];

describe('the first keyword of each statement', () => {
  for (const [sql, expected] of CASES) {
    test(`the first keyword of ${JSON.stringify(sql)} is ${expected.join(', ') || 'none'}`, () => {
      assert.deepEqual(leadingKeywords(sql), expected);
    });
  }

  test('the first keyword is found behind texts, names and comments of many megabytes', () => {
    const much = "''".repeat(10_000_000);
    for (const long of [`'${much}'`, `"${much}"`, `\`${much}\``, `[${much}]`, `/*${much}*/`, `--${much}\n`]) {
      assert.deepEqual(leadingKeywords(`SELECT ${long}; COMMIT`), ['SELECT', 'COMMIT'], long.slice(0, 3));
    }
  });
});

describe('the PRAGMAs that are given a value', () => {
  const found: [string, [string, string][]][] = [
    ['PRAGMA busy_timeout', []],
    ['PRAGMA busy_timeout = 9', [['busy_timeout', '9']]],
    ['PRAGMA busy_timeout=09000', [['busy_timeout', '09000']]],
    ['PRAGMA query_only(0x1)', [['query_only', '0x1']]],
    ['PRAGMA query_only = +1', [['query_only', '+ 1']]],
    ['PRAGMA query_only = 0.1e+2', [['query_only', '0.1e+2']]],
    ['PRAGMA query_only = -- x\n0/**/', [['query_only', '0']]],
    [`PRAGMA query_only = 'o''n'`, [['query_only', `'o' 'n'`]]],
    ['explain query plan pragma main . "Busy_Timeout" /**/ (9)', [['busy_timeout', '9']]],
    ['EXPLAIN PRAGMA [main].[busy_timeout] = 9', [['busy_timeout', '9']]],
    ["SELECT 1; PRAGMA journal_mode='WAL'; SELECT 1 = 2", [['journal_mode', 'WAL']]],
    [`SELECT $a('); PRAGMA query_only = 1; --')`, [['query_only', '1']]],
    [
      'PRAGMA a = 1; PRAGMA b(2); PRAGMA c',
      [
        ['a', '1'],
        ['b', '2'],
      ],
    ],
    ['SELECT pragma, busy_timeout = 9', []],
  ];
  for (const [sql, expected] of found) {
    test(`the PRAGMAs with a value in ${sql}`, () => {
      assert.deepEqual(
        pragmaSettings(sql).map(({ name, value }) => [name, value]),
        expected,
      );
    });
  }
});
