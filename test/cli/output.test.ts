// oxlint-disable no-control-regex -- escape sequences are what is looked for
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { change, largeDatabase, smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { Command, Hold, PROGRAM, jsonLines, sqlsync } from './command.ts';
import type { Summary } from './command.ts';

const SUMMARY_NUMBERS = [
  'pageSize',
  'pageCount',
  'pagesTransferred',
  'bytesSent',
  'bytesReceived',
  'durationMs',
  'snapshotHeldMs',
  'walGrowthBytes',
] as const;

function place(
  t: TestContext,
  make: (path: string) => void = smallDatabase,
): [origin: string, replica: string] {
  const folder = tempDir(t);
  make(join(folder, 'a.db'));
  return [join(folder, 'a.db'), join(folder, 'b.db')];
}

const rollback = (path: string): void => smallDatabase(path, { journalMode: 'delete' });

describe('--json', () => {
  test('prints one object a line, the last of them the summary, and nothing on stderr', async (t) => {
    const args = [...place(t, rollback), '--json', '-v'];
    for (const [created, outcome] of [
      [true, 'committed'],
      [false, 'unchanged'],
    ]) {
      const { status, stdout, stderr } = await sqlsync(args);
      assert.deepEqual([status, stderr], [0, '']);
      assert.ok(stdout.endsWith('}\n'));
      const lines = jsonLines(stdout);
      for (const { type } of lines) assert.match(type, /^(warning|note|progress|summary)$/);
      assert.equal(lines.filter(({ type }) => type === 'summary').length, 1);
      const summary = lines.at(-1) as Summary;
      assert.equal(summary.type, 'summary');
      for (const name of SUMMARY_NUMBERS) {
        const value = summary[name];
        assert.ok(Number.isSafeInteger(value) && (value as number) >= 0, `${name}: ${String(value)}`);
      }
      assert.equal(summary['pageSize'], 4096);
      assert.deepEqual([summary['created'], summary['outcome']], [created, outcome]);
      const expectedPages = created === true ? summary['pageCount'] : 0;
      assert.equal(summary['pagesTransferred'], expectedPages);
    }
  });

  test('prints an error as a line with code, message, hint and exit status, and nothing on stderr', async (t) => {
    const [origin] = place(t);
    const { status, stdout, stderr } = await sqlsync(['/no/such.db', origin, '--json']);
    assert.deepEqual([status, stderr], [3, '']);
    const lines = jsonLines(stdout);
    assert.equal(lines.length, 1);
    const { type, code, message, hint, exitStatus } = lines[0] as Summary;
    assert.deepEqual([type, code, exitStatus], ['error', 'ORIGIN_NOT_FOUND', 3]);
    assert.match(String(message), /such\.db/);
    assert.match(String(hint), /\S/);
  });

  test('prints the result of verify', async (t) => {
    const [origin, replica] = place(t);
    await sqlsync([origin, replica]);
    const same = await sqlsync(['verify', origin, replica, '--json']);
    assert.equal(same.status, 0);
    assert.deepEqual(jsonLines(same.stdout).at(-1)?.['same'], true);
    change(origin, 'UPDATE item SET amount = -1');
    const differing = await sqlsync(['verify', origin, replica, '--json']);
    assert.equal(differing.status, 1);
    const summary = jsonLines(differing.stdout).at(-1) as Summary & { differingPages: number[] };
    assert.equal(summary['same'], false);
    assert.ok(summary.differingPages.length > 0);
  });
});

describe('output for people', () => {
  test('is a summary on stdout with pages, bytes, time and the snapshot', async (t) => {
    const { stdout, stderr } = await sqlsync(place(t));
    assert.equal(stderr, '');
    assert.match(stdout, /is now an exact copy of/);
    for (const figure of [
      /\d+ pages/,
      /\d B sent|\d kB sent/,
      /received/,
      /snapshot held for \d/,
      /WAL grew by/,
    ]) {
      assert.match(stdout, figure);
    }
  });

  test('is nothing at all with -q, warnings included', async (t) => {
    const args = [...place(t, rollback), '-q'];
    assert.deepEqual(await sqlsync(args), { status: 0, signal: null, stdout: '', stderr: '' });
    assert.deepEqual(await sqlsync(['verify', ...args]), { status: 0, signal: null, stdout: '', stderr: '' });
  });

  test('with -q still tells errors', async (t) => {
    const [origin] = place(t);
    const { status, stderr } = await sqlsync(['/no/such.db', origin, '-q']);
    assert.equal(status, 3);
    assert.match(stderr, /ORIGIN_NOT_FOUND/);
  });

  test('says more with -v: who wrote the origin with a version of SQLite that has a known bug', async (t) => {
    const [origin, replica] = place(t);
    // Debian's SQLite is older than 3.51.3.
    const shell = spawnSync('sqlite3', [origin, 'CREATE TABLE another (x)'], {
      encoding: 'utf8',
    });
    assert.equal(shell.status, 0, shell.stderr);
    const normal = await sqlsync([origin, replica]);
    const verbose = await sqlsync([origin, replica, '-v']);
    assert.doesNotMatch(normal.stdout + normal.stderr, /WAL-reset/);
    assert.match(verbose.stderr, /WAL-reset bug/);
  });

  test('has no colour and no progress where stderr is no terminal', async (t) => {
    const [origin, replica] = place(t, rollback);
    const { stdout, stderr } = await sqlsync([origin, replica]);
    assert.match(stderr, /^warning: /);
    assert.equal((stdout + stderr).includes('\u001b'), false);
  });
});

describe('on a terminal', () => {
  /** A sync that stops for a while in its transfer, with its stderr a terminal. */
  async function onTerminal(t: TestContext, extra: string[], env: Record<string, string>): Promise<string> {
    const [origin, replica] = place(t, (path) => largeDatabase(path, 4e6, 'delete'));
    const hold = new Hold(t, 2.5e6);
    const command = new Command([origin, replica, '--compress', 'none', ...extra], {
      hold,
      env: { TERM: 'xterm-256color', ...env },
      terminal: true,
    });
    await hold.reached(command);
    // The line is shown after 300 ms at the first sign of progress: the rest of the pages brings one.
    const shownAfter = performance.now() + 400;
    const wait = setInterval(() => {
      if (performance.now() < shownAfter) return;
      clearInterval(wait);
      hold.release();
    }, 20);
    const { status, stdout } = await command.done;
    assert.equal(status, 0, stdout);
    return stdout;
  }

  test('progress with rate and time left is shown, and gone in the end', async (t) => {
    const shown = await onTerminal(t, [], {});
    assert.match(shown, /\r\u001b\[K(copying|comparing) .* of .*\/s|committing/);
    assert.match(shown, /\r\u001b\[K[^\r]*is now an exact copy/);
    assert.match(shown, /\u001b\[33mwarning:/, 'in colour');
  });

  test('NO_COLOR takes the colours away', async (t) => {
    const shown = await onTerminal(t, [], { NO_COLOR: '1' });
    assert.match(shown, /warning:/);
    assert.doesNotMatch(shown, /\u001b\[[\d;]*m/);
  });

  for (const option of ['-q', '--json']) {
    test(`${option} shows no progress`, async (t) => {
      const shown = await onTerminal(t, [option], {});
      assert.equal(shown.includes('\u001b[K'), false);
      assert.doesNotMatch(shown, /copying/);
    });
  }
});

test('an unsupported Node.js gets one message that says what to do, exit status 9', (t) => {
  const folder = tempDir(t);
  const fake = join(folder, 'old.cjs');
  writeFileSync(
    fake,
    `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.20.2', napi: '9' } });`,
  );
  const { status, stderr } = spawnSync(process.execPath, ['-r', fake, PROGRAM, 'a', 'b'], {
    encoding: 'utf8',
  });
  assert.equal(status, 9);
  assert.match(stderr, /needs Node\.js 22\.18 or newer, but this is Node\.js 20\.20\.2/);
  assert.match(stderr, /Install Node\.js/);
});
