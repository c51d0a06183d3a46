import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setImmediate as immediate } from 'node:timers/promises';
import { SqlsyncError } from '../../../src/errors.ts';
import { openDatabase } from '../../../src/pool/database.ts';
import type { Database, DatabaseOptions, ReadConnection } from '../../../src/pool/types.ts';
import { tempDir } from '../../support/compare.ts';

async function open(t: TestContext, options: DatabaseOptions = {}): Promise<Database> {
  const db = await openDatabase(join(tempDir(t), 'a.db'), { admission: 'none', ...options });
  t.after(() => db.close());
  await db.write.exec('CREATE TABLE t (id INTEGER PRIMARY KEY, value)');
  await db.write.transaction(async (tx) => {
    for (let id = 1; id <= 10; id += 1) await tx.run('INSERT INTO t VALUES (?, ?)', [id, id * id]);
  });
  return db;
}

/** A snapshot that lasts until the test ends it. */
function heldSnapshot(db: Database, label: string): { end(): Promise<void>; begun: Promise<void> } {
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  let begin = (): void => undefined;
  const begun = new Promise<void>((resolve) => (begin = resolve));
  const done = db.read.snapshot(
    async () => {
      begin();
      await released;
    },
    { label },
  );
  return {
    begun,
    end: () => {
      release();
      return done;
    },
  };
}

const count = (r: ReadConnection): Promise<unknown> => r.get('SELECT count(*) AS n FROM t');

describe('a snapshot', () => {
  test('a snapshot sees one state across awaits, though others write meanwhile', async (t) => {
    const db = await open(t, { readers: 1 });
    const seen = await db.read.snapshot(async (r) => {
      const before = await count(r);
      await db.write.run('DELETE FROM t WHERE id > 5');
      await immediate();
      return [before, await count(r)];
    });
    assert.deepEqual(seen, [{ n: 10 }, { n: 10 }]);
    assert.deepEqual(await count(db.read), { n: 5 });
  });

  test('a snapshot is fixed when it begins, not at its first query', async (t) => {
    const db = await open(t);
    const seen = await db.read.snapshot(async (r) => {
      await db.write.run('DELETE FROM t');
      return count(r);
    });
    assert.deepEqual(seen, { n: 10 });
  });

  test('a snapshot sees the same in queries and in several iterations at a time', async (t) => {
    const db = await open(t, { readers: 1 });
    await db.read.snapshot(async (r) => {
      const sums: number[] = [];
      for await (const outer of r.iterate<{ id: number }>('SELECT id FROM t WHERE id <= ?', [3])) {
        await db.write.run('UPDATE t SET value = value + 1');
        let sum = 0;
        for await (const inner of r.iterate<{ id: number }>('SELECT id FROM t WHERE id <= ?', [outer.id])) {
          sum += inner.id;
        }
        sums.push(sum);
        assert.deepEqual(await r.get('SELECT sum(value) AS n FROM t'), { n: 385 });
      }
      assert.deepEqual(sums, [1, 3, 6]);
    });
  });

  test('a snapshot hands on what its function throws, and leaves its connection clean', async (t) => {
    const db = await open(t, { readers: 1 });
    const error = new Error('mine');
    await assert.rejects(
      db.read.snapshot(() => {
        throw error;
      }),
      (thrown) => thrown === error,
    );
    await db.write.run('DELETE FROM t');
    assert.deepEqual(await count(db.read), { n: 0 });
  });

  test('a snapshot refuses calls after its end, also of an iteration that was begun in it', async (t) => {
    const db = await open(t, { readers: 1 });
    const left = await db.read.snapshot(async (r) => {
      const rows = r.iterate('SELECT * FROM t')[Symbol.asyncIterator]();
      await rows.next();
      return { r, rows };
    });
    await assert.rejects(left.r.all('SELECT 1'), { code: 'TX_ENDED' });
    await assert.rejects(left.r.get('SELECT 1'), { code: 'TX_ENDED' });
    await assert.rejects(left.rows.next(), { code: 'TX_ENDED' });
    await db.write.run('DELETE FROM t');
    assert.deepEqual(await count(db.read), { n: 0 });
  });

  test('a snapshot ends at its next query once its signal aborts', async (t) => {
    const db = await open(t, { readers: 1 });
    const controller = new AbortController();
    const running = db.read.snapshot(
      async (r) => {
        await count(r);
        controller.abort(new Error('enough'));
        await count(r);
      },
      { signal: controller.signal },
    );
    await assert.rejects(running, (error: SqlsyncError) => {
      assert.equal(error.code, 'ABORTED');
      assert.equal((error.cause as Error).message, 'enough');
      return true;
    });
    assert.equal(db.stats().read.inUse, 0);
  });
});

