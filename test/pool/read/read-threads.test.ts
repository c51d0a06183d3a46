import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import type { SqlsyncError } from '../../../src/errors.ts';
import { openDatabase } from '../../../src/pool/database.ts';
import type { Database, DatabaseOptions, SqlValue } from '../../../src/pool/types.ts';
import { tempDir } from '../../support/compare.ts';

/** Far more rows than anyone would want, each at once. */
const ENDLESS = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n';
/** One row, after `?` steps within SQLite, some 100 ns each, which nobody can interrupt. */
const STEPS =
  'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT max(i) AS i FROM n';

async function open(t: TestContext, options: DatabaseOptions = {}): Promise<Database> {
  const db = await openDatabase(join(tempDir(t), 'a.db'), { threads: 1, admission: 'none', ...options });
  t.after(() => db.close());
  await db.write.exec('CREATE TABLE t (id INTEGER PRIMARY KEY, value)');
  return db;
}

/** The worker threads that are started from now on. */
function startedWorkers(t: TestContext): Worker[] {
  const workers: Worker[] = [];
  const listen = (message: unknown): void => void workers.push((message as { worker: Worker }).worker);
  subscribe('worker_threads', listen);
  t.after(() => unsubscribe('worker_threads', listen));
  return workers;
}

describe('a query in a thread', () => {
  test('a query in a thread gives the same result as without one: every type of value, bit for bit', async (t) => {
    for (const safeIntegers of [false, true]) {
      const db = await open(t, { safeIntegers });
      const integer = safeIntegers ? fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n) : fc.maxSafeInteger();
      const value: fc.Arbitrary<SqlValue> = fc.oneof(
        fc.constant(null),
        integer,
        fc.double({ noNaN: true }),
        fc.string({ unit: 'binary' }).map((text) => text.replaceAll(/[\0\ud800-\udfff]/g, '')),
        fc.uint8Array({ maxLength: 100 }),
        fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
      );
      await fc.assert(
        fc.asyncProperty(fc.array(value, { maxLength: 20 }), async (values) => {
          await db.write.run('DELETE FROM t');
          for (const each of values) await db.write.run('INSERT INTO t (value) VALUES (?)', [each]);
          const sql = 'SELECT id, value, ? AS param FROM t';
          const param = values[0] ?? null;
          const expected = await db.read.all(sql, [param], { thread: false });
          assert.deepStrictEqual(await db.read.all(sql, [param]), expected);
          assert.deepStrictEqual(await db.read.get(sql, [param]), expected[0]);
          const iterated: unknown[] = [];
          for await (const row of db.read.iterate(sql, [param])) iterated.push(row);
          assert.deepStrictEqual(iterated, expected);
        }),
        { numRuns: 40 },
      );
    }
  });

  test('a query in a thread gives large results whole', async (t) => {
    const db = await open(t);
    await db.write
      .run(`INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
      SELECT i, zeroblob(i % 100 * 20) FROM n`);
    const sql = 'SELECT * FROM t';
    assert.deepStrictEqual(await db.read.all(sql), await db.read.all(sql, [], { thread: false }));
  });

  test('a query in a thread takes named parameters, and parameters that are a view of a larger buffer', async (t) => {
    const db = await open(t);
    const part = Buffer.from('0123456789').subarray(3, 5);
    assert.deepEqual(await db.read.get('SELECT :a AS a, hex($b) AS b', { a: 7, b: part }), {
      a: 7,
      b: '3334',
    });
    assert.equal(part.toString(), '34');
  });

  test('a query in a thread fails with the code that the error has without a thread', async (t) => {
    const db = await open(t, { threads: 1, readers: 1 });
    const wrong: [string, SqlValue[]][] = [
      ['SELECT nothing', []],
      ['SELECT ?', []],
      ['SELECT 1', [1]],
      [`SELECT json('{')`, []],
      ['DELETE FROM t', []],
      ['SELECT 1', [Symbol('uncloneable') as unknown as SqlValue]],
    ];
    for (const [sql, params] of wrong) {
      const [here, there] = await Promise.allSettled([
        db.read.all(sql, params, { thread: false }),
        db.read.all(sql, params),
      ]);
      assert.equal(here.status, 'rejected', sql);
      assert.equal(there.status, 'rejected', sql);
      if (typeof params[0] === 'symbol') continue;
      const [expected, actual] = [here.reason, there.reason] as [SqlsyncError, SqlsyncError];
      assert.deepEqual(
        [actual.name, actual.code, actual.message, actual.hint],
        [expected.name, expected.code, expected.message, expected.hint],
      );
    }
    assert.deepEqual(await db.read.get('SELECT 1 AS n'), { n: 1 });
  });

  test('a query in a thread does not hold up the event loop, nor queries without a thread', async (t) => {
    const db = await open(t);
    let isDone = false;
    const slow = db.read.get(STEPS, [3_000_000]).finally(() => (isDone = true));
    let answered = 0;
    while (!isDone) {
      await db.read.get('SELECT 1', [], { thread: false });
      answered += 1;
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.deepEqual(await slow, { i: 3_000_000 });
    assert.ok(answered > 1, `${answered} queries were answered meanwhile`);
  });

  test('a query waits for a free thread in the order of the calls, and no longer than its deadline', async (t) => {
    const db = await open(t);
    const rows = db.read.iterate(ENDLESS)[Symbol.asyncIterator]();
    await rows.next();
    await assert.rejects(
      db.read.all('SELECT 1', [], { deadlineMs: 5, label: 'list' }),
      (error: SqlsyncError) => {
        assert.equal(error.code, 'READ_TIMEOUT');
        assert.match(error.message, /"list" waited .* one of 1 threads/);
        assert.match(error.hint ?? '', /threads/);
        return true;
      },
    );
    const served: number[] = [];
    const waiting = [1, 2, 3].map(async (n) =>
      served.push((await db.read.get<{ n: number }>(`SELECT ${n} AS n`))?.n ?? 0),
    );
    assert.equal(db.stats().read.waiting.length, 3);
    await rows.return?.();
    await Promise.all(waiting);
    assert.deepEqual(served, [1, 2, 3]);
    assert.equal(db.stats().read.threads, 1);
  });

  test('a query in a thread runs beside others, in as many threads as the pool has', async (t) => {
    const workers = startedWorkers(t);
    const db = await open(t, { threads: 2 });
    const queries = Array.from({ length: 6 }, (_, n) => db.read.get(STEPS, [10_000 + n]));
    assert.deepEqual(
      await Promise.all(queries),
      Array.from({ length: 6 }, (_, n) => ({ i: 10_000 + n })),
    );
    assert.equal(workers.length, 2);
  });
});

