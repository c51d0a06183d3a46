import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { matchNames } from '../../src/cli/store/name-pattern.ts';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { NEEDS_ROOT, NOBODY, sqlsync } from './command.ts';
import { here, listed } from './store-here.ts';

test('a pattern matches names as a shell does', (t) => {
  const folder = tempDir(t);
  mkdirSync(join(folder, 'a', 'b'), { recursive: true });
  mkdirSync(join(folder, '.h'));
  for (const name of ['.x.db', 'y.db', 'q[1].db', 'B.DB', 'é.db', 'a/z.db', 'a/b/w.db', '.h/q.db'])
    writeFileSync(join(folder, name), '');
  const matched = (pattern: string): string[] =>
    matchNames(`${folder}/${pattern}`).paths.map((path) => path.slice(folder.length + 1));
  for (const [pattern, expected] of [
    ['*.db', ['q[1].db', 'y.db', 'é.db']],
    ['./*.db', ['q[1].db', 'y.db', 'é.db']],
    ['?.db', ['y.db', 'é.db']],
    ['**/*.db', ['a/b/w.db', 'a/z.db', 'q[1].db', 'y.db', 'é.db']],
    ['*/*.db', ['a/z.db']],
    ['{y,a/z}*.db', ['a/z.db', 'y.db']],
    ['q[[]1].db', ['q[1].db']],
    ['q\\[1].?b', ['q[1].db']],
    ['[!q]*.db', ['y.db', 'é.db']],
    ['[[:alpha:]].db', ['y.db', 'é.db']],
    ['[x-z].db', ['y.db']],
    ['.*.db', ['.x.db']],
    ['*.none', []],
  ] as const)
    assert.deepEqual(matched(pattern), expected, pattern);
  assert.throws(() => matched('[z-a]'), { code: 'USAGE' });
});

describe('a backup by pattern', () => {
  test('a backup by pattern names a link that leads nowhere or in a circle, and backs up the others with status 21', async (t) => {
    const at = await here(t);
    const { folder } = at;
    symlinkSync('/mnt/away/tenant.db', join(folder, 'tenant.db'));
    symlinkSync('circle.db', join(folder, 'circle.db'));
    symlinkSync(join(folder, 'a.db'), join(folder, 'linked.db'));
    const { status, stderr } = await sqlsync(['backup', '-q', '*.db', 'store'], { cwd: folder });
    assert.equal(status, 21, stderr);
    assert.match(stderr, /tenant\.db is a link that leads nowhere .*\[ORIGIN_NOT_FOUND\]/);
    assert.match(stderr, /circle\.db is a link that leads nowhere/);
    assert.match(stderr, /\[BACKUP_PARTIAL\]/);
    assert.ok((await listed(at)).length >= 2);
  });

  test('a backup by pattern names a file name that is no UTF-8', async (t) => {
    const { folder } = await here(t);
    execFileSync('sh', ['-c', `cp a.db "caf$(printf '\\351').db"`], { cwd: folder });
    const { status, stderr } = await sqlsync(['backup', '-q', '*.db', 'store'], { cwd: folder });
    assert.equal(status, 21, stderr);
    assert.match(stderr, /caf\ufffd\.db has a name that is not UTF-8/);
  });

  test('a backup by pattern names a database that has lost its header since the last backup', async (t) => {
    const { folder, run } = await here(t);
    await run('backup', '*.db', 'store');
    writeFileSync(join(folder, 'b.db'), Buffer.alloc(8192, 0xff));
    const { status, stderr } = await sqlsync(['backup', '-q', '*.db', 'store'], { cwd: folder });
    assert.equal(status, 21, stderr);
    assert.match(stderr, /b\.db was a database at its last backup.*\[ORIGIN_NOT_A_DATABASE\]/);
  });

  test('a backup by pattern names a link to a folder that is not mounted, in the middle of the pattern', async (t) => {
    const { folder } = await here(t);
    mkdirSync(join(folder, 'x', 'ok'), { recursive: true });
    copyFileSync(join(folder, 'a.db'), join(folder, 'x', 'ok', 'app.db'));
    symlinkSync('/mnt/away', join(folder, 'x', 'gone'));
    for (const pattern of ['x/*/app.db', 'x/*/*.db']) {
      const { status, stderr } = await sqlsync(['backup', '-q', pattern, 'store'], { cwd: folder });
      assert.equal(status, 21, stderr);
      assert.match(stderr, /x\/gone is a link that leads nowhere .*\[ORIGIN_NOT_FOUND\]/s);
    }
  });

  test('a backup by pattern names a file that should be a database and is none, also at its first backup', async (t) => {
    const { folder } = await here(t);
    writeFileSync(join(folder, 'broken.db'), Buffer.alloc(8192, 0xff));
    writeFileSync(join(folder, 'notes.txt'), 'no database, and none is expected');
    const { status, stderr } = await sqlsync(['backup', '-q', '*', 'store'], { cwd: folder });
    assert.equal(status, 21, stderr);
    assert.match(stderr, /broken\.db is no database, though its name .*\[ORIGIN_NOT_A_DATABASE\]/);
    assert.match(stderr, /notes\.txt matches \*, but is no database/);
    assert.doesNotMatch(stderr, /notes\.txt.*\[/);
  });

  test('a backup by pattern takes folders, pipes and the files beside a database for no databases', async (t) => {
    const { folder } = await here(t);
    mkdirSync(join(folder, 'folder.db'));
    execFileSync('mkfifo', [join(folder, 'pipe.db')]);
    writeFileSync(join(folder, 'gone.db-wal'), '');
    const { status, stderr } = await sqlsync(['backup', '-q', '*.db*', 'store'], { cwd: folder });
    assert.deepEqual([status, stderr], [0, '']);
  });

  test('a backup by pattern names a folder that may not be entered', { skip: NEEDS_ROOT }, async (t) => {
    const folder = tempDir(t);
    chmodSync(folder, 0o777);
    for (const name of ['a', 'b']) mkdirSync(join(folder, 'srv', name), { recursive: true });
    smallDatabase(join(folder, 'srv/a/app.db'), { journalMode: 'delete' });
    copyFileSync(join(folder, 'srv/a/app.db'), join(folder, 'srv/b/app.db'));
    chmodSync(join(folder, 'srv/b'), 0o700);
    const as = { cwd: folder, user: NOBODY, env: { HOME: folder, XDG_CACHE_HOME: folder } };
    assert.equal((await sqlsync(['init', 'store'], as)).status, 0);
    for (const pattern of ['srv/*/app.db', 'srv/*/*.db', 'srv/**/app.db']) {
      const { status, stderr } = await sqlsync(['backup', '-q', pattern, 'store'], as);
      assert.equal(status, 21, `${pattern}: ${stderr}`);
      assert.match(stderr, /srv\/b\S* cannot be looked at \(EACCES\) \[ORIGIN_PERMISSION\]/);
    }
  });
});
