import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, test } from 'node:test';
import { Random } from '../../fixtures/random.ts';
import { inOrder, nextGeneration } from '../../src/backup/files/snapshot-order.ts';
import { confirmedByPlace } from '../../src/backup/prune/place-times.ts';
import { planForget } from '../../src/backup/prune/plan-forget.ts';
import type { RetentionPolicy } from '../../src/backup/prune/retention.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';

const HOUR_MS = 3600 * 1000;
const DAY_MS = 24 * HOUR_MS;

/** Repeat a failure with `SQLSYNC_SEED=… npm test`. */
const SEED = Number(process.env['SQLSYNC_SEED'] ?? Date.now() % 2 ** 31);

type Fields = Partial<Pick<StoreSnapshot, 'stored' | 'original' | 'generation'>>;

let made = 0;

function snapshot(timeMs: number, fields: Fields = {}): StoreSnapshot {
  const number = ++made;
  return {
    id: createHash('sha256').update(String(number)).digest('hex'),
    time: new Date(timeMs),
    host: 'db1',
    path: '/srv/app.db',
    tags: [],
    pageSize: 4096,
    pageCount: 0,
    fileMode: 0o600,
    root: undefined,
    parent: undefined,
    generation: number,
    program: 'test',
    statistics: {
      pagesChanged: 0,
      pagesAdded: 0,
      nodesAdded: 0,
      bytesAdded: 0,
      bytesReceived: 0,
      durationMs: 0,
    },
    stored: new Date(timeMs + 1000),
    ...fields,
  };
}

const NOON = Date.parse('2026-11-20T12:00:00Z');

/** Backups at noon, one each day, as their place got them; the last one just now. */
function daily(days: number): StoreSnapshot[] {
  return Array.from({ length: days }, (_, i) => snapshot(NOON - (days - 1 - i) * DAY_MS));
}

const idsOf = (snapshots: readonly StoreSnapshot[]): string[] => snapshots.map(({ id }) => id).toSorted();

const keptOf = (all: readonly StoreSnapshot[], policy: RetentionPolicy): string[] =>
  idsOf(planForget(all, policy).flatMap(({ keep }) => keep.map((each) => each.snapshot)));

