import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { explainRecord } from '../../src/doctor/watch/explain.ts';
import type { Hold, WatchLine, WatchLook, WatchSample } from '../../src/doctor/watch/log.ts';
import { readRecord } from '../../src/doctor/watch/log.ts';
import { WatchSampler } from '../../src/doctor/watch/sampler.ts';
import { pauseAfter } from '../../src/sync/runs/watch.ts';
import { presentExplanation } from '../../src/cli/doctor/present-explanation.ts';
import { WatchScreen } from '../../src/cli/doctor/watch-screen.ts';
import { assertRefused, Command, folderState, jsonLines, PROGRAM, sqlsync, until } from '../cli/command.ts';
import { assertDocumented } from '../cli/store-here.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { LINUX } from './holders.ts';

const STEP_MS = 25;

/** Looks in the order of their times; each part gives the writer and the commits of so many looks. */
function looks(
  ...parts: { looks: number; writer?: number; waiting?: number[]; commits: number }[]
): WatchLook[] {
  let atMs = 1_000_000;
  return parts.flatMap(({ looks: count, writer, waiting = [], commits }) =>
    Array.from({ length: count }, () => ({
      atMs: (atMs += STEP_MS),
      writer,
      waiting,
      readers: [{ pid: 7, reads: 'READ1@0', isPinning: commits > 0 }],
      wal: { commits, index: '1:2', frames: commits, checkpointed: 0 },
      walBytes: commits * 4120,
      pageSize: 4096,
    })),
  );
}

const START: WatchLine = {
  type: 'watch',
  format: 1,
  path: '/srv/app.db',
  host: 'db1',
  atMs: 1_000_000,
  unseen: [],
};

