import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { FilterRules } from '../../src/sync/folder/filter-rules.ts';
import { folderPattern } from '../../src/sync/folder/folder-pattern.ts';
import { isPlainPath, listDatabases } from '../../src/sync/folder/list-databases.ts';
import type { FolderList } from '../../src/sync/folder/list-databases.ts';
import { tempDir } from '../support/compare.ts';
import '../support/environment.ts';

const MAGIC = 'SQLite format 3\0';
const ALL = new FilterRules({});

/** Files that begin as databases do. */
function make(folder: string, ...names: readonly string[]): void {
  for (const name of names) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), MAGIC);
  }
}

/** Each omitted name, with `!` before one that may hide a database. */
function omitted(list: FolderList): string[] {
  return list.omitted.map(({ path, mayHide }) => `${mayHide ? '!' : ''}${path}`);
}

describe('the databases of a folder', () => {
  test('only files that begin as databases do are listed, whatever their names are', (t) => {
    const folder = tempDir(t);
    const names = ['-rf', '--delete.db', 'a\nb.db', '$(touch x).db', '.hidden', '数据库', 'sub/deep/c.db'];
    make(folder, ...names);
    writeFileSync(join(folder, 'text.db'), 'no database');
    writeFileSync(join(folder, 'empty.db'), '');
    const list = listDatabases(folder, ALL);
    assert.deepEqual([...list.databases].sort(), [...names].sort());
    assert.deepEqual(omitted(list), ['empty.db', '!text.db']);
  });

  test('a pattern means the same databases as its rules, below the folder before its first wildcard', (t) => {
    const folder = tempDir(t);
    make(folder, 'a.db', 'b.txt', 'app-1/x.db', 'app-1/y.db', 'app-2/sub/x.db', 'other/x.db');
    for (const [pattern, below, expected] of [
      ['*.db', '', ['a.db']],
      ['app-*/x.db', '', ['app-1/x.db']],
      ['app-*', '', ['app-1/x.db', 'app-1/y.db', 'app-2/sub/x.db']],
      ['app-[2-9]/', '', ['app-2/sub/x.db']],
      ['**/x.db', '', ['app-1/x.db', 'app-2/sub/x.db', 'other/x.db']],
      ['app-1/?.db', 'app-1', ['x.db', 'y.db']],
    ] as const) {
      const found = folderPattern(join(folder, pattern));
      assert.equal(found?.folder, join(folder, below), pattern);
      assert.deepEqual(
        listDatabases(found.folder, new FilterRules(found.rules)).databases,
        expected,
        pattern,
      );
    }
    assert.equal(folderPattern(folder), undefined);
    assert.deepEqual(
      ['*.db', '/*.db', 'x/*.db'].map((path) => folderPattern(path)?.folder),
      ['.', '/', 'x'],
    );
  });

  test('what lies beside a database is neither listed nor told of', (t) => {
    const folder = tempDir(t);
    make(folder, 'a.db', 'a.db-wal', 'a.db-shm', 'a.db-journal', '.a.db.sqlsync', '.a.db.sqlsync-part');
    assert.deepEqual(listDatabases(folder, ALL), { databases: ['a.db'], omitted: [] });
  });

  test('links that lead out, to themselves, or in a circle are told of and not followed', (t) => {
    const [folder, outside] = [tempDir(t), tempDir(t)];
    make(outside, 'secret.db');
    make(folder, 'sub/a.db');
    symlinkSync(outside, join(folder, 'out'));
    symlinkSync(join(outside, 'secret.db'), join(folder, 'secret.db'));
    symlinkSync('..', join(folder, 'sub', 'up'));
    symlinkSync('self', join(folder, 'self'));
    const list = listDatabases(folder, ALL);
    assert.deepEqual(list.databases, ['sub/a.db']);
    assert.deepEqual(omitted(list), ['out', 'secret.db', 'self', 'sub/up']);
    assert.deepEqual(
      listDatabases(join(folder, 'sub', 'up'), ALL).databases,
      ['sub/a.db'],
      'but the folder itself',
    );
  });

  test('names that are not UTF-8, and pipes, are told of', (t) => {
    const folder = tempDir(t);
    writeFileSync(Buffer.concat([Buffer.from(`${folder}/`), Buffer.from([0xff, 0x2e])]), MAGIC);
    assert.equal(spawnSync('mkfifo', [join(folder, 'pipe')]).status, 0);
    const list = listDatabases(folder, ALL);
    assert.deepEqual(list.databases, []);
    assert.deepEqual(
      list.omitted.map(({ why, mayHide }) => [why, mayHide]),
      [
        ['is no file', false],
        ['has a name that is not UTF-8', true],
      ],
    );
  });

  test('a folder that is none is refused', (t) => {
    const folder = tempDir(t);
    make(folder, 'a.db');
    for (const name of ['none', 'a.db'])
      assert.throws(() => listDatabases(join(folder, name), ALL), { code: 'ORIGIN_NOT_FOUND' });
  });

  test('excluded folders are not looked into', (t) => {
    const folder = tempDir(t);
    make(folder, 'a.db', 'cache/b.db', 'x/cache/c.db', 'x/d.db');
    const rules = new FilterRules({ exclude: ['cache/'] });
    assert.deepEqual(listDatabases(folder, rules).databases, ['a.db', 'x/d.db']);
  });
});