describe('retention by the time of the place', () => {
  for (const [what, fields] of [
    ['backups', {}],
    ['copies', { original: 'ab'.repeat(32) }],
  ] as const)
    test(`false ${what} of past days push out no backup that the place got on those days`, (t) => {
      t.mock.timers.enable({ apis: ['Date'], now: NOON + HOUR_MS });
      const good = daily(10);
      const stored = new Date(NOON + HOUR_MS / 2);
      const late = good.map(({ time }) => time.getTime() + 8 * HOUR_MS).filter((ms) => ms < NOON);
      const bad = late.map((ms) => snapshot(ms, { stored, ...fields }));
      const policy = { daily: 7 };
      const [group] = planForget([...good, ...bad], policy);
      const expected = good.slice(-7);
      assert.deepEqual(
        idsOf(expected).filter((id) => !keptOf([...good, ...bad], policy).includes(id)),
        [],
      );
      const [spared] = group?.spared ?? [];
      const reasons = group?.keep.find((each) => each.snapshot === spared)?.reasons;
      assert.match(reasons?.join() ?? '', /^(?:oldest )?daily snapshot, by the time of the place$/);
    });

  test('false copies of the days since the last backup push out none', (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: NOON + HOUR_MS });
    const good = daily(20).slice(0, 10);
    const stored = new Date(NOON);
    const bad = Array.from({ length: 9 }, (_, i) =>
      snapshot(NOON - i * DAY_MS - HOUR_MS, { stored, original: 'ab'.repeat(32) }),
    );
    const kept = keptOf([...good, ...bad.toReversed()], { daily: 7 });
    assert.deepEqual(
      idsOf(good.slice(-7)).filter((id) => !kept.includes(id)),
      [],
    );
  });

  test('a record with the highest number is not the newest for ever, and ends no confirmation', (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: NOON + HOUR_MS });
    const good = daily(20).map((each) =>
      Object.assign(each, { generation: Math.floor(each.time.getTime() / 1000) }),
    );
    const bad = snapshot(NOON - 10 * DAY_MS + HOUR_MS, { generation: Number.MAX_SAFE_INTEGER });
    const all = [...good, bad];
    assert.equal(inOrder(all).at(-1), good.at(-1));
    assert.ok(nextGeneration(all) <= NOON / 1000 + 2);
    assert.deepEqual(
      good.map(({ id }) => id).filter((id) => !confirmedByPlace(all).has(id)),
      [],
    );
    assert.equal(confirmedByPlace(all).has(bad.id), false);
  });

  test('a backup that took a day is confirmed, and one that only says that it took a year is not', () => {
    const [long, untrue] = [20 * HOUR_MS, 365 * DAY_MS].map((durationMs) => {
      const each = snapshot(NOON - 25 * HOUR_MS, { stored: new Date(NOON) });
      const ago = durationMs > DAY_MS ? 60 * DAY_MS : durationMs;
      return Object.assign(each, {
        time: new Date(NOON - ago),
        statistics: { ...each.statistics, durationMs },
      });
    }) as [StoreSnapshot, StoreSnapshot];
    assert.deepEqual([...confirmedByPlace([long, untrue])], [long.id]);
  });

  test('a true record that is put again is named if a policy removes it', (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: NOON + HOUR_MS });
    const good = daily(10);
    const again = good.map((each) => Object.assign(each, { stored: new Date(NOON + 1000) }));
    const [group] = planForget(again, { daily: 7 });
    assert.deepEqual(idsOf(group?.unconfirmed ?? []), idsOf(good.slice(0, 3)));
    assert.deepEqual(group?.spared, []);
  });

  test('true records that are put again stay for a week in a run that nobody looks at, and go after that', (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: NOON + HOUR_MS });
    const policy = { daily: 7 };
    const plan = (all: readonly StoreSnapshot[]): readonly [string[], string[]] => {
      const [group] = planForget(all, policy, { isUnattended: true });
      return [idsOf(group?.remove ?? []), idsOf(group?.waiting ?? [])];
    };
    const good = daily(20);
    assert.deepEqual(plan(good), [idsOf(good.slice(0, 13)), []], 'a store that confirms all');
    const putAgain = (each: StoreSnapshot, days: number): void => {
      Object.assign(each, { stored: new Date(NOON - days * DAY_MS + 1000) });
    };
    for (const each of good.slice(0, 2)) putAgain(each, 1);
    assert.deepEqual(plan(good), [idsOf(good.slice(2, 13)), idsOf(good.slice(0, 2))]);
    const [attended] = planForget(good, policy);
    assert.deepEqual([idsOf(attended?.remove ?? []), attended?.waiting], [idsOf(good.slice(0, 13)), []]);
    for (const each of good.slice(0, 2)) putAgain(each, 8);
    assert.deepEqual(plan(good), [idsOf(good.slice(0, 13)), []]);
  });

  test('a single time that the place does not confirm holds up nothing, and neither does a place without times', (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: NOON + HOUR_MS });
    const good = daily(10);
    const removedOf = (): string[] => {
      const [group] = planForget(good, { daily: 7 }, { isUnattended: true });
      return idsOf(group?.remove ?? []);
    };
    Object.assign(good[0] as StoreSnapshot, { stored: new Date(NOON) });
    assert.deepEqual(removedOf(), idsOf(good.slice(0, 3)));
    for (const each of good) Object.assign(each, { stored: undefined });
    assert.deepEqual(removedOf(), idsOf(good.slice(0, 3)));
  });

  test('a store that was copied as files, in any order, goes by its records', (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: NOON + HOUR_MS });
    const random = new Random(SEED);
    t.diagnostic(`SQLSYNC_SEED=${SEED}`);
    for (let run = 0; run < 50; run++) {
      const good = daily(random.integer(2, 40));
      const policy = random.pick<RetentionPolicy>([{ daily: 7 }, { weekly: 3, last: 2 }, { last: 5 }]);
      const before = keptOf(good, policy);
      for (const each of good) Object.assign(each, { stored: new Date(NOON + random.integer(0, 60_000)) });
      assert.deepEqual(keptOf(good, policy), before);
    }
  });

  test('a history that `sqlsync copy` brought, and what follows it, goes by its records, and nothing is doubted', (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: NOON + HOUR_MS });
    const good = daily(30);
    const policy = { daily: 7, weekly: 4 };
    const before = keptOf(good, policy);
    for (const [i, each] of good.entries()) {
      // 25 came at once, the last five one each day.
      const stored = new Date(NOON - 5 * DAY_MS + Math.max(0, i - 24) * DAY_MS + i * 100);
      Object.assign(each, { original: each.id, stored });
    }
    const [group] = planForget(good, policy);
    assert.deepEqual(keptOf(good, policy), before);
    assert.deepEqual([group?.unconfirmed, group?.spared], [[], []]);
  });

  test('whatever false times somebody puts, what a policy keeps of the rest stays', (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: NOON + HOUR_MS });
    t.diagnostic(`SQLSYNC_SEED=${SEED}`);
    const random = new Random(SEED);
    for (let run = 0; run < 200; run++) {
      const good = daily(random.integer(3, 60));
      const policy = random.pick<RetentionPolicy>([
        { last: 3 },
        { daily: 5, monthly: 2 },
        { weekly: 3, yearly: 1 },
        { within: { years: 0, months: 0, days: 10, hours: 0 } },
      ]);
      const kept = keptOf(good, policy);
      const bad = Array.from({ length: random.integer(1, 80) }, () =>
        snapshot(NOON + random.pick([-1, -1, 1]) * random.integer(8 * HOUR_MS, 90 * DAY_MS), {
          stored: new Date(NOON + HOUR_MS / 2 + random.integer(0, 1000)),
          generation: random.integer(0, 1_000_000),
          ...(random.chance(0.5) ? { original: 'cd'.repeat(32) } : {}),
        }),
      );
      const now = new Set(keptOf([...bad, ...good], policy));
      assert.deepEqual(
        kept.filter((id) => !now.has(id)),
        [],
      );
    }
  });

  test('many false backups of today with low numbers put no true ones out of order', (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: NOON + HOUR_MS });
    const good = daily(10).map((each, i) => Object.assign(each, { generation: i + 100 }));
    const bad = Array.from({ length: 100 }, (_, i) => snapshot(NOON + i * 1000, { generation: i % 90 }));
    const kept = keptOf([...bad, ...good], { daily: 7 });
    assert.deepEqual(
      idsOf(good.slice(-7)).filter((id) => !kept.includes(id)),
      [],
    );
  });

  test('a snapshot under a clock that was not set yet puts no other in doubt', (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: NOON + HOUR_MS });
    const good = daily(10);
    Object.assign(good[4] as StoreSnapshot, { time: new Date(HOUR_MS), stored: new Date(HOUR_MS) });
    const [group] = planForget(good, { daily: 5 });
    assert.deepEqual(idsOf(group?.keep.map((each) => each.snapshot) ?? []), idsOf(good.slice(-5)));
    assert.deepEqual(group?.spared, []);
  });

  test('a place that tells no times confirms nothing', (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: NOON + HOUR_MS });
    const good = daily(10);
    const before = keptOf(good, { daily: 7 });
    for (const each of good) Object.assign(each, { stored: undefined });
    assert.deepEqual(keptOf(good, { daily: 7 }), before);
  });
});