describe('a thread', () => {
  test('a thread that ends in the middle of a query fails it with WORKER_LOST and is replaced', async (t) => {
    const workers = startedWorkers(t);
    const db = await open(t);
    const rows = db.read.iterate(ENDLESS)[Symbol.asyncIterator]();
    await rows.next();
    const waiting = db.read.get('SELECT 1 AS n');
    await workers[0]?.terminate();
    await assert.rejects(
      async () => {
        for (;;) await rows.next().then(({ done }) => assert.ok(done !== true));
      },
      { name: 'SqlsyncError', code: 'WORKER_LOST' },
    );
    assert.deepEqual(await waiting, { n: 1 });
    assert.equal(workers.length, 2);
    assert.equal(db.stats().read.workersLost, 1);
  });

  test("the error of a thread that crashes is the cause of the query's error", async (t) => {
    const workers = startedWorkers(t);
    const db = await open(t);
    await db.read.get('SELECT 1');
    workers[0]?.postMessage({ type: 'nonsense' });
    await assert.rejects(db.read.get('SELECT 2 AS n'), (error: SqlsyncError) => {
      assert.equal(error.code, 'WORKER_LOST');
      assert.match(String(error.cause), /unknown request.*nonsense/);
      return true;
    });
    assert.deepEqual(await db.read.get('SELECT 3 AS n'), { n: 3 });
  });

  test('a thread that ends while it is free is replaced at the next query', async (t) => {
    const workers = startedWorkers(t);
    const db = await open(t);
    await db.read.get('SELECT 1');
    await workers[0]?.terminate();
    assert.deepEqual(await db.read.get('SELECT 2 AS n'), { n: 2 });
    assert.equal(workers.length, 2);
  });

  test('a thread is replaced when its query is aborted, which rejects at once, and leaves no lock behind', async (t) => {
    const workers = startedWorkers(t);
    const db = await open(t);
    await db.read.get('SELECT 1');
    const controller = new AbortController();
    const slow = db.read.get(STEPS, [5_000_000], { signal: controller.signal });
    const { promise: exited, resolve } = Promise.withResolvers<string>();
    workers[0]?.on('exit', () => resolve('the thread ended'));
    // By then the thread has the query.
    await new Promise((asked) => setImmediate(asked));
    controller.abort();
    const aborted = slow.catch((error: unknown) => (error as SqlsyncError).code);
    assert.equal(await Promise.race([aborted, exited]), 'ABORTED');
    assert.deepEqual(await db.read.get('SELECT 2 AS n'), { n: 2 });
    await exited;
    await db.write.run('DELETE FROM t');
    assert.deepEqual(await db.write.get('PRAGMA wal_checkpoint(TRUNCATE)'), {
      busy: 0,
      log: 0,
      checkpointed: 0,
    });
    assert.equal(db.stats().read.workersLost, 0);
  });

  test('threads do not multiply when queries are aborted again and again', async (t) => {
    const workers = startedWorkers(t);
    const db = await open(t);
    for (let round = 0; round < 5; round += 1) {
      const controller = new AbortController();
      const query = db.read.get(STEPS, [500_000], { signal: controller.signal, deadlineMs: 60_000 });
      const rejected = assert.rejects(query, { code: 'ABORTED' });
      do await new Promise((resolve) => setImmediate(resolve));
      while (db.stats().read.queueLength > 0);
      assert.ok(workers.filter((worker) => worker.threadId !== -1).length <= 3);
      controller.abort();
      await rejected;
    }
    assert.deepEqual(await db.read.get('SELECT 1 AS n'), { n: 1 });
  });

  test('a thread ends when the database is closed, its query first, and leaves no file behind', async (t) => {
    const workers = startedWorkers(t);
    const db = await open(t, { threads: 2 });
    const running = [
      db.read.get(STEPS, [100_000]),
      db.read.get(STEPS, [100_001]),
      db.read.get(STEPS, [100_002]),
    ];
    await db.close();
    assert.deepEqual(await Promise.all(running), [{ i: 100_000 }, { i: 100_001 }, { i: 100_002 }]);
    assert.deepEqual(
      workers.map((worker) => worker.threadId),
      [-1, -1],
    );
    assert.ok(!existsSync(`${db.path}-wal`));
    await assert.rejects(db.read.all('SELECT 1'), { code: 'CLOSED' });
  });

  test('a thread that is free does not keep the program from ending', (t) => {
    const path = join(tempDir(t), 'a.db');
    const program = `
      import { openDatabase } from ${JSON.stringify(new URL('../../../src/pool/database.ts', import.meta.url).href)};
      const db = await openDatabase(${JSON.stringify(path)}, { threads: 1 });
      console.log((await db.read.get('SELECT 7 AS n')).n);`;
    const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
      timeout: 120_000,
    });
    assert.deepEqual({ stdout, status }, { stdout: '7\n', status: 0 }, stderr);
  });
});