describe('patterns', () => {
  const cases: readonly [pattern: string, matches: readonly string[], others: readonly string[]][] = [
    ['*.db', ['a.db', 'x/y/a.db', '.db'], ['a.db/b', 'a.sqlite']],
    ['/a.db', ['a.db'], ['x/a.db']],
    ['x/*.db', ['x/a.db', 'y/x/a.db'], ['x/y/a.db', 'a.db']],
    ['/x/**', ['x/a', 'x/y/a'], ['x', 'y/x/a']],
    ['a?c', ['abc', 'x/a.c'], ['a/c', 'ac']],
    ['[a-c].db', ['a.db', 'x/c.db'], ['d.db', '-.db']],
    ['[!a-c].db', ['d.db'], ['a.db', 'x/.db']],
    ['a\\*', ['a*'], ['ab']],
    ['a.+(b)', ['a.+(b)'], ['aab']],
    ['[', ['['], ['a']],
    ['数*', ['数据库'], ['据']],
  ];
  for (const [pattern, matches, others] of cases) {
    test(`the pattern ${pattern} matches as in rsync`, () => {
      const rules = new FilterRules({ exclude: [pattern] });
      for (const path of matches) assert.equal(rules.includes(path, false), false, path);
      for (const path of others) assert.equal(rules.includes(path, false), true, path);
    });
  }

  test('what is included is not excluded', () => {
    const rules = new FilterRules({ include: ['*/', '/keep.db'], exclude: ['*'] });
    assert.deepEqual(
      [rules.includes('keep.db', false), rules.includes('a.db', false), rules.includes('x', true)],
      [true, false, true],
    );
  });

  test('patterns that are empty, too long or too many are refused', () => {
    for (const exclude of [
      [''],
      ['/'],
      ['a'.repeat(1001)],
      Array.from({ length: 1001 }, () => 'a'),
      ['[z-a]'],
    ])
      assert.throws(() => new FilterRules({ exclude }), { code: 'USAGE' });
  });
});

test('a path of a list leads to a place below its folder', () => {
  for (const path of ['a.db', 'x/y/-z', 'a\nb', '..a', '...']) assert.equal(isPlainPath(path), true, path);
  const hostile = [
    '',
    '/etc/passwd',
    '../a',
    'a/../../b',
    './a',
    'a//b',
    'a/',
    'a\0b',
    'a.db-wal',
    '.a.db.sqlsync',
    'x/a-JOURNAL',
    '\ud800',
  ];
  for (const path of hostile) assert.equal(isPlainPath(path), false, JSON.stringify(path));
});
