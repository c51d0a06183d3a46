import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { collectFacts } from '../../src/doctor/collect/collect.ts';
import { isBusyHandler } from '../../src/doctor/collect/naps.ts';
import { presentReport } from '../../src/cli/doctor/present-report.ts';
import { judge } from '../../src/doctor/judge/judge.ts';
import { waitersOf } from '../../src/doctor/judge/locks.ts';
import { change } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { findingOf, holders, HOLDERS, ids, LINUX, lookUntil, startPool } from './holders.ts';

const MODES = ['delete', 'truncate', 'persist', 'memory', 'off', 'wal'] as const;

/** A table t with some rows; no process has it open. */
function database(t: TestContext, mode: string): string {
  const path = join(tempDir(t), 'a.db');
  change(path, `PRAGMA journal_mode = ${mode}; CREATE TABLE t (x); INSERT INTO t VALUES (1), (2), (3)`);
  return path;
}

const READERS = ['SHARED', 'READ0', 'READ1', 'READ2', 'READ3', 'READ4'] as const;

for (const [name, { start, skip }] of Object.entries(HOLDERS)) {
  describe(`doctor beside ${name}`, { skip: LINUX === false ? skip : LINUX }, () => {
    for (const mode of MODES) {
      test(`doctor names the writer and the reader of a database in mode ${mode} (${name})`, async (t) => {
        const path = database(t, mode);
        const [writer, reader] = [await start(t, path), await start(t, path)];
        for (const one of [writer, reader])
          if (mode !== 'wal') await one.run(`PRAGMA journal_mode = ${mode}`);
        await reader.run('BEGIN; SELECT x FROM t');
        await writer.run('BEGIN IMMEDIATE; INSERT INTO t VALUES (4)');
        const facts = await collectFacts(path);
        const found = judge(facts);
        assert.equal(facts.header?.isWal, mode === 'wal');
        assert.deepEqual(holders(facts, mode === 'wal' ? 'WRITE' : 'RESERVED'), [writer.pid]);
        assert.ok(holders(facts, ...READERS).includes(reader.pid));
        assert.match(findingOf(found, 'write-lock-held').title, new RegExp(`^PID ${writer.pid} `));
        assert.deepEqual(
          facts.processes.map(({ pid }) => pid),
          [writer.pid, reader.pid].sort((a, b) => a - b),
        );
        await writer.run('ROLLBACK');
        const after = judge(await collectFacts(path));
        assert.ok(!ids(after).includes('write-lock-held'), 'the lock was given up');
      });
    }

    test(`doctor says who waits for the writer, and of no one else (${name})`, async (t) => {
      const path = database(t, 'wal');
      const [writer, waiter, idle] = [await start(t, path), await start(t, path), await start(t, path)];
      await idle.run('SELECT x FROM t');
      await writer.run('BEGIN IMMEDIATE');
      const waited = waiter.run('BEGIN IMMEDIATE');
      const { found } = await lookUntil(
        path,
        (_, facts) => waitersOf(facts).includes(waiter.pid),
        (_, facts) => assert.ok(waitersOf(facts).every((pid) => pid === waiter.pid)),
      );
      const held = findingOf(found, 'write-lock-held');
      assert.equal(held.severity, 'blocked');
      assert.match(held.meaning, new RegExp(`Probably PID ${waiter.pid} `));
      await writer.run('ROLLBACK');
      await waited;
    });

    test(`doctor names who holds the whole database by locking_mode EXCLUSIVE (${name})`, async (t) => {
      for (const mode of ['delete', 'wal']) {
        const path = database(t, mode);
        const holder = await start(t, path);
        await holder.run('PRAGMA locking_mode = EXCLUSIVE; UPDATE t SET x = 5');
        const facts = await collectFacts(path);
        assert.deepEqual(holders(facts, 'EXCLUSIVE'), [holder.pid], mode);
        const found = judge(facts);
        assert.match(findingOf(found, 'exclusive').title, new RegExp(`^PID ${holder.pid} `));
        assert.ok(!ids(found).includes('wal-without-process'), 'a process has it open');
      }
    });

    test(`doctor says which reader keeps a commit in rollback mode waiting (${name})`, async (t) => {
      const path = database(t, 'delete');
      const [writer, reader] = [await start(t, path), await start(t, path)];
      await reader.run('BEGIN; SELECT x FROM t');
      await writer.run('BEGIN IMMEDIATE; INSERT INTO t VALUES (4)');
      const committed = writer.run('COMMIT');
      const { found } = await lookUntil(path, (each) => ids(each).includes('readers-block-writer'));
      const { title, meaning } = findingOf(found, 'readers-block-writer');
      assert.match(title, new RegExp(`^PID ${writer.pid} `));
      assert.match(meaning, new RegExp(`waits for PID ${reader.pid} `));
      await reader.run('COMMIT');
      await committed;
    });

    test(`doctor says that a checkpoint waits for a reader with the writer's lock (${name})`, async (t) => {
      const path = database(t, 'wal');
      const [writer, reader] = [await start(t, path), await start(t, path)];
      await writer.run('INSERT INTO t VALUES (4)');
      await reader.run('BEGIN; SELECT x FROM t');
      await writer.run('INSERT INTO t VALUES (5)');
      const done = writer.run('PRAGMA wal_checkpoint(TRUNCATE)');
      const { found } = await lookUntil(path, (each) => ids(each).includes('checkpoint-waits'));
      const { title, meaning } = findingOf(found, 'checkpoint-waits');
      assert.match(title, new RegExp(`PID ${writer.pid} `));
      assert.match(meaning, new RegExp(`PID ${reader.pid} `));
      await reader.run('COMMIT');
      await done;
    });

    test(`doctor says that a holder is stopped, and the line that mends it (${name})`, async (t) => {
      const path = database(t, 'wal');
      const writer = await start(t, path);
      await writer.run('BEGIN IMMEDIATE');
      process.kill(writer.pid, 'SIGSTOP');
      const { found } = await lookUntil(path, (each) => ids(each).includes('holder-stopped'));
      assert.equal(findingOf(found, 'holder-stopped').mend, `kill -CONT ${writer.pid}`);
      process.kill(writer.pid, 'SIGCONT');
      await writer.run('ROLLBACK');
    });
  });
}

