import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { tryExclusiveLock } from '../../src/sqlite/locks/exclusive-lock.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';

const MODULE = pathToFileURL(join(import.meta.dirname, '../../src/sqlite/locks/exclusive-lock.ts')).href;

/** Takes the lock, and stops between SQLite's opening of the file and the second look at its name. */
const SLOW_TAKER = `
  import fs from 'node:fs';
  import { syncBuiltinESMExports } from 'node:module';
  const [path] = process.argv.slice(1);
  const stat = fs.lstatSync;
  let looks = 0;
  fs.lstatSync = (name, ...rest) => {
    if (name === path && looks++ === 1) {
      fs.writeFileSync(path + '.opened', '');
      while (!fs.existsSync(path + '.go')) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
    return stat(name, ...rest);
  };
  syncBuiltinESMExports();
  const { tryExclusiveLock } = await import(${JSON.stringify(MODULE)});
  process.stdout.write(tryExclusiveLock(path) === undefined ? 'busy' : 'taken');`;

test('a lock whose file was deleted and made again between opening and locking is not held twice', async (t) => {
  const path = join(tempDir(t), 'lock');
  writeFileSync(path, '');
  const slow = spawn(process.execPath, ['--input-type=module', '-e', SLOW_TAKER, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => slow.kill('SIGKILL'));
  let said = '';
  slow.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
  const ended = once(slow, 'close');
  while (!existsSync(`${path}.opened`)) {
    assert.equal(slow.exitCode, null, 'it never looked at the name');
    await delay(5);
  }
  // The former holder leaves, and the next one comes.
  rmSync(path);
  const next = await new OtherProcess(t).open(path);
  await next.exec('BEGIN EXCLUSIVE');
  writeFileSync(`${path}.go`, '');
  await ended;
  assert.equal(said, 'busy');
});

test('a lock is taken once, and leaves no file', (t) => {
  const folder = tempDir(t);
  const path = join(folder, 'lock');
  const first = tryExclusiveLock(path);
  assert.ok(first);
  assert.equal(tryExclusiveLock(path), undefined);
  first.release();
  assert.deepEqual(readdirSync(folder), []);
  const second = tryExclusiveLock(path);
  assert.ok(second);
  second.release();
  assert.deepEqual(readdirSync(folder), []);
});
