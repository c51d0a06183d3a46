import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { PASSED_OVER_MAX, WriteQueue } from '../../../src/pool/write/write-queue.ts';
import type { Priority } from '../../../src/pool/types.ts';

interface Item {
  readonly priority: Priority;
  readonly number: number;
}

const PRIORITIES: readonly Priority[] = ['interactive', 'normal', 'background'];
const anyPriority = fc.constantFrom(...PRIORITIES);
const anySteps = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: anyPriority },
    { weight: 2, arbitrary: fc.constant('take' as const) },
    { weight: 1, arbitrary: fc.nat(20).map((place) => ({ remove: place })) },
  ),
  { maxLength: 300 },
);

describe('the write queue', () => {
  test('the write queue serves the highest priority first, and the first come within one', () => {
    const queue = queueOf(['background', 'normal', 'interactive', 'normal', 'interactive']);
    assert.deepEqual(takeAll(queue), [2, 4, 1, 3, 0]);
  });

  test('the write queue serves every job that does not give up once, and no other', () => {
    fc.assert(
      fc.property(anySteps, (steps) => {
        const { queue, expected, taken } = play(steps);
        assert.equal(queue.size, expected.length);
        assert.equal(queue.items().length, expected.length);
        const all = [...taken.map(({ number }) => number), ...takeAll(queue)];
        assert.equal(new Set(all).size, all.length);
        assert.deepEqual(
          all.toSorted((a, b) => a - b),
          [...taken, ...expected].map(({ number }) => number).toSorted((a, b) => a - b),
        );
      }),
    );
  });

  test('the write queue keeps the order within a priority, though other jobs come and go', () => {
    fc.assert(
      fc.property(anySteps, (steps) => {
        const { taken } = play(steps);
        for (const priority of PRIORITIES) {
          const numbers = taken.filter((item) => item.priority === priority).map(({ number }) => number);
          assert.deepEqual(
            numbers,
            numbers.toSorted((a, b) => a - b),
          );
        }
      }),
    );
  });

  test('the write queue serves every priority at least once in 10 servings, however many jobs of others come', () => {
    assert.equal(PASSED_OVER_MAX, 8);
    const anyArrivals = fc.array(fc.array(anyPriority, { maxLength: 8 }), { maxLength: 120, size: 'max' });
    fc.assert(
      fc.property(anyArrivals, (arrivals) => {
        const queue = new WriteQueue<Item>();
        const sinceServed: Record<Priority, number> = { interactive: 0, normal: 0, background: 0 };
        let number = 0;
        for (const arriving of arrivals) {
          for (const priority of arriving) queue.push({ priority, number: number++ });
          const waiting = new Set(queue.items().map(({ priority }) => priority));
          const served = queue.take();
          for (const priority of PRIORITIES) {
            const isPassedOver = waiting.has(priority) && served?.priority !== priority;
            sinceServed[priority] = isPassedOver ? sinceServed[priority] + 1 : 0;
            assert.ok(sinceServed[priority] <= 9, `${priority} is starved`);
          }
        }
      }),
    );
  });

  test('the write queue serves the job that it named before, as long as no other came in between', () => {
    fc.assert(
      fc.property(anySteps, (steps) => {
        const { queue } = play(steps);
        while (queue.size > 0) assert.equal(queue.peek(), queue.take());
        assert.equal(queue.take(), undefined);
      }),
    );
  });

  test('the write queue lets a job that has to run again be the first of its priority', () => {
    const queue = queueOf(['normal', 'normal']);
    const served = queue.take() as Item;
    queue.pushFront(served);
    assert.deepEqual(takeAll(queue), [0, 1]);
  });
});

function queueOf(priorities: readonly Priority[]): WriteQueue<Item> {
  const queue = new WriteQueue<Item>();
  for (const [number, priority] of priorities.entries()) queue.push({ priority, number });
  return queue;
}

function takeAll(queue: WriteQueue<Item>): number[] {
  const numbers: number[] = [];
  for (let item = queue.take(); item !== undefined; item = queue.take()) numbers.push(item.number);
  return numbers;
}

/** Does the steps on a queue and on a list. */
function play(steps: readonly (Priority | 'take' | { remove: number })[]): {
  queue: WriteQueue<Item>;
  expected: Item[];
  taken: Item[];
} {
  const queue = new WriteQueue<Item>();
  let expected: Item[] = [];
  const taken: Item[] = [];
  for (const [number, step] of steps.entries()) {
    if (step === 'take') {
      const item = queue.take();
      if (item !== undefined) taken.push(item);
      expected = expected.filter((other) => other !== item);
    } else if (typeof step === 'object') {
      const item = expected[step.remove];
      if (item === undefined) continue;
      assert.equal(queue.remove(item), true);
      assert.equal(queue.remove(item), false);
      expected = expected.filter((other) => other !== item);
    } else {
      const item = { priority: step, number };
      queue.push(item);
      expected.push(item);
    }
  }
  return { queue, expected, taken };
}
