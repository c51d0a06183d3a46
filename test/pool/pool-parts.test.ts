import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { TURN_MS, isTurnOver, nextTurn } from '../../src/pool/event-loop.ts';
import { retryDelayMs } from '../../src/pool/retry.ts';
import { StatementCache } from '../../src/pool/sql/statements.ts';
import { LabelTable, TimeHistogram } from '../../src/pool/stats.ts';
import { openWriteConnection } from '../../src/sqlite/pool-connection.ts';
import { tempDir } from '../support/compare.ts';

describe('the histogram of times', () => {
  test('the histogram gives quantiles at most an eighth above those of a sorted list, and the exact maximum', () => {
    const anyMs = fc.oneof(fc.double({ min: 0.001, max: 1, noNaN: true }), fc.integer({ min: 1, max: 1e7 }));
    fc.assert(
      fc.property(fc.array(anyMs, { minLength: 1, maxLength: 300 }), (times) => {
        const histogram = new TimeHistogram();
        for (const ms of times) histogram.record(ms);
        const sorted = times.toSorted((a, b) => a - b);
        const stats = histogram.stats();
        assert.equal(stats.count, times.length);
        assert.equal(stats.maxMs, sorted.at(-1));
        for (const [told, share] of [
          [stats.p50Ms, 0.5],
          [stats.p99Ms, 0.99],
        ] as const) {
          const exact = sorted[Math.ceil(times.length * share) - 1] as number;
          assert.ok(told >= exact && told <= exact * 1.125 + 1e-9, `${told} for ${exact}`);
        }
      }),
    );
  });

  test('the histogram takes times of any size, and gives zeros without any', () => {
    const histogram = new TimeHistogram();
    assert.deepEqual(histogram.stats(), { count: 0, p50Ms: 0, p99Ms: 0, maxMs: 0 });
    for (const ms of [0, 1e-9, 1e12]) histogram.record(ms);
    assert.equal(histogram.stats().maxMs, 1e12);
  });

  test('the histogram counts labels beyond a number as one', () => {
    const table = new LabelTable();
    for (let n = 0; n < 1000; n += 1) table.of(`user ${n}`).hold.record(1);
    const stats = table.stats();
    assert.equal(Object.keys(stats).length, 201);
    assert.equal(stats['(other)']?.hold.count, 800);
    assert.equal(stats['user 7']?.hold.count, 1);
  });
});

describe('the wait between two attempts', () => {
  test('the wait between two attempts grows from 1 ms to 10 ms, less up to a half', () => {
    const longest = [1, 2, 3, 4, 5, 6, 100].map((refusals) => retryDelayMs(refusals, () => 1));
    assert.deepEqual(longest, [1, 2, 4, 8, 10, 10, 10]);
    assert.equal(
      retryDelayMs(100, () => 0),
      5,
    );
  });
});

describe('the statement cache', () => {
  test('the statement cache gives the same statement for the same text, and lets the least used go', (t) => {
    const connection = openWriteConnection(join(tempDir(t), 'a.db'), {
      create: true,
      safeIntegers: false,
      journalSizeLimitBytes: 0,
    });
    t.after(() => connection.close());
    const cache = new StatementCache((sql) => connection.prepare(sql), 3);
    const sqls = ['SELECT 1', 'SELECT 2', 'SELECT 3', 'SELECT 4'] as const;
    const [one, two] = [cache.get(sqls[0]), cache.get(sqls[1])];
    cache.get(sqls[2]);
    assert.equal(cache.get(sqls[0]), one);
    cache.get(sqls[3]);
    assert.equal(cache.size, 3);
    assert.equal(cache.get(sqls[0]), one, 'used, so it stayed');
    assert.notEqual(cache.get(sqls[1]), two, 'the oldest of the others went');
    assert.notEqual(cache.prepareFresh(sqls[0]), one);
  });
});

describe('a turn of the event loop', () => {
  test('a turn of the event loop is over once it has lasted too long, and the next one begins anew', async () => {
    await nextTurn();
    assert.equal(isTurnOver(1000), false);
    assert.equal(isTurnOver(1000 + TURN_MS), false);
    assert.equal(isTurnOver(1000.1 + TURN_MS), true);
    assert.equal(isTurnOver(1000), true);
    await nextTurn();
    assert.equal(isTurnOver(2000), false);
  });
});