describe('doctor beside the pools', { skip: LINUX }, () => {
  test('doctor names the process whose pool holds the writer', async (t) => {
    const path = database(t, 'wal');
    const { pid } = await startPool(t, path, 'import', 'hold');
    const facts = await collectFacts(path);
    assert.deepEqual(holders(facts, 'WRITE'), [pid]);
    const { title } = findingOf(judge(facts), 'write-lock-held');
    assert.match(title, new RegExp(`^PID ${pid} .*pool-child`));
  });

  test('doctor names who holds and who waits by the labels of their pools', async (t) => {
    const path = database(t, 'wal');
    const holder = await startPool(t, path, 'nightly import', 'hold');
    const waiter = await startPool(t, path, 'a "request"', 'wait');
    let facts = await collectFacts(path);
    // They enter the queue a moment after they have opened the database, and on a busy machine they answer late.
    const hasAll = ({ pools }: typeof facts): boolean =>
      pools.some(({ pid, writer }) => pid === holder.pid && writer !== undefined) &&
      pools.some(({ pid, waitingCount }) => pid === waiter.pid && waitingCount > 0);
    while (!hasAll(facts)) facts = await collectFacts(path);
    const { title, meaning, severity } = findingOf(judge(facts), 'write-lock-held');
    assert.match(title, new RegExp(`^PID ${holder.pid} .*writes "nightly import"`));
    assert.match(
      meaning,
      new RegExp(` PID ${waiter.pid} \\(.*waits with "a "request"".*\\) waits for it\\.$`),
    );
    assert.doesNotMatch(meaning, /Probably/);
    assert.equal(severity, 'blocked');
    const page = presentReport({ facts, findings: judge(facts) }, path);
    assert.match(page, new RegExp(`^ *${waiter.pid} .* waits  `, 'm'));
    assert.deepEqual((await collectFacts(path, { isRestricted: true })).pools, []);
  });

  test('doctor reports no holder while a program commits one short transaction after another', async (t) => {
    const path = database(t, 'wal');
    const writer = await (HOLDERS['better-sqlite3'] as (typeof HOLDERS)[string]).start(t, path);
    const signal = { isOver: false };
    const writing = (async () => {
      while (!signal.isOver) await writer.run('BEGIN IMMEDIATE; INSERT INTO t VALUES (1); COMMIT');
    })();
    const deadline = performance.now() + 60_000;
    for (let looks = 0; looks < 5;) {
      const facts = await collectFacts(path);
      assert.ok(performance.now() < deadline, 'it commits');
      if ((facts.wal.state?.newCommits ?? 0) === 0) continue;
      assert.ok(!ids(judge(facts)).includes('write-lock-held'));
      looks++;
    }
    signal.isOver = true;
    await writing;
  });
});

test(
  'doctor takes no thread that sleeps for 10 ms all day for one that waits',
  { skip: LINUX },
  async (t) => {
    const { start, skip } = HOLDERS['python'] as (typeof HOLDERS)[string];
    if (skip !== false) return t.skip(skip);
    const path = database(t, 'wal');
    const writer = await start(t, path);
    await writer.run('BEGIN IMMEDIATE');
    const program = `import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("SELECT x FROM t").fetchall()
print("ready", flush=True)
while True: time.sleep(0.01)`;
    const idle = spawn('python3', ['-c', program, path], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.after(() => idle.kill('SIGKILL'));
    await once(idle.stdout, 'data');
    // On a busy machine its naps may be as seldom as those of a waiting thread for a while.
    let inARow = 0;
    await lookUntil(path, (_, facts) => {
      assert.ok(facts.processes.some(({ pid }) => pid === idle.pid));
      inARow = waitersOf(facts).length === 0 ? inARow + 1 : 0;
      return inARow === 3;
    });
  },
);

test('the busy handler of SQLite goes to sleep at most so often', () => {
  const delays = [1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, ...Array.from({ length: 50 }, () => 100)];
  const times = delays.map((_, i) => delays.slice(0, i).reduce((sum, ms) => sum + ms, 0));
  for (const ms of [250, 300, 500, 2000])
    for (const from of times.filter((time) => time < 1000)) {
      const naps = times.filter((time) => time >= from && time < from + ms).length;
      assert.ok(isBusyHandler(naps, ms), `${naps} in ${ms} ms from ${from}`);
    }
  for (const pauseMs of [0.02, 1, 10]) assert.ok(!isBusyHandler(300 / pauseMs, 300));
});

const MANY = 50;

test('doctor lists the locks of 50 processes at once', { skip: LINUX }, async (t) => {
  const { start, skip } = HOLDERS['shell'] as (typeof HOLDERS)[string];
  if (skip !== false) return t.skip(skip);
  const path = database(t, 'wal');
  const all = await Promise.all(Array.from({ length: MANY }, () => start(t, path)));
  await Promise.all(all.map((one) => one.run('BEGIN; SELECT x FROM t')));
  const facts = await collectFacts(path);
  const expected = all.map(({ pid }) => pid).sort((a, b) => a - b);
  assert.deepEqual(
    facts.processes.map(({ pid }) => pid),
    expected,
  );
  assert.deepEqual(holders(facts, 'READ0', 'READ1', 'READ2', 'READ3', 'READ4'), expected);
});
