import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isReaderQuery } from '../../../src/pool/sql/reader-query.ts';

test('a query is one for a reader by its verb, behind comments and common table expressions', () => {
  for (const sql of [
    ' SELECT 1',
    '/* route=users */ select 1',
    '-- insert into\nselect 1',
    'WITH a AS (SELECT 1), b (x) AS MATERIALIZED (SELECT * FROM a) SELECT * FROM b',
    'with recursive "update" as (select 1) select * from "update"',
  ])
    assert.equal(isReaderQuery(sql), true, sql);
  for (const sql of [
    'INSERT INTO t SELECT 1',
    '/* select */ DELETE FROM t',
    'WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a',
    `WITH a AS (SELECT ') SELECT 1' AS x) UPDATE t SET x = 1`,
    'WITH a AS (SELECT last_insert_rowid()) SELECT * FROM a',
    'PRAGMA user_version',
    'WITH',
    '',
  ])
    assert.equal(isReaderQuery(sql), false, sql);
});