describe('the read pool', () => {
  test('the read pool answers while a write transaction is open, from the state before it', async (t) => {
    const db = await open(t, { readers: 1 });
    await db.write.transaction(async (tx) => {
      await tx.run('DELETE FROM t');
      assert.deepEqual(await count(tx), { n: 0 });
      assert.deepEqual(await count(db.read), { n: 10 });
    });
    assert.deepEqual(await count(db.read), { n: 0 });
  });

  test('the read pool serves those who wait in the order in which they came', async (t) => {
    const db = await open(t, { readers: 2 });
    const held = [heldSnapshot(db, 'a'), heldSnapshot(db, 'b')];
    await Promise.all(held.map((snapshot) => snapshot.begun));
    const served: number[] = [];
    const waiting = Array.from({ length: 20 }, async (_, index) => {
      if (index % 3 === 0) await db.read.snapshot(() => served.push(index));
      else if (index % 3 === 1) {
        await db.read.all('SELECT 1');
        served.push(index);
      } else {
        for await (const row of db.read.iterate('SELECT 1 AS one')) served.push(row ? index : -1);
      }
    });
    assert.equal(db.stats().read.queueLength, 20);
    await held[0]?.end();
    await Promise.all(waiting);
    // Kinds of reads take a different number of microtasks to settle: the test checks the order within each.
    for (const kind of [0, 1, 2]) {
      const ofKind = served.filter((index) => index % 3 === kind);
      assert.deepEqual(
        ofKind,
        ofKind.toSorted((a, b) => a - b),
      );
    }
    assert.equal(served.length, 20);
    await held[1]?.end();
  });

  test('the read pool waits on with a deadline beyond what a timer can count to', async (t) => {
    const db = await open(t, { readers: 1 });
    const held = heldSnapshot(db, 'report');
    await held.begun;
    const reads = [2 ** 31, Infinity].map((deadlineMs) => db.read.get('SELECT 1 AS x', [], { deadlineMs }));
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(db.stats().read.queueLength, 2);
    await held.end();
    assert.deepEqual(await Promise.all(reads), [{ x: 1 }, { x: 1 }]);
  });

  test('the read pool gives up at the deadline, and names the holders of the connections', async (t) => {
    const db = await open(t, { readers: 1, busyTimeoutMs: 30 });
    const held = heldSnapshot(db, 'report');
    await held.begun;
    const reads: Promise<unknown>[] = [
      db.read.all('SELECT 1', [], { label: 'list' }),
      db.read.get('SELECT 1', [], { deadlineMs: 1 }),
      db.read.snapshot(() => assert.fail('it has no connection')),
      db.read.iterate('SELECT 1')[Symbol.asyncIterator]().next(),
    ];
    const errors = (await Promise.allSettled(reads)).map(
      (result) => (result as PromiseRejectedResult).reason as SqlsyncError,
    );
    assert.deepEqual(
      errors.map((error) => error.code),
      Array.from({ length: 4 }, () => 'READ_TIMEOUT'),
    );
    assert.match(
      errors[0]?.message ?? '',
      /"list" waited \d+ ms for one of 1 read connections.*"report" has had one/,
    );
    assert.match(errors[0]?.hint ?? '', /readers/);
    assert.equal(db.stats().read.timeouts, 4);
    assert.equal(db.stats().read.queueLength, 0);
    await held.end();
    assert.deepEqual(await count(db.read), { n: 10 });
  });

  test('the read pool lets go of a read that waits when its signal aborts, and serves the next', async (t) => {
    const db = await open(t, { readers: 1 });
    const held = heldSnapshot(db, 'a');
    await held.begun;
    const controller = new AbortController();
    const first = db.read.all('SELECT 1', [], { signal: controller.signal });
    const second = db.read.get('SELECT 2 AS n');
    controller.abort();
    await assert.rejects(first, { code: 'ABORTED' });
    await held.end();
    assert.deepEqual(await second, { n: 2 });
    await assert.rejects(db.read.all('SELECT 1', [], { signal: controller.signal }), { code: 'ABORTED' });
  });

  test('the read pool names holders and waiting reads, and the times they took, by label', async (t) => {
    const db = await open(t, { readers: 1 });
    const events: unknown[] = [];
    const listen = (event: unknown): void => void events.push(event);
    subscribe('sqlsync:pool:read', listen);
    t.after(() => unsubscribe('sqlsync:pool:read', listen));
    const held = heldSnapshot(db, 'report');
    await held.begun;
    const waiting = db.read.all('SELECT 1', [], { label: 'list' });
    const during = db.stats().read;
    assert.deepEqual([during.connections, during.inUse, during.queueLength], [1, 1, 1]);
    assert.equal(during.holders[0]?.label, 'report');
    assert.equal(during.waiting[0]?.label, 'list');
    await held.end();
    await waiting;
    const { inUse, labels } = db.stats().read;
    assert.equal(inUse, 0);
    assert.equal(labels['list']?.wait.count, 1);
    assert.ok((labels['list']?.wait.maxMs ?? 0) > 0);
    assert.equal(labels['report']?.hold.count, 1);
    assert.deepEqual(
      events.map((event) => (event as { label: string }).label),
      ['report', 'list'],
    );
  });

  test('the read pool finishes running and waiting reads when it is closed, and takes no more', async (t) => {
    const db = await open(t, { readers: 1 });
    const held = heldSnapshot(db, 'a');
    await held.begun;
    const waiting = count(db.read);
    const closing = db.close();
    await assert.rejects(count(db.read), { code: 'CLOSED' });
    await assert.rejects(
      db.read.snapshot(() => 1),
      { code: 'CLOSED' },
    );
    await assert.rejects(db.read.iterate('SELECT 1')[Symbol.asyncIterator]().next(), { code: 'CLOSED' });
    await held.end();
    assert.deepEqual(await waiting, { n: 10 });
    await closing;
    assert.ok(!existsSync(`${db.path}-wal`), 'a connection was left open');
  });

  test('the read pool lets the event loop turn while queries follow each other without end', async (t) => {
    const db = await open(t);
    let turned = false;
    setImmediate(() => (turned = true));
    for (let queries = 0; !turned; queries += 1) {
      assert.ok(queries < 10_000_000, 'the event loop never turned');
      await count(db.read);
    }
  });

  test('the read pool refuses a thread if it has none', async (t) => {
    const db = await open(t);
    await assert.rejects(db.read.all('SELECT 1', [], { thread: true }), { code: 'USAGE' });
  });
});

