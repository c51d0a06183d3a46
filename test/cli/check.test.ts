import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { maskedPages, tempDir } from '../support/compare.ts';
import { change, damage, smallDatabase } from '../pages/databases.ts';
import { runRelayed } from '../support/relay-near.ts';
import { assertRefused, Command, jsonLines, PROGRAM, sqlsync, until, untilGone } from './command.ts';
import type { Summary } from './command.ts';

/** An origin with an index that lacks what its table has, which only integrity_check notices. */
function damaged(t: TestContext): { origin: string; replica: string } {
  const folder = tempDir(t);
  const origin = join(folder, 'origin.db');
  smallDatabase(origin, { journalMode: 'delete' });
  change(
    origin,
    'CREATE TABLE kept (x); CREATE INDEX kept_x ON kept (x); INSERT INTO kept VALUES (77777777)',
  );
  const at = readFileSync(origin).lastIndexOf(Buffer.from('04a2cb71', 'hex'));
  assert.ok(at > 0);
  damage(origin, at, Buffer.from('04a2cb72', 'hex'));
  return { origin, replica: join(folder, 'replica.db') };
}

describe('--check', () => {
  test('--check ends with status 1 and says what is damaged, and the copy is exact', async (t) => {
    const { origin, replica } = damaged(t);
    const { status, stdout, stderr } = await sqlsync([origin, replica, '--check']);
    assert.equal(status, 1, stderr);
    assert.match(stdout, /is now an exact copy/);
    assert.match(stderr, /SQLite finds it damaged:\n.*(kept_x|row 1)/);
    assert.deepEqual(maskedPages(readFileSync(replica)), maskedPages(readFileSync(origin)));
  });

  test('--check also looks at a replica that is up to date, and --json has all findings', async (t) => {
    const { origin, replica } = damaged(t);
    assert.equal((await sqlsync([origin, replica])).status, 0, 'without --check there is no check');
    const { status, stdout } = await sqlsync([origin, replica, '--check', '--json']);
    const summary = jsonLines(stdout).find(({ type }) => type === 'summary') as Summary;
    assert.equal(status, 1);
    assert.equal(summary['outcome'], 'unchanged');
    assert.match((summary['findings'] as string[]).join(), /kept_x|row 1/);
  });

  test('--check of a sound database ends with status 0 and no findings', async (t) => {
    const folder = tempDir(t);
    const origin = join(folder, 'origin.db');
    smallDatabase(origin);
    const { status, stdout } = await sqlsync([origin, join(folder, 'replica.db'), '--check', '--json']);
    assert.equal(status, 0);
    assert.deepEqual(jsonLines(stdout).at(-1)?.['findings'], []);
  });

  test('--check of a table whose collation this SQLite lacks warns, also with -q, and so does backup --verify', async (t) => {
    const folder = tempDir(t);
    const make = `import sqlite3; c = sqlite3.connect('a.db', isolation_level=None); c.create_collation('uni', lambda a, b: 0)
c.executescript("CREATE TABLE t (x TEXT COLLATE uni UNIQUE); INSERT INTO t VALUES ('a')")`;
    assert.equal(spawnSync('python3', ['-c', make], { cwd: folder }).status, 0);
    await sqlsync(['init', 'store'], { cwd: folder });
    for (const args of [
      ['--check', 'a.db', 'b.db'],
      ['backup', '--verify', 'a.db', 'store'],
    ]) {
      const { status, stdout, stderr } = await sqlsync([...args, '-q'], { cwd: folder });
      assert.deepEqual([status, stdout], [0, ''], stderr);
      assert.match(stderr, /warning: Not all of .* could be checked: table t needs the collation uni,/);
    }
  });

  test('--check finds a schema that SQLite cannot parse', async (t) => {
    const { origin, replica } = damaged(t);
    const at = readFileSync(origin).indexOf('CREATE TABLE kept');
    damage(origin, at, Buffer.from('CREATE TUBLE'));
    const { status, stderr } = await sqlsync([origin, replica, '--check']);
    assert.equal(status, 1);
    assert.match(stderr, /malformed database schema/);
  });

  test('the far replica agent of a push makes the --check', async (t) => {
    const { origin, replica } = damaged(t);
    const done: string[] = [];
    const { near } = await runRelayed('push', { origin, replica, check: true }, ({ message }) => {
      if (message.type === 'done') done.push(...message.findings);
      return [message];
    });
    assert.equal(near, undefined);
    assert.match(done.join(), /kept_x|row 1/);
  });

  test('--check with --dry-run is refused: there is nothing to check', async (t) => {
    const { origin, replica } = damaged(t);
    const expected = { code: 'USAGE', status: 2, says: /exclude each other/ } as const;
    await assertRefused([origin, replica, '--check', '--dry-run'], expected);
  });
});

