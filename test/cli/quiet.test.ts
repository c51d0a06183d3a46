import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { change, smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { sqlsync } from './command.ts';
import { here } from './store-here.ts';

/** Overwrites the last page, which is a leaf with rows. */
function damageLastPage(path: string): void {
  const bytes = readFileSync(path);
  bytes.fill(0xff, bytes.length - 4096);
  writeFileSync(path, bytes);
}

describe('with -q', () => {
  test('-q says the damage that --check finds', async (t) => {
    const folder = tempDir(t);
    const origin = join(folder, 'a.db');
    smallDatabase(origin, { rows: 500 });
    damageLastPage(origin);
    const { status, stdout, stderr } = await sqlsync(['-q', '--check', origin, join(folder, 'copy.db')]);
    assert.deepEqual([status, stdout], [1, '']);
    assert.match(stderr, /SQLite finds it damaged/);
  });

  test('-q says which database a backup left out', async (t) => {
    const { folder } = await here(t);
    writeFileSync(join(folder, 'b.db'), Buffer.alloc(4096, 0xff));
    const { status, stdout, stderr } = await sqlsync(['backup', '-q', '*.db', 'store'], { cwd: folder });
    assert.equal(stdout, '');
    assert.notEqual(status, null);
    assert.match(stderr, /b\.db/);
  });

  test('-q says which databases differ in verify, and nothing of equal ones', async (t) => {
    const folder = tempDir(t);
    const [a, b] = [join(folder, 'a.db'), join(folder, 'b.db')];
    smallDatabase(a);
    await sqlsync(['-q', a, b]);
    assert.deepEqual(await sqlsync(['verify', '-q', a, b]), {
      status: 0,
      signal: null,
      stdout: '',
      stderr: '',
    });
    change(a, 'CREATE TABLE more (x)');
    const { status, stdout, stderr } = await sqlsync(['verify', '-q', a, b]);
    assert.deepEqual([status, stdout], [1, '']);
    assert.match(stderr, /a\.db and .*b\.db differ in \d+ pages?\n$/);
  });

  test('-q says that metrics or a ping were asked for and not done', async (t) => {
    const folder = tempDir(t);
    const a = join(folder, 'a.db');
    smallDatabase(a);
    const metrics = join(folder, 'none', 'a.prom');
    const { status, stderr } = await sqlsync(['-q', a, join(folder, 'b.db'), '--metrics-file', metrics]);
    assert.equal(status, 0, stderr);
    assert.match(stderr, /warning: The metrics could not be written/);
  });

  test('-q does not say how a run goes', async (t) => {
    const folder = tempDir(t);
    const a = join(folder, 'a.db');
    smallDatabase(a, { journalMode: 'delete' });
    const run = await sqlsync(['-q', a, join(folder, 'b.db')]);
    assert.deepEqual(run, { status: 0, signal: null, stdout: '', stderr: '' });
    assert.match((await sqlsync([a, join(folder, 'b.db')])).stderr, /rollback mode/);
    rmSync(a);
  });
});