describe('the sums of a watch', () => {
  test('holds are as long as the looks that found the same writer without a commit', () => {
    const sampler = new WatchSampler();
    const all = looks(
      { looks: 41, writer: 1, waiting: [2, 3], commits: 10 },
      { looks: 1, writer: 1, commits: 11 },
      { looks: 1, writer: 1, commits: 12 },
      { looks: 5, commits: 12 },
      { looks: 11, writer: 2, commits: 12 },
    );
    for (const look of all) sampler.look(look);
    const sample = sampler.sample();
    assert.ok(sample !== undefined);
    assert.deepEqual(
      sample.holds.map(({ pid, forMs, waiting }) => [pid, forMs, waiting]),
      [
        [1, 1000, 2],
        [1, 0, 0],
        [1, 0, 0],
      ],
    );
    assert.deepEqual([sample.holder?.pid, sample.holder?.forMs], [2, 250]);
    assert.deepEqual([sample.commits, sample.walBytesWritten], [2, 2 * 4120]);
    const lines: WatchLine[] = [START, { type: 'process', pid: 1, command: 'node worker.js' }];
    const summary = explainRecord([...lines, sample]);
    const [first, second] = summary.processes;
    assert.deepEqual([first?.pid, first?.command, first?.longHolds], [1, 'node worker.js', 0]);
    assert.equal(first?.heldShare, 43 / 59);
    assert.deepEqual([second?.pid, second?.longest?.forMs], [2, 250]);
    assert.equal(summary.processes.find(({ pid }) => pid === 7)?.longestReadMs, 58 * STEP_MS);
    assert.deepEqual(summary.histogram, [2, 0, 1, 1, 0]);
  });

  test('samples of the same looks add up to the same sums, wherever they are cut', () => {
    const all = looks(
      { looks: 30, writer: 1, commits: 1 },
      { looks: 20, writer: 2, waiting: [1], commits: 5 },
      { looks: 10, commits: 9 },
    );
    const sums = [1, 3, 7, 60].map((every) => {
      const sampler = new WatchSampler();
      const lines: WatchLine[] = [START];
      for (const [i, look] of all.entries()) {
        sampler.look(look);
        if ((i + 1) % every === 0 || i === all.length - 1) lines.push(sampler.sample() as WatchLine);
      }
      return explainRecord(lines);
    });
    for (const sum of sums) assert.deepEqual(sum, sums[0]);
  });

  test('commits are counted anew with each new index, and never as billions', () => {
    const sampler = new WatchSampler();
    const [first] = looks({ looks: 1, commits: 0 });
    assert.ok(first !== undefined);
    const wal = { commits: 5, index: '1:2', frames: 5, checkpointed: 0 };
    const states = [
      wal,
      undefined,
      { ...wal, commits: 2, index: '1:3', frames: 2 },
      { ...wal, commits: 1, index: '1:3' },
    ];
    for (const [i, now] of states.entries())
      sampler.look({ ...first, atMs: first.atMs + i * STEP_MS, wal: now });
    // 2 in the second index, and 1 in the third, which has the inode of the second.
    assert.equal(sampler.sample()?.commits, 3);
    const ends = { ...wal, commits: 2 ** 32 - 1 };
    sampler.look({ ...first, wal: ends });
    sampler.sample();
    sampler.look({ ...first, wal: { ...wal, commits: 1 } });
    assert.equal(sampler.sample()?.commits, 2, 'the count has 32 bits');
  });

  test('a server with many short reads pins nothing, and a reader of one state does', () => {
    const sampler = new WatchSampler();
    const [first] = looks({ looks: 1, commits: 0 });
    assert.ok(first !== undefined);
    for (let i = 0; i < 100; i++) {
      const readers = [
        { pid: 7, reads: `READ${1 + (i % 2)}@${i}`, isPinning: false },
        { pid: 8, reads: 'READ3@0', isPinning: i > 0 },
      ];
      sampler.look({ ...first, atMs: first.atMs + i * STEP_MS, readers });
    }
    const sample = sampler.sample();
    assert.ok(sample !== undefined);
    const text = presentExplanation(explainRecord([START, sample]));
    assert.match(text, /PID 8 read one state for 2\.48 s, and pinned the WAL meanwhile/);
    assert.doesNotMatch(text, /PID 7 /);
  });

  test('in rollback mode a commit ends a hold, and so does a gap between two looks in any mode', () => {
    const sampler = new WatchSampler(1000);
    const [first] = looks({ looks: 1, writer: 1, commits: 0 });
    assert.ok(first !== undefined);
    const at = (ms: number, changes: number): void =>
      sampler.look({ ...first, atMs: first.atMs + ms, wal: undefined, changes });
    for (let i = 0; i < 80; i++) at(i * STEP_MS, i);
    at(60_000, 79);
    const sample = sampler.sample();
    assert.ok(sample !== undefined);
    assert.equal(sample.commits, 79);
    assert.deepEqual([...new Set(sample.holds.map(({ forMs }) => forMs))], [0]);
    assert.deepEqual([sample.holder?.forMs, sample.readers[0]?.forMs], [0, 0]);
  });

  test('a process is not blamed for what another one with its number did before', () => {
    const sampler = new WatchSampler();
    for (const look of looks({ looks: 41, writer: 1, commits: 1 })) sampler.look(look);
    const sample = sampler.sample() as WatchLine;
    const { processes } = explainRecord([
      START,
      { type: 'process', pid: 1, command: 'import', startedAtMs: 1 },
      { ...(sample as WatchSample), holds: [(sample as WatchSample).holder as Hold], holder: undefined },
      { type: 'process', pid: 1, command: 'web', startedAtMs: 2 },
      { ...(sample as WatchSample), heldLooks: {}, waitedLooks: { 1: 41 }, holds: [], holder: undefined },
    ]);
    const of = (command: string): unknown => {
      const one = processes.find((each) => each.command === command);
      return [one?.heldShare, one?.waitedShare, one?.longest?.forMs];
    };
    assert.deepEqual(of('import'), [0.5, 0, 1000]);
    assert.deepEqual(of('web'), [0, 0.5, undefined]);
  });

  test('looks that take long are made more seldom', () => {
    assert.equal(pauseAfter(0.2, 25, 100), 25);
    assert.equal(pauseAfter(5, 25, 100), 500);
    assert.equal(pauseAfter(5000, 25, 100), 10_000);
    assert.equal(pauseAfter(1, 2000, 100), 2000);
  });

  test('a hold lasts over a pause that was meant', () => {
    const sampler = new WatchSampler(1000);
    for (const atMs of [0, 2000, 4000])
      sampler.look({ atMs, writer: 7, waiting: [], readers: [], walBytes: 0, pageSize: 4096 }, 2000);
    assert.equal(sampler.sample()?.holder?.forMs, 4000);
  });

  test('a record without the end of its last line is read, and anything else is refused', () => {
    const sampler = new WatchSampler();
    for (const look of looks({ looks: 2, writer: 1, commits: 1 })) sampler.look(look);
    const text = `${JSON.stringify(START)}\n${JSON.stringify(sampler.sample())}\n`;
    assert.equal(readRecord(`${text}{"type":"sam`, 'r').length, 2);
    for (const other of [
      '{}\n',
      'text\n',
      '',
      `${text}{"type":"sample"}\n`,
      text.replace(/"commits":\d+/, '"commits":"1"'),
      text.replace('"waiting":[]', '"waiting":["a"]'),
      text.replace('"format":1', '"format":2'),
    ])
      assert.throws(() => readRecord(other, 'r'), { code: 'USAGE' });
  });

  test('the screen shows the writer, the waiting, the longest hold and the readers', () => {
    const screen = new WatchScreen('a\u001b]0;x\u0007pp.db');
    screen.add({ ...START, unseen: ['others\u001b[2J'] });
    screen.add({ type: 'process', pid: 1, command: 'node\u001b worker.js' });
    const sampler = new WatchSampler();
    for (const look of looks({ looks: 41, writer: 1, waiting: [2], commits: 1 })) sampler.look(look);
    screen.add(sampler.sample() as WatchLine);
    const text = screen.lines().join('\n');
    assert.match(text, /Writer {4}PID 1 node\ufffd worker\.js for 1\.00 s/);
    assert.match(text, /Waiting {3}PID 2\n/);
    assert.match(text, /\nNot seen: others/);
    assert.ok(!text.includes('\u001b') && !text.includes('\u0007'), 'no name writes to the terminal');
    assert.match(text, /Longest {3}PID 1 .* for 1\.00 s at .*, 1 waited/);
    assert.match(screen.line(), /, PID 1 node.* for 1\.00 s, 1 wait, 0 commits\/s/);
  });
});

