import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { SqlsyncError } from '../../src/errors.ts';
import { openDatabase } from '../../src/pool/database.ts';
import { assertRefused } from '../cli/command.ts';
import { HolderWatch } from '../../src/sqlite/locks/holder-watch.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { LINUX } from './holders.ts';

describe('an error about a lock', { skip: LINUX }, () => {
  test('BUSY of the command names the process that holds the lock', async (t) => {
    const folder = tempDir(t);
    const [origin, replica] = [join(folder, 'a.db'), join(folder, 'b.db')];
    smallDatabase(origin);
    smallDatabase(replica, { seed: 2 });
    const other = new OtherProcess(t);
    await (await other.open(replica)).exec('BEGIN IMMEDIATE');
    await assertRefused([origin, replica, '--overwrite', '--busy-timeout', '1'], {
      code: 'BUSY',
      status: 5,
      says: new RegExp(
        `: PID ${other.pid} \\(\`[^\`]*node.*\`\\) holds it, at each of \\d+ looks in \\d+ ms`,
      ),
    });
  });

  test('BUSY_TIMEOUT of a pool names the process that holds the lock', async (t) => {
    const path = join(tempDir(t), 'a.db');
    smallDatabase(path);
    const other = new OtherProcess(t);
    const holder = await other.open(path);
    const db = await openDatabase(path);
    t.after(() => db.close());
    await holder.exec('BEGIN IMMEDIATE');
    const refused = await db.write
      .run('CREATE TABLE w (x)', [], { deadlineMs: 600 })
      .catch((error: unknown) => error);
    assert.ok(refused instanceof SqlsyncError);
    assert.equal(refused.code, 'BUSY_TIMEOUT');
    assert.match(refused.message, new RegExp(`program holds: PID ${other.pid} \\(.*node.*\\) holds it`));
    await holder.exec('ROLLBACK');
    await db.write.run('CREATE TABLE w (x)');
  });

  test('two refusals with a commit between them are not one hold', async (t) => {
    const path = join(tempDir(t), 'a.db');
    smallDatabase(path);
    const other = new OtherProcess(t);
    const holder = await other.open(path);
    const db = await openDatabase(path);
    t.after(() => db.close());
    await db.write.run('CREATE TABLE w (x)');
    const refusedFor = async (): Promise<number> => {
      await holder.exec('BEGIN IMMEDIATE');
      const error: unknown = await db.write
        .run('INSERT INTO w VALUES (1)', [], { deadlineMs: 600 })
        .catch((thrown: unknown) => thrown);
      await holder.exec('ROLLBACK');
      assert.ok(error instanceof SqlsyncError);
      return Number(/looks in (\d+) ms/.exec(error.message)?.[1] ?? 0);
    };
    const began = performance.now();
    await refusedFor();
    await db.write.run('INSERT INTO w VALUES (2)');
    await delay(1500);
    const second = performance.now();
    const held = await refusedFor();
    assert.ok(held <= performance.now() - second, `${held} ms of ${performance.now() - began} ms`);
  });

  test('an error names the program that holds a lock, without the words that may be secret', async (t) => {
    const path = join(tempDir(t), 'a.db');
    smallDatabase(path);
    change(path, 'CREATE TABLE t (x)');
    const script = join(import.meta.dirname, 'pool-child.ts');
    const child = spawn(process.execPath, [script, path, 'secret-label', 'hold'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.after(() => child.kill('SIGKILL'));
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
    while (!said.includes('{}')) await delay(20);
    const watch = new HolderWatch(path);
    assert.match(
      watch.inWords() ?? '',
      new RegExp(`^PID ${child.pid} \\(\`node pool-child\\.ts\`\\) holds it`),
    );
    assert.doesNotMatch(watch.inWords() ?? '', /secret/);
  });

  test('BUSY_TIMEOUT of a pool says that another connection of its own process holds the lock', async (t) => {
    const path = join(tempDir(t), 'a.db');
    smallDatabase(path);
    const [db, second] = [await openDatabase(path), await openDatabase(path)];
    t.after(() => Promise.all([db.close(), second.close()]));
    await db.write.transaction(async (tx) => {
      await tx.run('CREATE TABLE w (x)');
      await assert.rejects(second.write.run('CREATE TABLE v (x)', [], { deadlineMs: 300 }), {
        code: 'BUSY_TIMEOUT',
        message: /: another connection of this process holds it/,
      });
    });
  });
});
