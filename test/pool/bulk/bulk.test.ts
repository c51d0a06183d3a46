import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BulkInterruptedError } from '../../../src/pool/bulk/bulk.ts';
import { nextTurn } from '../../../src/pool/event-loop.ts';
import type { WriteTransaction } from '../../../src/pool/types.ts';
import { OtherProcess } from '../../support/other-process.ts';
import { hold, openTemporary, valuesOf } from '../open.ts';

const insert = async (tx: WriteTransaction, x: unknown): Promise<void> => {
  await tx.run('INSERT INTO t (x) VALUES (?)', [x as number]);
};

function numbers(count: number): number[] {
  return [...Array.from({ length: count }).keys()];
}

async function* slowly(count: number, onStop: () => void = () => undefined): AsyncGenerator<number> {
  try {
    for (const number of numbers(count)) {
      await nextTurn();
      yield number;
    }
  } finally {
    onStop();
  }
}

describe('a bulk write', () => {
  test('a bulk write writes every item, in order, and reports the number of committed items after each transaction', async (t) => {
    const db = await openTemporary(t);
    const told: number[] = [];
    const options = { budgetMs: 0, onCommit: (committed: number) => void told.push(committed) };
    assert.deepEqual(await db.write.bulk(numbers(5), insert, options), { committed: 5 });
    assert.deepEqual(told, [1, 2, 3, 4, 5]);
    assert.deepEqual(await valuesOf(db), numbers(5));
  });

  test('a bulk write takes as many items into a transaction as fit its budget', async (t) => {
    const db = await openTemporary(t);
    const before = db.stats().write.commits;
    await db.write.bulk(numbers(500), insert, { budgetMs: 60_000 });
    assert.equal(db.stats().write.commits - before, 1);
    assert.equal((await valuesOf(db)).length, 500);
  });

  test('a bulk write of no items writes nothing, and one of a synchronous function works as well', async (t) => {
    const db = await openTemporary(t);
    assert.deepEqual(await db.write.bulk([], insert), { committed: 0 });
    let calls = 0;
    assert.deepEqual(await db.write.bulk(new Set([1, 2]), () => void (calls += 1)), { committed: 2 });
    assert.equal(calls, 2);
  });

  test('a bulk write takes an asynchronous source, and does not hold the writer while that has no item', async (t) => {
    const db = await openTemporary(t);
    const { promise: isWritten, resolve } = Promise.withResolvers<void>();
    async function* source(): AsyncGenerator<number> {
      yield 0;
      // Only another writer that gets its turn ends this.
      await isWritten;
      yield 1;
    }
    const bulk = db.write.bulk(source(), insert, { budgetMs: 60_000 });
    await nextTurn();
    const between = db.write.run(`INSERT INTO t (x) VALUES ('between')`).then(() => resolve());
    assert.deepEqual(await bulk, { committed: 2 });
    await between;
    assert.deepEqual(await valuesOf(db), [0, 'between', 1]);
    await db.write.bulk(slowly(50), insert);
    assert.equal((await valuesOf(db)).length, 53);
  });

  test('a bulk write lets those who wait have their turn between two transactions', async (t) => {
    const db = await openTemporary(t);
    const started = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    const bulk = db.write.bulk(
      numbers(4),
      async (tx, number) => {
        await insert(tx, number);
        started.resolve();
        await gate.promise;
      },
      { budgetMs: 0 },
    );
    await started.promise;
    const interactive = db.write.run(`INSERT INTO t (x) VALUES ('i')`, [], { priority: 'interactive' });
    gate.resolve();
    await Promise.all([bulk, interactive]);
    assert.deepEqual(await valuesOf(db), [0, 'i', 1, 2, 3]);
  });

  test('a bulk write that fails keeps the committed items, reports their number, and can be resumed there', async (t) => {
    const db = await openTemporary(t);
    const isStopped = { value: false };
    const failing = db.write.bulk(
      slowly(10, () => (isStopped.value = true)),
      async (tx, number) => {
        await insert(tx, number);
        if (number === 3) throw new Error('bad item');
      },
      { budgetMs: 0 },
    );
    const error = await failing.then(
      () => assert.fail('it did not fail'),
      (reason: unknown) => reason,
    );
    assert.ok(error instanceof BulkInterruptedError);
    assert.equal(error.code, 'BULK_INTERRUPTED');
    assert.equal(error.committed, 3);
    assert.equal((error.cause as Error).message, 'bad item');
    assert.ok(isStopped.value, 'the source was closed');
    await db.write.bulk(numbers(10).slice(error.committed), insert);
    assert.deepEqual(await valuesOf(db), numbers(10));
  });

  test('a bulk write commits the items that came before its source failed', async (t) => {
    const db = await openTemporary(t);
    function* source(): Generator<number> {
      yield* numbers(3);
      throw new Error('the file is damaged');
    }
    for (const items of [
      source(),
      (async function* () {
        yield* source();
      })(),
    ]) {
      await db.write.run('DELETE FROM t');
      await assert.rejects(db.write.bulk(items, insert), { code: 'BULK_INTERRUPTED', committed: 3 });
      assert.deepEqual(await valuesOf(db), [0, 1, 2]);
    }
  });

  test('a bulk write of an iterable that cannot begin says that nothing was committed, and why', async (t) => {
    const db = await openTemporary(t);
    const cause = new Error('the file is not there');
    const fail = (): never => {
      throw cause;
    };
    for (const items of [{ [Symbol.iterator]: fail }, { [Symbol.asyncIterator]: fail }]) {
      await assert.rejects(db.write.bulk(items, insert), { code: 'BULK_INTERRUPTED', committed: 0, cause });
    }
    assert.equal(db.stats().write.rollbacks, 0);
  });

  test('a bulk write ends when its signal aborts or the database is closed, and says how far it came', async (t) => {
    const db = await openTemporary(t);
    const abort = new AbortController();
    const aborted = db.write.bulk(
      numbers(1000),
      async (tx, number) => {
        await insert(tx, number);
        if (number === 2) abort.abort();
      },
      { budgetMs: 0, signal: abort.signal },
    );
    await assert.rejects(aborted, (error: BulkInterruptedError) => {
      assert.equal(error.committed, 2);
      assert.equal((error.cause as { code: string }).code, 'ABORTED');
      return true;
    });
    let closed: Promise<void> | undefined;
    const ended = db.write.bulk(
      numbers(1000),
      (_, number) => {
        if (number === 2) closed = db.close();
      },
      { budgetMs: 0 },
    );
    await assert.rejects(ended, (error: BulkInterruptedError) => {
      assert.equal(error.committed, 3);
      assert.equal((error.cause as { code: string }).code, 'CLOSED');
      return true;
    });
    await closed;
  });

  test('a bulk write repeats the items of a transaction that was refused as busy, none twice and none left out', async (t) => {
    const db = await openTemporary(t, { begin: 'BEGIN' });
    const neighbour = await new OtherProcess(t).open(db.path);
    let isRefused = false;
    await db.write.bulk(
      numbers(6),
      async (tx, number) => {
        await tx.all('SELECT * FROM t');
        if (number === 2 && !isRefused) {
          isRefused = true;
          await neighbour.exec(`CREATE TABLE neighbour (x)`);
        }
        // The first writes of the transaction come late, so that they meet the neighbour's write.
        if (number >= 2) {
          for (const each of number === 2 ? [0, 1, 2] : [number]) await insert(tx, each);
        }
      },
      { budgetMs: 60_000 },
    );
    assert.equal(db.stats().write.retries['SQLITE_BUSY_SNAPSHOT'], 1);
    assert.deepEqual(await valuesOf(db), numbers(6));
  });

  test('a bulk write waits in the background behind everybody else', async (t) => {
    const db = await openTemporary(t);
    const { release, done } = hold(db);
    const bulk = db.write.bulk(['bulk'], insert);
    await nextTurn();
    const other = db.write.run(`INSERT INTO t (x) VALUES ('other')`);
    release();
    await Promise.all([done, bulk, other]);
    assert.deepEqual(await valuesOf(db), ['other', 'bulk']);
  });
});