describe('sqlsync doctor --watch', { skip: LINUX }, () => {
  test('a watch records who held the lock, who waited and who read, and --explain sums the record up', async (t) => {
    const folder = tempDir(t);
    const path = join(folder, 'a.db');
    smallDatabase(path);
    change(path, 'CREATE TABLE w (x)');
    const [one, two, three] = [new OtherProcess(t), new OtherProcess(t), new OtherProcess(t)];
    const writer = await one.open(path);
    const waiter = await two.open(path, { timeoutMs: 60_000 });
    const reader = await three.open(path);
    await reader.exec('BEGIN; SELECT count(*) FROM w');
    const record = join(folder, 'record.jsonl');
    const command = new Command(['doctor', '--watch', '--record', record, '--interval', '100ms', path]);
    t.after(() => command.child.kill('SIGKILL'));
    await command.says('no writer');
    await writer.exec('BEGIN IMMEDIATE');
    const waited = waiter.exec('BEGIN IMMEDIATE');
    await command.says('1 wait');
    await until(() => /for [1-9]\d*\.\d+ s, 1 wait/.test(command.said), command);
    await writer.exec('COMMIT');
    await waited;
    for (let i = 0; i < 20; i++) await waiter.exec(i === 0 ? 'COMMIT' : 'INSERT INTO w VALUES (1)');
    await until(() => commitsIn(record) === 19, command);
    command.child.kill('SIGINT');
    const { status, stdout } = await command.done;
    assert.equal(status, 0, stdout);
    const explained = await sqlsync(['doctor', '--explain', record]);
    assert.equal(explained.status, 0);
    assert.ok(stdout.endsWith(explained.stdout), 'the watch ends with the same sums');
    assert.match(
      explained.stdout,
      new RegExp(`PID ${one.pid} .*held the write lock .* 1 time for over 1 s; .* while 1 process waited`),
    );
    assert.match(explained.stdout, new RegExp(`PID ${two.pid} .*probably waited for it`));
    assert.match(
      explained.stdout,
      new RegExp(`PID ${three.pid} .*read one state for .*, and pinned the WAL meanwhile`),
    );
    const asJson = await sqlsync(['doctor', '--explain', '--json', record]);
    const summary = jsonLines(asJson.stdout).at(-1);
    assertDocumented('doctor', summary as NonNullable<typeof summary>);
    assert.equal(summary?.['commits'], 19, 'a transaction without a change is no commit');
    assert.equal(readFileSync(record, 'utf8').split('\n').length > 5, true);
  });

  test('programs that come and go have as many commits in a watch as they made, at most', async (t) => {
    const folder = tempDir(t);
    const path = join(folder, 'a.db');
    change(path, 'PRAGMA journal_mode = WAL; CREATE TABLE w (x)');
    const record = join(folder, 'record.jsonl');
    const command = new Command(['doctor', '--watch', '--record', record, '--interval', '50ms', path]);
    t.after(() => command.child.kill('SIGKILL'));
    await command.says('no writer');
    let runs = 0;
    // A look may come between any two commits, or between none of them.
    for (; runs < 8 || commitsIn(record) === 0; runs++) {
      const connection = await new OtherProcess(t).open(path);
      for (let j = 0; j < 3; j++) await connection.exec('INSERT INTO w VALUES (1)');
      await delay(60);
      await connection.call('close');
    }
    command.child.kill('SIGINT');
    await command.done;
    const commits = commitsIn(record);
    assert.ok(commits > 0 && commits <= runs * 3, `${commits} commits`);
  });

  test('a writer beside a watch never gets a busy error, and the watch leaves its files alone', async (t) => {
    for (const mode of ['wal', 'delete']) {
      const folder = tempDir(t);
      const path = join(folder, 'a.db');
      smallDatabase(path, { rows: 40 });
      change(path, `PRAGMA journal_mode = ${mode}; CREATE TABLE w (x)`);
      const before = Object.keys(folderState(folder));
      const writer = await new OtherProcess(t).open(path, { timeoutMs: 0 });
      const command = new Command(['doctor', '--watch', '--interval', '50ms', '--max-time', '2', path]);
      const ended = command.done.then(() => true);
      const more = (): Promise<boolean> => Promise.race([ended, writer.exec('SELECT 1').then(() => false)]);
      while (!(await more())) await writer.exec('BEGIN EXCLUSIVE; INSERT INTO w VALUES (1); COMMIT');
      assert.equal((await command.done).status, 0);
      await writer.call('close');
      assert.deepEqual(Object.keys(folderState(folder)), before);
    }
  });

  test('a watch refuses what is no database file, and ends when another file takes the name', async (t) => {
    const folder = tempDir(t);
    const record = join(folder, 'record.jsonl');
    const watch = (path: string): string[] => ['doctor', '--watch', '--record', record, path];
    const none = { code: 'ORIGIN_NOT_FOUND', status: 3, says: /does not exist/ } as const;
    await assertRefused(watch(join(folder, 'none.db')), none);
    assert.ok(!existsSync(record), 'nothing was recorded');
    await assertRefused(watch(folder), { code: 'ORIGIN_NOT_A_DATABASE', status: 3, says: /regular file/ });
    const path = join(folder, 'a.db');
    smallDatabase(path);
    smallDatabase(`${path}.new`);
    const command = new Command(watch(path));
    t.after(() => command.child.kill('SIGKILL'));
    await command.says('no writer');
    renameSync(`${path}.new`, path);
    const { status, stderr } = await command.done;
    assert.equal(status, 3, stderr);
    assert.match(stderr, /ORIGIN_REPLACED/);
    assert.equal(statSync(record).mode & 0o077, 0, 'command lines may have passwords');
  });

  test('a watch ends when its reader has read enough', async (t) => {
    const path = join(tempDir(t), 'a.db');
    smallDatabase(path);
    const line = `"$1" "$2" doctor --watch --interval 20ms "$3" | head -n 2`;
    const child = spawn('sh', ['-c', line, 'sh', process.execPath, PROGRAM, path], {
      stdio: ['ignore', 'pipe', 'inherit'],
      detached: true,
    });
    t.after(() => {
      // The whole job, unless it has ended.
      if (child.exitCode === null && child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
    });
    const [status] = (await once(child, 'close')) as [number];
    assert.equal(status, 0);
  });

  test('Ctrl-C ends a watch of a host that does not answer', async (t) => {
    const folder = tempDir(t);
    const rsh = join(folder, 'hangs');
    const reached = join(folder, 'reached');
    writeFileSync(rsh, `#!/bin/sh\n: > '${reached}'\nexec sleep 600\n`, { mode: 0o755 });
    const command = new Command(['doctor', '--watch', '--rsh', rsh, 'nowhere:a.db']);
    t.after(() => command.child.kill('SIGKILL'));
    await until(() => existsSync(reached), command);
    command.child.kill('SIGINT');
    const { status, stdout } = await command.done;
    assert.equal(status, 0, stdout);
    assert.match(stdout, /0 looks/);
  });

  test('a watch writes its record over no file, and options that exclude each other are refused', async (t) => {
    const folder = tempDir(t);
    const path = join(folder, 'a.db');
    smallDatabase(path);
    const refused = { code: 'USAGE', status: 2 } as const;
    await assertRefused(['doctor', '--watch', '--record', path, path], {
      ...refused,
      says: /exists already/,
    });
    await assertRefused(['doctor', '--record', join(folder, 'r'), path], {
      ...refused,
      says: /needs --watch/,
    });
    writeFileSync(join(folder, 'text'), 'text\n');
    await assertRefused(['doctor', '--explain', join(folder, 'text')], { ...refused, says: /is no record/ });
    const both = await sqlsync(['doctor', '--watch', '--full', path]);
    assert.match(both.stderr, /--full and --watch exclude each other/);
    assert.equal(both.status, 2);
  });
});

function commitsIn(record: string): number {
  const samples = readRecord(readFileSync(record, 'utf8'), record).filter((line) => line.type === 'sample');
  return samples.reduce((sum, { commits = 0 }) => sum + commits, 0);
}
