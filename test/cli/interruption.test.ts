import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { change, largeDatabase, names } from '../pages/databases.ts';
import { assertReplicaOf, sha256File, tempDir } from '../support/compare.ts';
import { syncHere } from '../support/sync.ts';
import { OtherProcess } from '../support/other-process.ts';
import { gone, killEnvironment, readKillLog } from '../support/relay-kill.ts';
import { Command, Hold, jsonLines, PROGRAM, summaryOf, until, untilGone } from './command.ts';
import type { CommandOptions } from './command.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

interface Place {
  /** The folder of the replica. */
  readonly folder: string;
  readonly origin: string;
  readonly replica: string;
}

function place(t: TestContext): Place {
  const folder = tempDir(t);
  const origin = join(tempDir(t), 'a.db');
  largeDatabase(origin, 4e6);
  return { folder, origin, replica: join(folder, 'r.db') };
}

/** A shell script in a folder of its own. */
function executable(t: TestContext, script: string): string {
  const path = join(tempDir(t), 'shell');
  writeFileSync(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return path;
}

/** Stops a sync in mid-transfer, sends it the signal, and checks that it and its agent end. */
async function interrupt(
  t: TestContext,
  { origin, replica }: Place,
  signal: NodeJS.Signals,
  options: CommandOptions & { wholeGroup?: boolean; json?: boolean } = {},
): Promise<string> {
  const hold = new Hold(t, 2.5e6);
  const args = [origin, replica, '--compress', 'none', ...(options.json === true ? ['--json'] : [])];
  const command = new Command(args, { ...options, hold, detached: options.wholeGroup === true });
  t.after(() => command.child.kill('SIGKILL'));
  await hold.reached(command);
  const agents = command.children();
  assert.equal(agents.length, 1);
  const pid = command.child.pid as number;
  process.kill(options.wholeGroup === true ? -pid : pid, signal);
  const run = await command.done;
  assert.deepEqual([run.status, run.signal], [130, null], run.stderr);
  if (options.json !== true) {
    assert.match(run.stderr, /\[INTERRUPTED\]/);
    assert.match(run.stderr, /replica was not changed\. The next run continues from what has arrived/);
  }
  await untilGone(agents);
  return run.stdout;
}

for (const signal of SIGNALS) {
  describe(signal, () => {
    test('a sync interrupted while it makes a new replica leaves no replica, no process, and only the part file, from which the next run goes on', async (t) => {
      const here = place(t);
      await interrupt(t, here, signal);
      assert.equal(existsSync(here.replica), false);
      assert.deepEqual(names(here.folder), ['.r.db.sqlsync-part']);
      const summary = await summaryOf([here.origin, here.replica]);
      assert.equal(summary['resumed'], true);
      assert.ok((summary['pagesTransferred'] as number) < (summary['pageCount'] as number));
      assertReplicaOf(here.origin, here.replica);
      assert.deepEqual(names(here.folder), ['.r.db.sqlsync', 'r.db']);
    });

    for (const mode of signal === 'SIGINT' ? (['wal', 'delete'] as const) : []) {
      const kept = mode === 'delete' ? ['.r.db.sqlsync-spool'] : [];
      test(`a sync interrupted while it updates a replica in mode ${mode} leaves it as it was, and beside it ${kept.join('') || 'nothing'}`, async (t) => {
        const here = place(t);
        await syncHere({ origin: here.origin, replica: here.replica });
        change(here.replica, `PRAGMA journal_mode = ${mode}`);
        change(here.origin, 'UPDATE t SET x = randomblob(8000)');
        const before = sha256File(here.replica);
        await interrupt(t, here, signal);
        assert.equal(sha256File(here.replica), before);
        assert.deepEqual(names(here.folder), ['.r.db.sqlsync', ...kept, 'r.db']);
        const { resumed } = await syncHere({ origin: here.origin, replica: here.replica });
        assert.equal(resumed, kept.length > 0);
        assertReplicaOf(here.origin, here.replica);
        assert.deepEqual(names(here.folder), ['.r.db.sqlsync', 'r.db']);
      });
    }
  });
}

test('Ctrl-C at a terminal, which signals the agent too, ends the same way', async (t) => {
  const here = place(t);
  await interrupt(t, here, 'SIGINT', { wholeGroup: true });
  assert.deepEqual(names(here.folder), ['.r.db.sqlsync-part']);
});

describe('Ctrl-C at a terminal whose remote shell dies before sqlsync has got the signal', () => {
  test('Ctrl-C is an interruption, and no lost connection, if the remote shell dies first in mid-transfer', async (t) => {
    const { origin, replica } = place(t);
    const hold = new Hold(t, 2.5e6);
    const command = new Command([origin, replica, '--compress', 'none', '--retry', '3', '--json'], { hold });
    t.after(() => command.child.kill('SIGKILL'));
    await hold.reached(command);
    const agents = command.children();
    command.child.kill('SIGSTOP');
    for (const pid of agents) process.kill(pid, 'SIGKILL');
    await endedAs(agents, 'Z');
    command.child.kill('SIGINT');
    command.child.kill('SIGCONT');
    const { status, stdout } = await command.done;
    assert.deepEqual([status, jsonLines(stdout).at(-1)?.['code']], [130, 'INTERRUPTED'], stdout);
    assert.doesNotMatch(stdout, /CONNECTION_LOST/);
  });

  for (const name of ['sync', 'verify'])
    test(`Ctrl-C before the first word of the far side is an interruption of ${name}, and no failed connection`, async (t) => {
      const { origin, replica } = place(t);
      const shell = executable(t, 'exec sleep 1000');
      const command = new Command([name, origin, `host:${replica}`, '--rsh', shell, '--json'], {
        detached: true,
      });
      t.after(() => command.child.kill('SIGKILL'));
      await until(() => command.children().some((pid) => commandOf(pid).startsWith('sleep')), command);
      const shells = command.children();
      command.child.kill('SIGSTOP');
      process.kill(-(command.child.pid as number), 'SIGINT');
      await endedAs(shells, 'Z');
      command.child.kill('SIGCONT');
      const { status, stdout } = await command.done;
      assert.deepEqual([status, jsonLines(stdout).at(-1)?.['code']], [130, 'INTERRUPTED'], stdout);
    });
});

function commandOf(pid: number): string {
  return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
}

/** Waits until these processes are in this state: Z means ended and not yet reaped by their parent. */
async function endedAs(pids: readonly number[], state: string): Promise<void> {
  const stateOf = (pid: number): string =>
    readFileSync(`/proc/${pid}/stat`, 'latin1')
      .replace(/^.*\) /s, '')
      .slice(0, 1);
  while (pids.some((pid) => stateOf(pid) !== state)) await delay(5);
}

