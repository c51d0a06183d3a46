// oxlint-disable no-control-regex -- escape sequences are what is looked for
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { change, largeDatabase, smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { Command, Hold, PROGRAM, jsonLines, sqlsync } from './command.ts';
import type { Run, Summary } from './command.ts';
import { describeBriefly, describeSummary } from '../../src/cli/commands/sync.ts';
import { Output } from '../../src/cli/terminal/output.ts';
import { formatTimeLeft } from '../../src/cli/terminal/format.ts';
import { ProgressLine } from '../../src/cli/terminal/progress.ts';
import type { CopyProgress } from '../../src/sync/agents/page-copy.ts';
import type { SyncSummary } from '../../src/sync/runs/sync.ts';

const NEEDS_DEV_FULL = existsSync('/dev/full') ? false : 'NOT TESTED: there is no /dev/full here';

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
  test('--json prints one object a line, the last of them the summary, and nothing on stderr', async (t) => {
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

  test('--json prints an error as a line with code, message, hint and exit status, and nothing on stderr', async (t) => {
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

  test('--json prints the result of verify', async (t) => {
    const [origin, replica] = place(t);
    await sqlsync([origin, replica]);
    const same = await sqlsync(['verify', origin, replica, '--json']);
    assert.equal(same.status, 0);
    assert.deepEqual(jsonLines(same.stdout).at(-1)?.['same'], true);
    change(origin, 'UPDATE item SET amount = -1');
    const differing = await sqlsync(['verify', origin, replica, '--json']);
    assert.equal(differing.status, 1);
    const summary = jsonLines(differing.stdout).at(-1) as Summary & { differingPages: [number, number][] };
    assert.equal(summary['same'], false);
    assert.ok(summary.differingPages.length > 0);
  });
});

describe('output for people', () => {
  test('output for people is one line on stdout if that is no terminal: what was done, how much, and how long it took', async (t) => {
    const args = place(t);
    const [origin, replica] = args;
    const created = await sqlsync(args);
    assert.equal(created.stderr, '');
    const amount = String.raw`\d+ k?B sent, [\d.]+ k?B received, [\d.]+ m?s\n$`;
    const isCopy = `^${replica} is now an exact copy of ${origin}`;
    assert.match(
      created.stdout,
      new RegExp(String.raw`${isCopy} \(new\): \d+ pages \([\d.]+ [kM]B\), ${amount}`),
    );
    change(origin, 'CREATE TABLE another (x)');
    assert.match(
      (await sqlsync(args)).stdout,
      new RegExp(String.raw`${isCopy}: \d+ of \d+ pages changed, ${amount}`),
    );
    const again = await sqlsync([...args, '--dry-run']);
    assert.match(again.stdout, /nothing was written: 0 of \d+ pages would change, [^\n]*\n$/);
  });

  test('output of a dry run into a new place says that it would be new, and how large', async (t) => {
    const [origin, replica] = place(t);
    const { stdout } = await sqlsync([origin, replica, '--dry-run']);
    assert.match(stdout, /would be a new copy of .*; nothing was written: \d+ pages \([\d.]+ [kM]B\), /);
  });

  test('output with -v is a summary with pages, bytes, time and the snapshot', async (t) => {
    const { stdout } = await sqlsync([...place(t), '-v']);
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

  test('-q prints nothing at all, no advice either', async (t) => {
    const args = [...place(t, rollback), '-q'];
    assert.deepEqual(await sqlsync(args), { status: 0, signal: null, stdout: '', stderr: '' });
    assert.deepEqual(await sqlsync(['verify', ...args]), { status: 0, signal: null, stdout: '', stderr: '' });
  });

  test('-q still prints errors', async (t) => {
    const [origin] = place(t);
    const { status, stderr } = await sqlsync(['/no/such.db', origin, '-q']);
    assert.equal(status, 3);
    assert.match(stderr, /ORIGIN_NOT_FOUND/);
  });

  test('-v says who wrote the origin with a version of SQLite that has a known bug', async (t) => {
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

  test('-v indents what another program says, so that no line of it passes for one of ours', () => {
    const module = join(import.meta.dirname, '..', '..', 'src', 'cli', 'terminal', 'output.ts');
    const said = 'sqlsync: all is lost\nsqlsync: run this\r\nwarning: now';
    const program = `const { Output } = await import(${JSON.stringify(module)});
      new Output({ json: false, verbosity: 'verbose' }).note(${JSON.stringify(said)});`;
    const args = ['--input-type=module', '-e', program];
    const { stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    const lines = [
      'note: sqlsync: all is lost',
      '         sqlsync: run this\ufffd',
      '         warning: now',
      '',
    ];
    assert.deepEqual(stderr.split('\n'), lines);
  });

  test('output has no colour and no progress if stderr is no terminal', async (t) => {
    const [origin, replica] = place(t, rollback);
    const { stdout, stderr } = await sqlsync([origin, replica]);
    assert.match(stderr, /^warning: /);
    assert.equal((stdout + stderr).includes('\u001b'), false);
  });
});

describe('the line of pages', () => {
  const pagesLine = (stdout: string): string => /^ {2}pages {5}(.*)$/m.exec(stdout)?.[1] ?? stdout;

  test('the line of pages of a dry run to a new file says what would be copied, and no speed-up', async (t) => {
    const { stdout } = await sqlsync([...place(t), '--dry-run', '-v']);
    assert.match(stdout, /nothing was written/);
    assert.match(pagesLine(stdout), /^\d+ pages would be copied \([\d.]+ kB\)$/);
    assert.doesNotMatch(stdout, /times less/);
  });

  test('the line of pages of an unchanged database says that all were compared, and no speed-up', async (t) => {
    const args = [...place(t), '-v'];
    assert.match(pagesLine((await sqlsync(args)).stdout), /^\d+ pages copied \(/);
    const { stdout } = await sqlsync(args);
    assert.match(pagesLine(stdout), /^\d+ pages compared \(.*\), 0 changed \(0 %\)$/);
    assert.doesNotMatch(stdout, /times less/);
  });

  test('the line of pages of a smaller replica says how many of all the pages were compared', async (t) => {
    const [origin, replica] = place(t);
    const args = [origin, replica, '-v'];
    await sqlsync(args);
    change(origin, 'CREATE TABLE more (x); INSERT INTO more VALUES (randomblob(3000000))');
    const line = pagesLine((await sqlsync(args)).stdout);
    const counts = line.replaceAll(',', '').match(/^(\d+) pages \(.*\): (\d+) compared (\d+) changed/) ?? [];
    const [, all, compared, changed] = counts;
    assert.ok(Number(compared) > 0 && Number(compared) < Number(all), line);
    assert.ok(Number(changed) > 100 && Number(changed) < Number(all), line);
  });

  test('the line of pages of a copy in rounds that sends pages again says what was sent, and no share', () => {
    const none = { pagesDelta: 0, bytesSent: 0, bytesReceived: 0, durationMs: 0, snapshotHeldMs: 0 };
    const summary: SyncSummary = {
      ...none,
      origin: 'a.db',
      replica: 'b.db',
      outcome: 'committed',
      pageSize: 4096,
      pageCount: 9931,
      pagesCompared: 9931,
      pagesChanged: 10_299,
      pagesTransferred: 10_299,
      attempts: 1,
      rounds: 2,
      walGrowthBytes: 0,
      created: false,
      resumed: false,
      quick: false,
      warnings: [],
      findings: [],
    };
    for (const text of [describeSummary(summary), describeBriefly(summary)]) {
      assert.match(text, /9,931 pages(?: \(.*\))?, 10,299 sent in 2 rounds/);
      assert.doesNotMatch(text, /%|changed/);
    }
  });
});

describe('the progress line', () => {
  const PROGRESS: CopyProgress = {
    phase: 'compare',
    pageSize: 4096,
    pageCount: 1000,
    pagesCompared: 0,
    pagesWanted: 0,
    pagesReceived: 0,
  };

  /** The progress line after each of these, a second apart, on a terminal of so many columns. */
  function shown(t: TestContext, columns: number | undefined, steps: Partial<CopyProgress>[]): string[] {
    let [now, line] = [0, ''];
    const lines: string[] = [];
    t.mock.method(performance, 'now', () => now);
    const progress = new ProgressLine(new Output({ json: false, verbosity: 'normal' }));
    const before = Object.getOwnPropertyDescriptor(process.stderr, 'columns');
    Object.defineProperty(process.stderr, 'columns', { value: columns, configurable: true });
    const write = t.mock.method(process.stderr, 'write', (text: string) => ((line = text), true));
    for (const step of steps) {
      now += 1000;
      progress.update({ ...PROGRESS, ...step });
      lines.push(line.replace('\r\u001b[K', ''));
    }
    write.mock.restore();
    if (before === undefined) delete (process.stderr as { columns?: number }).columns;
    else Object.defineProperty(process.stderr, 'columns', before);
    return lines;
  }

  test('the progress line has no rate until one is known, and 80 columns if the terminal does not know its own', (t) => {
    for (const columns of [0, undefined]) {
      const [first, second] = shown(t, columns, [{}, { pagesCompared: 500, pagesWanted: 7 }]);
      assert.equal(first, 'comparing 0 % of 4.10 MB, 0 differ');
      assert.equal(second, 'comparing 50.0 % of 4.10 MB, 7 differ, 2.05 MB/s, 1 s left');
      t.mock.restoreAll();
    }
  });

  test('the progress line shows the time left of a copy that compares and copies at once', (t) => {
    const [, , third] = shown(t, 100, [
      { pagesCompared: 1 },
      { pagesCompared: 200, pagesReceived: 200, pagesWanted: 200 },
      { pagesCompared: 400, pagesReceived: 400, pagesWanted: 400 },
    ]);
    assert.equal(third, 'copying: 1.64 MB copied, 40.0 % compared, 819 kB/s, 3 s left');
  });

  test('the progress line says the time left as exactly as it is known', () => {
    const said = [1, 9650, 59_001, 61_000, 3_599_000, 8_000_000].map(formatTimeLeft);
    assert.deepEqual(said, ['1 s', '10 s', '1 min', '2 min', '1 h 00 min', '2 h 14 min']);
  });

  test('the progress line shows what was copied as soon as something was, though much is not compared yet', (t) => {
    const [, second, third, fourth] = shown(t, 100, [
      { pagesCompared: 2 },
      { pagesCompared: 2, pagesReceived: 100, pagesWanted: 100 },
      { pagesCompared: 2, pagesReceived: 200, pagesWanted: 200 },
      { phase: 'transfer', pagesCompared: 2, pagesReceived: 300, pagesWanted: 900 },
    ]);
    assert.equal(second, 'copying: 410 kB copied, 0.20 % compared');
    assert.equal(third, 'copying: 819 kB copied, 0.20 % compared, 410 kB/s');
    assert.equal(fourth, 'copying 33.3 % of 3.69 MB, 410 kB/s, 6 s left');
  });
});

describe('an output that nobody reads any more', () => {
  for (const stream of ['stdout', 'stderr'] as const) {
    test(`an output that nobody reads (${stream}) does not stop the work, nor change the exit status`, async (t) => {
      const [origin, replica] = place(t, rollback);
      const run = async (args: string[]): Promise<Run> => {
        const command = new Command(args);
        command.child[stream]?.destroy();
        return command.done;
      };
      for (const [args, status] of [
        [[origin, replica, '--json'], 0],
        [[origin, replica, '-v'], 0],
        [['verify', origin, replica], 0],
        [['/no/such.db', replica], 3],
        [['--no-such-option'], 2],
        [['--help'], 0],
        [['completion'], 0],
      ] as const) {
        const result = await run([...args]);
        assert.equal(result.status, status, `${args.join(' ')}: ${result.stdout}${result.stderr}`);
        assert.doesNotMatch(result.stdout + result.stderr, /EPIPE|^ +at /m);
      }
      change(origin, 'UPDATE item SET amount = -1');
      assert.equal((await run(['verify', origin, replica])).status, 1);
    });
  }

  test(
    'an output that could not be written, as on a full disk, is no success',
    { skip: NEEDS_DEV_FULL },
    async (t) => {
      const args = [...place(t)].map((path) => `'${path}'`).join(' ');
      const shell = `'${process.execPath}' '${PROGRAM}' ${args} > /dev/full`;
      const { status, stderr } = spawnSync('sh', ['-c', shell], { encoding: 'utf8' });
      assert.equal(status, 70);
      assert.match(stderr, /^sqlsync: the output could not be written: ENOSPC.*\n$/);
    },
  );
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

  test('a terminal shows progress with rate and time left, and it is gone in the end', async (t) => {
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
