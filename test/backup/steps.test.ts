import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planForget } from '../../src/backup/prune/plan-forget.ts';
import { coveredSteps, LEVELS, parseStep, stepLabel } from '../../src/backup/steps/step-name.ts';
import type { StepFile } from '../../src/backup/steps/step-name.ts';
import { basesOfNewest, momentUntil } from '../../src/backup/steps/stored-steps.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';

const NOW = Date.now();
const HASH = '0'.repeat(64);

/** A snapshot that was made so many seconds ago. */
function snapshot(digit: string, secondsAgo: number): StoreSnapshot {
  const time = new Date(NOW - secondsAgo * 1000);
  const place = { host: 'h', path: '/p', tags: [], statistics: { durationMs: 1 } };
  const order = { time, stored: time, generation: 1000 - secondsAgo };
  return { id: digit.repeat(64), ...place, ...order } as unknown as StoreSnapshot;
}

/** A file of the stream that begins with that snapshot. */
function step(digit: string, range: readonly [number, number], secondsAgo: number): StepFile {
  const [from, to] = range;
  const level = from < to ? 1 : 0;
  const named = { stream: digit.repeat(24), level, from, to, timeMs: NOW - secondsAgo * 1000 };
  return parseStep({ name: `${stepLabel(named)}-${HASH}`, bytes: 1 }) as StepFile;
}

function newest(
  files: readonly StepFile[],
  snapshots: readonly StoreSnapshot[],
  untilMs = Infinity,
): unknown {
  const chosen = snapshots.at(-1) as StoreSnapshot;
  const moment = momentUntil(files, { chosen, snapshots, untilMs });
  return moment && [moment.snapshot[0], moment.step];
}

test('single steps go with the whole of the file that covers them, once that is old', () => {
  const singles = [1, 2, 3, 4].map((n) => step('a', [n, n], 100 - n));
  const files = [...singles, step('a', [1, 4], 96)];
  // The limit lies within the group: each single step is still needed to reach the next one.
  assert.deepEqual(coveredSteps(files, NOW - 98_000), []);
  assert.deepEqual(coveredSteps(files, NOW - 90_000), singles);
  assert.deepEqual(coveredSteps(singles, NOW), []);
});

test('the newest state is the last one of the newest snapshot, whatever a clock said in another stream', () => {
  const snapshots = [snapshot('a', 100), snapshot('b', 50)];
  const own = [step('b', [1, 1], 40), step('b', [2, 2], 30)];
  assert.deepEqual(newest(own, snapshots), ['b', 2]);
  // A clock that is ahead.
  assert.deepEqual(newest([step('a', [1, 1], -3600), ...own], snapshots), ['b', 2]);
  // A clock that was set back: the steps have the time of their snapshot.
  assert.deepEqual(newest([step('b', [1, 1], 50), step('b', [2, 2], 50)], snapshots), ['b', 2]);
  // Another writer that goes on.
  assert.deepEqual(newest([step('a', [1, 1], 20), ...own], snapshots), ['a', 1]);
  assert.deepEqual(newest(own, snapshots, NOW - 35_000), ['b', 1]);
  assert.deepEqual(newest([step('a', [1, 1], 60)], snapshots), undefined);
});

test('a part of a change is no state, and the last part makes one only with all others', () => {
  const snapshots = [snapshot('a', 100)];
  const part = (n: number): StepFile => {
    const named = { stream: 'a'.repeat(24), level: LEVELS.part, from: n, to: n, timeMs: NOW - 50_000 };
    return parseStep({ name: `${stepLabel(named)}-${HASH}`, bytes: 1 }) as StepFile;
  };
  const whole = [step('a', [1, 1], 90), part(2), part(3), step('a', [4, 4], 50), step('a', [5, 5], 40)];
  assert.deepEqual(newest(whole, snapshots), ['a', 5]);
  assert.deepEqual(newest(whole, snapshots, NOW - 45_000), ['a', 4]);
  // The writer was killed before it had put the last part.
  for (const count of [2, 3]) assert.deepEqual(newest(whole.slice(0, count), snapshots), ['a', 1]);
  assert.throws(() => newest(whole.toSpliced(2, 1), snapshots), { code: 'STORE_FILE_MISSING' });
  assert.deepEqual(coveredSteps(whole, NOW), []);
});

test('a snapshot is needed while steps after it are newer than every snapshot of its database', () => {
  const snapshots = [snapshot('a', 100), snapshot('b', 50)];
  const needed = (...files: StepFile[]): string[] =>
    [...basesOfNewest(files, snapshots)].map(([id = '']) => id);
  assert.deepEqual(needed(step('a', [1, 1], 90), step('a', [2, 2], 40)), ['a']);
  assert.deepEqual(needed(step('a', [1, 1], 60), step('b', [1, 1], 40)), ['b']);
  assert.deepEqual(needed(step('a', [1, 1], 30), step('b', [1, 1], 40)), ['a', 'b']);
  assert.deepEqual(needed(step('a', [1, 1], 60), step('a', [2, 2], -3600), step('c', [1, 1], 10)), []);
  const policy = { last: 1 };
  const [kept] = planForget(snapshots, policy, { followed: new Set([(snapshots[0] as StoreSnapshot).id]) });
  assert.deepEqual(
    kept?.keep.map(({ snapshot: { id }, reasons }) => [id[0], reasons]),
    [
      ['b', ['last snapshot']],
      ['a', ['newest state follows it']],
    ],
  );
  assert.deepEqual(
    planForget(snapshots, policy)[0]?.remove.map(({ id }) => id[0]),
    ['a'],
  );
});

test('a gap counts only where it hides a newer state', () => {
  const snapshots = [snapshot('a', 100), snapshot('b', 50)];
  const gap = [step('a', [1, 1], 90), step('a', [3, 3], 80)];
  assert.deepEqual(newest(gap, snapshots), undefined);
  assert.deepEqual(newest([...gap, step('b', [1, 1], 40)], snapshots), ['b', 1]);
  assert.throws(() => newest([step('b', [1, 1], 40), step('b', [3, 3], 30)], snapshots), {
    code: 'STORE_FILE_MISSING',
  });
  // Single steps without those before them, which a longer file covers.
  assert.deepEqual(newest([step('b', [1, 3], 30), step('b', [3, 3], 30)], snapshots), ['b', 3]);
});
