import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { writeServerFolder } from '../../src/release/server-folder.ts';
import { bindingRecipe, builtBindingPath } from '../../src/sqlite/binding-path.ts';
import { largeDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';

test('the folder for a server runs where there is no Node.js, wherever it lies and through links', (t) => {
  const folder = tempDir(t);
  const { key } = bindingRecipe();
  writeServerFolder(join(folder, 'made'), { node: process.execPath, binding: builtBindingPath(key), key });
  const place = join(folder, 'another place');
  renameSync(join(folder, 'made'), place);
  const packages = readdirSync(join(place, 'lib', 'node_modules'));
  for (const name of ['sqlsync-db', 'better-sqlite3', 'ssh2']) assert.ok(packages.includes(name), name);
  for (const name of ['typescript', 'node', 'node-addon-api']) assert.ok(!packages.includes(name), name);
  assert.ok(!existsSync(join(place, 'lib', 'node_modules', 'better-sqlite3', 'deps')));
  symlinkSync('another place/bin/sqlsync', join(folder, 'relative'));
  symlinkSync(join(folder, 'relative'), join(folder, 'linked'));
  largeDatabase(join(folder, 'a.db'), 1e5);
  const env = {
    PATH: toolsWithoutNode(folder),
    HOME: folder,
    NODE_OPTIONS: '--no-such-option',
    CDPATH: place,
  };
  const run = (...args: string[]): { status: number | null; stdout: string; stderr: string } =>
    spawnSync(join(folder, 'linked'), args, { cwd: folder, encoding: 'utf8', env });
  for (const args of [
    ['a.db', 'r.db'],
    ['init', 'store'],
    ['backup', 'a.db', 'store'],
    ['restore', 'store#latest', 'restored.db'],
  ]) {
    const { status, stderr } = run(...args);
    assert.equal(status, 0, stderr);
  }
  assertReplicaOf(join(folder, 'a.db'), join(folder, 'r.db'));
  assertReplicaOf(join(folder, 'a.db'), join(folder, 'restored.db'));
  assert.equal(run('no.db', 'r2.db').status, 3);
  // By a relative path, `cd` would find the folder of that name in CDPATH, and say so.
  for (const [program = '', ...args] of [['bin/sqlsync'], [join(env.PATH, 'sh'), 'bin/sqlsync']]) {
    const { status, stderr } = spawnSync(program, [...args, '--version'], {
      cwd: place,
      encoding: 'utf8',
      env,
    });
    assert.equal(status, 0, stderr);
  }
});

/** A folder with the three tools that the script uses. */
function toolsWithoutNode(folder: string): string {
  const tools = join(folder, 'tools');
  if (existsSync(tools)) return tools;
  mkdirSync(tools);
  for (const name of ['sh', 'readlink', 'dirname']) {
    const found = spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).stdout.trim();
    symlinkSync(found, join(tools, name));
  }
  return tools;
}
