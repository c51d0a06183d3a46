import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { NEEDS_ROOT, PROGRAM } from './command.ts';

/** A user whom no system knows. */
const STRANGER = 54_321;

/** Runs the command with this environment alone: without NODE_COMPILE_CACHE, it has to find its own cache folder. */
function run(folder: string, env: NodeJS.ProcessEnv, args: readonly string[], uid?: number): string {
  const { status, signal, stderr } = spawnSync(process.execPath, [PROGRAM, '-q', ...args], {
    cwd: folder,
    env,
    encoding: 'utf8',
    timeout: 60_000,
    ...(uid === undefined ? {} : { uid, gid: uid }),
  });
  assert.equal(signal, null, 'it never ended');
  return `${status} ${stderr}`;
}

function place(t: TestContext): string {
  const folder = tempDir(t);
  smallDatabase(join(folder, 'o.db'), { journalMode: 'delete', rows: 20 });
  return folder;
}

describe('the cache folder', () => {
  for (const value of ['/proc/no/such/folder', '/dev/null/folder']) {
    test(`a copy is made though no cache folder can be made in ${value}`, (t) => {
      const folder = place(t);
      assert.equal(run(folder, { XDG_CACHE_HOME: value }, ['o.db', 'r.db']), '0 ');
    });
  }

  test('a relative path in XDG_CACHE_HOME or HOME names no cache folder, since another user may have prepared it', (t) => {
    const folder = place(t);
    const env = { XDG_CACHE_HOME: 'cache', HOME: folder };
    assert.equal(run(folder, env, ['--lock-wait', '0', 'o.db', 'r.db']), '0 ');
    assert.ok(existsSync(join(folder, '.cache', 'sqlsync', 'jobs')));
    assert.equal(run(folder, { XDG_CACHE_HOME: join(folder, 'x'), HOME: 'home' }, ['o.db', 'r2.db']), '0 ');
    const names = readdirSync(folder).filter((name) => name === 'cache' || name === 'home');
    assert.deepEqual(names, []);
  });

  test(
    'a user whom the system does not know needs no HOME, but for --lock-wait',
    { skip: NEEDS_ROOT },
    (t) => {
      const folder = place(t);
      chmodSync(folder, 0o777);
      chmodSync(join(folder, 'o.db'), 0o666);
      assert.match(run(folder, {}, ['o.db', 'r.db'], STRANGER), /^0 /);
      assert.match(run(folder, {}, ['init', 'store'], STRANGER), /^0 /);
      assert.match(run(folder, {}, ['backup', 'o.db', 'store'], STRANGER), /^0 /);
      const locked = run(folder, {}, ['--lock-wait', '0', 'o.db', 'r.db'], STRANGER);
      assert.match(locked, /^2 .*does not know this user[^]*XDG_CACHE_HOME/);
    },
  );
});