for (const threads of [0, 1]) {
  describe(`an iteration${threads === 0 ? '' : ' in a thread'}`, () => {
    const LARGE =
      'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT i FROM n';

    test('an iteration gives all rows in their order', async (t) => {
      const db = await open(t, { readers: 1, threads });
      let last = 0;
      for await (const row of db.read.iterate<{ i: number }>(LARGE, [20_000])) {
        assert.equal(row.i, last + 1);
        last = row.i;
      }
      assert.equal(last, 20_000);
    });

    test('an iteration sees one state to its end', async (t) => {
      const db = await open(t, { readers: 1, threads });
      let rows = 0;
      for await (const row of db.read.iterate('SELECT * FROM t')) {
        rows += Object.keys(row).length === 2 ? 1 : 0;
        await db.write.run('DELETE FROM t');
      }
      assert.equal(rows, 10);
    });

    test('an iteration gives its connection back, clean, when its loop is left early', async (t) => {
      const db = await open(t, { readers: 1, threads, busyTimeoutMs: 2000 });
      const error = new Error('mine');
      for (let round = 0; round < 3; round += 1) {
        for await (const row of db.read.iterate<{ i: number }>(LARGE, [1e9])) if (row.i === 3) break;
        await assert.rejects(
          async () => {
            for await (const row of db.read.iterate(LARGE, [1e9])) if (row) throw error;
          },
          (thrown) => thrown === error,
        );
      }
      await db.write.run('DELETE FROM t');
      assert.deepEqual(await count(db.read), { n: 0 });
      // The WAL can be emptied only while nobody reads an old state.
      assert.deepEqual(await db.write.get('PRAGMA wal_checkpoint(TRUNCATE)'), {
        busy: 0,
        log: 0,
        checkpointed: 0,
      });
    });

    test('an iteration takes no connection before its first row is asked for', async (t) => {
      const db = await open(t, { readers: 1, threads });
      const rows = db.read.iterate('SELECT 1');
      assert.deepEqual(await count(db.read), { n: 10 });
      assert.ok(rows);
    });

    test('an iteration ends when its signal aborts', async (t) => {
      const db = await open(t, { readers: 1, threads });
      const controller = new AbortController();
      let rows = 0;
      await assert.rejects(
        async () => {
          for await (const row of db.read.iterate(LARGE, [1e9], { signal: controller.signal })) {
            rows += row ? 1 : 0;
            if (rows === 10) controller.abort();
          }
        },
        { code: 'ABORTED' },
      );
      assert.deepEqual(await count(db.read), { n: 10 });
    });
  });
}