/**
 * A database whose check takes longer than anybody waits: integrity_check evaluates its CHECK by trying all
 * ways to match.
 */
function endless(t: TestContext): { origin: string; replica: string } {
  const folder = tempDir(t);
  const origin = join(folder, 'origin.db');
  change(
    origin,
    `CREATE TABLE slow (x CHECK (x NOT LIKE '%a%a%a%a%a%a%b')); PRAGMA ignore_check_constraints = ON;
     INSERT INTO slow VALUES (printf('%.3000c', 'a'))`,
  );
  return { origin, replica: join(folder, 'replica.db') };
}

/** The process that checks, once it exists; it is a child of `parent`. */
async function checker(command: Command, parent?: () => number | undefined): Promise<number> {
  let found: number | undefined;
  await until(() => {
    const pid = parent === undefined ? command.child.pid : parent();
    found = pid === undefined ? undefined : childrenOf(pid).find((child) => isChecker(child));
    return found !== undefined;
  }, command);
  return found as number;
}

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
}

function isChecker(pid: number): boolean {
  return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('integrity-process');
}

function groupOf(pid: number): number {
  const [, , group] = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return Number(group);
}

describe('a check that takes long', () => {
  for (const [signal, what] of [
    ['SIGINT', 'Ctrl-C'],
    ['SIGHUP', 'the end of its terminal'],
    ['SIGTERM', 'a signal to its process group'],
  ] as const) {
    test(`a check is ended by ${what}, and the run says that the copy is committed and not that it is damaged`, async (t) => {
      const { origin, replica } = endless(t);
      const command = new Command([origin, replica, '--check', '--json'], { detached: true });
      t.after(() => command.child.kill('SIGKILL'));
      const pid = await checker(command);
      // The other processes of the group get the signal before the one that has to report it.
      command.child.kill('SIGSTOP');
      process.kill(-(command.child.pid as number), signal);
      assert.equal(groupOf(pid), pid, 'the check has a group of its own');
      command.child.kill('SIGCONT');
      const { status, stdout } = await command.done;
      const last = jsonLines(stdout).at(-1);
      assert.deepEqual(
        [status, last?.['code'], last?.['outcome']],
        [130, 'INTERRUPTED', 'committed'],
        stdout,
      );
      assert.match(last?.['hint'] as string, /is an exact copy, and committed/);
      assert.deepEqual(maskedPages(readFileSync(replica)), maskedPages(readFileSync(origin)));
      await untilGone([pid]);
    });
  }

  test('a check ends with the far agent of a push whose near side was killed', async (t) => {
    const { origin, replica } = endless(t);
    const shell = join(tempDir(t), 'shell');
    writeFileSync(shell, `#!/bin/sh\nexec '${process.execPath}' '${PROGRAM}' agent\n`, { mode: 0o755 });
    const command = new Command([origin, `host:${replica}`, '--check', '--rsh', shell]);
    const agent = (): number | undefined => command.children()[0];
    const pid = await checker(command, agent);
    const pids = [agent() as number, pid];
    command.child.kill('SIGKILL');
    await command.done;
    await untilGone(pids);
  });

  test('a check ends with the process that started it, however that ends', async (t) => {
    const { origin, replica } = endless(t);
    const command = new Command([origin, replica, '--check']);
    const pid = await checker(command);
    command.child.kill('SIGKILL');
    await command.done;
    await untilGone([pid]);
  });

  test('a check that cannot be finished is a warning, and no damage', async (t) => {
    const { origin, replica } = endless(t);
    const command = new Command([origin, replica, '--check', '--json']);
    process.kill(await checker(command), 'SIGKILL');
    const { status, stdout } = await command.done;
    const summary = jsonLines(stdout).at(-1);
    assert.deepEqual([status, summary?.['findings']], [0, []], stdout);
    assert.match(String(summary?.['warnings']), /could not be made: .*killed by SIGKILL/);
  });
});