test('an interrupted sync with --json ends with an error line', async (t) => {
  const stdout = await interrupt(t, place(t), 'SIGTERM', { json: true });
  const last = jsonLines(stdout).at(-1);
  assert.deepEqual([last?.type, last?.['code'], last?.['exitStatus']], ['error', 'INTERRUPTED', 130]);
});

describe('a push that is interrupted after the far side has all pages', () => {
  for (const [step, state] of [
    ['in:root', 'not committed'],
    ['after:out:release', 'not committed'],
    ['before:out:done', 'committed'],
  ] as const) {
    test(`a push interrupted at ${step.replaceAll(':', ' ')} (${state}) says that the replica may have been committed`, async (t) => {
      const here = place(t);
      const log = join(tempDir(t), 'log');
      const shell = executable(t, 'shift\nexec "$NODE" "$PROGRAM" agent');
      const args = [here.origin, `host:${here.replica}`, '--rsh', shell, '--json'];
      const env = { NODE: process.execPath, PROGRAM, ...killEnvironment(step, 'nobody', log) };
      const command = new Command(args, { env: { ...env, SQLSYNC_TEST_KILL: `${step} nobody fine` } });
      await until(() => existsSync(log) && readKillLog(log).killedAt !== undefined, command);
      assert.equal(existsSync(here.replica), state === 'committed');
      command.child.kill('SIGINT');
      await command.says('INTERRUPTED');
      writeFileSync(`${log}.go`, '');
      const { status, stdout } = await command.done;
      await gone(readKillLog(log).agentPid, 'the agent');
      const last = jsonLines(stdout).at(-1);
      assert.deepEqual([status, last?.['code'], last?.['outcome']], [130, 'INTERRUPTED', 'unknown'], stdout);
      assert.match(last?.['hint'] as string, /may have been committed/);
      assert.doesNotMatch(stdout, /not changed/);
    });
  }
});

test('a signal interrupts a sync that waits for a lock at once', async (t) => {
  const here = place(t);
  await syncHere({ origin: here.origin, replica: here.replica });
  change(here.origin, 'UPDATE t SET x = randomblob(8000)');
  const writer = await new OtherProcess(t).open(here.replica);
  await writer.exec('BEGIN IMMEDIATE');
  const command = new Command([here.origin, here.replica, '--json', '--busy-timeout', '600']);
  await command.says('"progress"');
  const agents = command.children();
  command.child.kill('SIGINT');
  const run = await command.done;
  assert.equal(run.status, 130, run.stdout);
  await untilGone(agents);
});

test('an agent whose near side is killed ends by itself', async (t) => {
  const here = place(t);
  const hold = new Hold(t, 2.5e6);
  const command = new Command([here.origin, here.replica, '--compress', 'none'], { hold });
  t.after(() => command.child.kill('SIGKILL'));
  await hold.reached(command);
  const agents = command.children();
  command.child.kill('SIGKILL');
  await command.done;
  await untilGone(agents);
  assert.equal(existsSync(here.replica), false);
});

test('a signal interrupts verify like a sync, and both agents end', async (t) => {
  const here = place(t);
  await syncHere({ origin: here.origin, replica: here.replica });
  const hold = new Hold(t, 100);
  const command = new Command(['verify', here.origin, here.replica], { hold });
  t.after(() => command.child.kill('SIGKILL'));
  await hold.reached(command);
  const agents = command.children();
  assert.equal(agents.length, 2);
  command.child.kill('SIGINT');
  const run = await command.done;
  assert.equal(run.status, 130, run.stderr);
  assert.match(run.stderr, /INTERRUPTED/);
  await untilGone(agents);
});
