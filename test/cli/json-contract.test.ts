import assert from 'node:assert/strict';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { loadCommands } from '../../src/cli/command-files.ts';
import { STORES } from '../../src/cli/store/store-command.ts';
import { smallDatabase } from '../pages/databases.ts';
import { Command, Hold, jsonLines, sqlsync } from './command.ts';
import type { CommandOptions, Run, Summary } from './command.ts';
import { assertDocumented, here } from './store-here.ts';

const STORE_COMMAND_NAMES = (await loadCommands())
  .filter(({ group }) => group === STORES)
  .map(({ name }) => name);

/** Checks that the last line, and no other, is of the expected type, and what stderr has. Returns the last line. */
function assertLast({ status, stdout, stderr }: Run, type: 'summary' | 'error', says: string): Summary {
  const lines = jsonLines(stdout);
  const ends = lines.filter((line) => line.type === 'summary' || line.type === 'error');
  assert.deepEqual([ends.length, lines.at(-1)?.type], [1, type], `${says}: ${stdout}${stderr}`);
  assert.equal(stderr, '', says);
  const last = lines.at(-1) as Summary;
  if (type === 'error') assert.equal(last['exitStatus'], status, says);
  return last;
}

describe('the last line of --json', () => {
  // Not `open`, which passes on the output of its program.
  test('the last line of --json is the summary of each command that came to its end, and nothing follows', async (t) => {
    const { folder } = await here(t);
    smallDatabase(join(folder, 'other.db'), { rows: 40 });
    const metrics = ['--metrics-file', '/nowhere/at/all.prom'];
    // Nobody listens at this address, so that a warning comes after the work.
    const ping = ['--ping', 'http://127.0.0.1:1/x'];
    writeFileSync(join(folder, 'password'), 'one\n');
    const password = ['--password-file', 'password'];
    const runs: [status: number, ...args: string[]][] = [
      [0, 'init', 'other'],
      [0, 'a.db', 'copy.db', ...metrics, ...ping],
      [0, 'verify', 'a.db', 'copy.db'],
      [1, 'verify', 'a.db', 'other.db'],
      [0, 'backup', 'a.db', 'b.db', 'store', '--prune', ...metrics, ...ping],
      [21, 'backup', 'a.db', 'none.db', 'store', '-q', ...metrics, ...ping],
      [0, 'copy', 'store', 'other'],
      [0, 'snapshots', 'store'],
      [0, 'diff', 'store', '#latest', '--path', 'a.db'],
      [0, 'report', 'store', '--path', 'a.db'],
      [0, 'restore', 'store', 'restored.db', '--path', 'a.db'],
      [0, 'dump', 'store', '--path', 'a.db'],
      [0, 'forget', 'store', '--keep-last', '1', '--prune'],
      [0, 'prune', 'store', '-n'],
      [0, 'stats', 'store'],
      [0, 'check', 'store'],
      [0, 'init', 'secret', '--encrypt', ...password],
      [0, 'key', 'add', 'secret', ...password, '--new-password-command', 'echo two'],
      [0, 'key', 'list', 'secret', ...password],
      [0, 'config', 'example'],
    ];
    for (const [status, ...args] of runs) {
      const run = await sqlsync([...args, '--json'], { cwd: folder });
      const last = assertLast(run, 'summary', args.join(' '));
      assert.equal(run.status, status, args.join(' '));
      assertDocumented(args[0] === 'a.db' ? 'sync' : (args[0] as string), last);
    }
    const [pack = ''] = readdirSync(join(folder, 'store', 'packs'));
    rmSync(join(folder, 'store', 'packs', pack));
    const found = await sqlsync(['check', 'store', '--json'], { cwd: folder });
    assert.equal(found.status, 19);
    assertLast(found, 'summary', 'check of a damaged store');
    const tested = new Set(runs.map(([, command]) => command));
    const others = STORE_COMMAND_NAMES.filter((name) => !tested.has(name));
    assert.deepEqual(
      others.filter((name) => !['open', 'repair'].includes(name)),
      [],
    );
  });

  test('the last line of --json is the error of each command that failed, with its exit status', async (t) => {
    const { folder } = await here(t);
    const more: Readonly<Record<string, string>> = {
      backup: 'none',
      restore: 'none',
      copy: 'none',
      diff: '#abcd',
      forget: 'abcd',
    };
    const commands = STORE_COMMAND_NAMES.map((name) =>
      [name, name === 'init' ? 'store' : 'none', more[name] ?? []].flat(),
    );
    const runs = [
      ...commands,
      ['none.db', 'copy.db'],
      ['verify', 'a.db', 'none.db'],
      ['setup', '/a/b'],
      ['config', 'check'],
      ['run'],
      ['status'],
      ['backup', 'none.db', 'store', '--ping', 'http://127.0.0.1:1/x'],
      ['backup', 'none.db', 'no*.db', 'store'],
      ['a.db', 'copy.db', '--no-such-option'],
      ['-q', '-v', 'a.db', 'copy.db'],
    ];
    for (const args of runs) {
      const run = await sqlsync([...args, '--json'], { cwd: folder });
      assert.notEqual(run.status, 0, args.join(' '));
      assertLast(run, 'error', args.join(' '));
    }
  });

  test('the last line of --json is an error if none of several databases could be backed up, after a line for each', async (t) => {
    const { folder } = await here(t);
    const run = await sqlsync(['backup', 'none.db', 'no*.db', 'store', '--json'], { cwd: folder });
    const last = assertLast(run, 'error', 'backup');
    assert.deepEqual([last['code'], run.status], ['ORIGIN_NOT_FOUND', 3]);
    assert.match(last['message'] as string, /^None of the 2 databases/);
    const failures = jsonLines(run.stdout).filter(({ type }) => type === 'failure');
    assert.deepEqual(
      failures.map(({ origin, code, exitStatus }) => [origin, code, exitStatus]),
      [
        ['none.db', 'ORIGIN_NOT_FOUND', 3],
        ['no*.db', 'ORIGIN_NOT_FOUND', 3],
      ],
    );
  });

  test('the last line of --json is an error if the run is interrupted', async (t) => {
    const { folder } = await here(t);
    const hold = new Hold(t, 1000);
    const options: CommandOptions = { cwd: folder, hold };
    const command = new Command(['backup', 'a.db', 'b.db', 'store', '--json'], options);
    t.after(() => command.child.kill('SIGKILL'));
    await hold.reached(command);
    command.child.kill('SIGINT');
    const run = await command.done;
    assert.equal(run.status, 130);
    assert.equal(assertLast(run, 'error', 'backup')['code'], 'INTERRUPTED');
  });
});
