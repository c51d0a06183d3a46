import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { LockLooks } from '../../src/doctor/collect/lock-looks.ts';
import { sqliteLocks } from '../../src/sqlite/locks/sqlite-locks.ts';
import type { SqliteLock } from '../../src/sqlite/locks/sqlite-locks.ts';
import { NEEDS_ROOT, NOBODY } from '../cli/command.ts';
import { change } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { HOLDERS, LINUX } from './holders.ts';

const skip =
  LINUX === false && HOLDERS['python']?.skip !== false ? 'NOT TESTED: python3 is not installed' : LINUX;

/** A process that holds thousands of locks on a file of its own. */
async function manyLocks(t: TestContext): Promise<void> {
  const args = [join(import.meta.dirname, 'lock-keeper.py'), join(tempDir(t), 'other')];
  const keeper = spawn('python3', args, { stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => keeper.kill('SIGKILL'));
  await once(keeper.stdout, 'data');
}

function database(t: TestContext, mode: 'wal' | 'delete'): string {
  const path = join(tempDir(t), 'a.db');
  change(path, `PRAGMA journal_mode = ${mode}; CREATE TABLE t (x); INSERT INTO t VALUES (1), (2), (3)`);
  return path;
}

/** How often this process has opened the list of locks, from now on. */
function countLists(t: TestContext): () => number {
  const open = fs.openSync;
  let lists = 0;
  const counting: typeof fs.openSync = (path, ...rest) => {
    if (path === '/proc/locks') lists++;
    return open(path, ...rest);
  };
  fs.openSync = counting;
  syncBuiltinESMExports();
  t.after(() => {
    fs.openSync = open;
    syncBuiltinESMExports();
  });
  return () => lists;
}

function told(locks: readonly SqliteLock[]): string[] {
  return locks.map(({ pid, name, isExclusive }) => `${pid} ${name} ${isExclusive}`).toSorted();
}

describe('looks at locks beside 2,000 locks of others', { skip }, () => {
  for (const mode of ['wal', 'delete'] as const)
    test(`they find what the list has, and read it hardly ever (${mode})`, async (t) => {
      await manyLocks(t);
      const path = database(t, mode);
      const [one, two] = [new OtherProcess(t), new OtherProcess(t)];
      const writer = await one.open(path);
      await writer.exec('BEGIN IMMEDIATE; INSERT INTO t VALUES (4)');
      const lists = countLists(t);
      const looks = new LockLooks(path);
      const pids = [one.pid, two.pid];
      for (let n = 0; n < 3; n++) assert.deepEqual(told(looks.look(pids)), told(sqliteLocks(path)));
      const expectSame = (what: string): void => {
        const expected = told(sqliteLocks(path));
        const before = lists();
        assert.deepEqual(told(looks.look(pids)), expected, what);
        assert.ok(lists() - before <= 1, what);
      };
      expectSame('a writer');
      // One process opens the database again and again, by the same descriptors and by others.
      for (let n = 0; n < 3; n++) {
        const reader = await two.open(path);
        await reader.exec('BEGIN; SELECT x FROM t');
        expectSame('a reader beside it');
        const second = await two.open(path);
        await second.exec('BEGIN; SELECT x FROM t');
        expectSame('a second connection');
        await reader.call('close');
        expectSame('one of two is left');
        await second.call('close');
        expectSame('the reader has closed it');
      }
      await writer.exec('COMMIT');
      expectSame('no writer any more');
      await writer.call('close');
      expectSame('nobody has it open');
      const again = await one.open(path);
      await again.exec('BEGIN IMMEDIATE');
      expectSame('a writer again');
      const before = lists();
      for (let n = 0; n < 20; n++) assert.equal(looks.look(pids).length, told(sqliteLocks(path)).length);
      assert.ok(looks.longListMs === 0);
      assert.ok(lists() > before);
    });

  test('a process that comes later is found without the list', async (t) => {
    await manyLocks(t);
    const path = database(t, 'wal');
    const looks = new LockLooks(path);
    while (looks.look([]).length > 0 || looks.look([]).length > 0 || looks.look([]).length > 0);
    const lists = countLists(t);
    const other = new OtherProcess(t);
    await (await other.open(path)).exec('BEGIN IMMEDIATE');
    while (!looks.look([]).some(({ pid, name }) => pid === other.pid && name === 'WRITE')) await delay(20);
    assert.equal(lists(), 0);
  });

  test(
    'a writer whose process this user may not look into is found in the list',
    { skip: NEEDS_ROOT },
    async (t) => {
      await manyLocks(t);
      const path = database(t, 'wal');
      const other = new OtherProcess(t);
      await (await other.open(path)).exec('BEGIN IMMEDIATE');
      for (const suffix of ['', '-wal', '-shm']) fs.chmodSync(path + suffix, 0o666);
      fs.chmodSync(join(path, '..'), 0o777);
      const program = join(import.meta.dirname, 'lock-looks-child.ts');
      const { stdout, stderr } = spawnSync(process.execPath, [program, path, '10'], {
        ...NOBODY,
        encoding: 'utf8',
        env: {},
      });
      assert.equal(stderr, '');
      const { writers, longListMs } = JSON.parse(stdout) as { writers: number[][]; longListMs: number };
      assert.deepEqual(
        writers,
        Array.from({ length: 10 }, () => [other.pid]),
      );
      assert.ok(longListMs > 0);
    },
  );
});
