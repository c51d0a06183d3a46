import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { explainRecord } from '../../src/doctor/watch/explain.ts';
import type { WatchLine, WatchLook } from '../../src/doctor/watch/log.ts';
import { readRecord } from '../../src/doctor/watch/log.ts';
import { WatchSampler } from '../../src/doctor/watch/sampler.ts';
import { WatchScreen } from '../../src/cli/doctor/watch-screen.ts';
import { assertRefused, Command, folderState, jsonLines, sqlsync, until } from '../cli/command.ts';
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
      readers: [7],
      wal: { commits, frames: commits, checkpointed: 0 },
      walBytes: commits * 4120,
      pageSize: 4096,
    })),
  );
}

const START: WatchLine = { type: 'watch', format: 1, path: '/srv/app.db', host: 'db1', atMs: 1_000_000 };

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
      text.replace('"format":1', '"format":2'),
    ])
      assert.throws(() => readRecord(other, 'r'), { code: 'USAGE' });
  });

  test('the screen shows the writer, the waiting, the longest hold and the readers', () => {
    const screen = new WatchScreen('app.db');
    screen.add({ type: 'process', pid: 1, command: 'node\u001b worker.js' });
    const sampler = new WatchSampler();
    for (const look of looks({ looks: 41, writer: 1, waiting: [2], commits: 1 })) sampler.look(look);
    screen.add(sampler.sample() as WatchLine);
    const text = screen.lines().join('\n');
    assert.match(text, /Writer {4}PID 1 node\ufffd worker\.js for 1\.00 s/);
    assert.match(text, /Waiting {3}PID 2\n/);
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
    assert.match(explained.stdout, new RegExp(`PID ${three.pid} .*read without a pause`));
    const asJson = await sqlsync(['doctor', '--explain', '--json', record]);
    const summary = jsonLines(asJson.stdout).at(-1);
    assertDocumented('doctor', summary as NonNullable<typeof summary>);
    assert.equal(summary?.['commits'], 19, 'a transaction without a change is no commit');
    assert.equal(readFileSync(record, 'utf8').split('\n').length > 5, true);
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
