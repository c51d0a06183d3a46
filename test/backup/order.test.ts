import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import fc from 'fast-check';
import { MemoryBackend } from './memory-backend.ts';
import { planForget } from '../../src/backup/prune/plan-forget.ts';
import { findSnapshot } from '../../src/backup/snapshots/find-snapshot.ts';
import { clockWarning, dateSnapshots } from '../../src/backup/snapshots/snapshot-clock.ts';
import { inOrder, nextGeneration } from '../../src/backup/files/snapshot-order.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import { tempDir } from '../support/compare.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { backupHere, storeHere } from './store-here.ts';

const NOW = Date.parse('2026-11-30T12:00:00Z');

/** `day` is a day of November 2026, or a whole date. */
function made(id: string, day: number | string, more: Partial<StoreSnapshot> = {}): StoreSnapshot {
  const date = typeof day === 'number' ? `2026-11-${String(day).padStart(2, '0')}` : day;
  return {
    id,
    time: new Date(`${date}T10:00:00Z`),
    host: 'db1',
    path: '/srv/app.db',
    tags: [],
    pageSize: 4096,
    pageCount: 1,
    fileMode: 0o644,
    root: undefined,
    parent: undefined,
    program: 'sqlsync',
    statistics: {
      pagesChanged: 0,
      pagesAdded: 0,
      nodesAdded: 0,
      bytesAdded: 0,
      bytesReceived: 0,
      durationMs: 0,
    },
    ...more,
  };
}

function ids(snapshots: readonly StoreSnapshot[]): string {
  return snapshots.map(({ id }) => id).join(' ');
}

function inAnyOrder(snapshots: readonly StoreSnapshot[]): string {
  const orders = [snapshots, snapshots.toReversed(), snapshots.toSorted((a, b) => (a.id < b.id ? 1 : -1))];
  const [first, ...others] = orders.map((order) => ids(inOrder(order)));
  for (const other of others) assert.equal(other, first);
  return first ?? '';
}

describe('the order of snapshots', () => {
  test('the order of snapshots is that of their generations, whatever their times say', () => {
    const all = [
      made('a', 20, { generation: 1 }),
      made('x', '2031-11-30', { generation: 2 }),
      made('b', 21, { generation: 3 }),
      made('p', '1970-01-01', { generation: 4 }),
      made('c', 22, { generation: 5 }),
    ];
    assert.equal(inAnyOrder(all), 'a x b p c');
    assert.equal(nextGeneration(all), 6);
    // A forgotten snapshot is not missed.
    assert.equal(inAnyOrder(all.filter(({ id }) => !['x', 'b'].includes(id))), 'a p c');
  });

  test('two snapshots that were made at once are in the order of their times', () => {
    const all = [
      made('a', 20, { generation: 1 }),
      made('c', 22, { generation: 2, parent: 'a' }),
      made('b', 21, { generation: 2, parent: 'a' }),
      made('d', 22, { generation: 2, parent: 'a' }),
    ];
    assert.equal(inAnyOrder(all), 'a b c d');
  });

  test('records without a generation are in the order of their times, but never before their parent', () => {
    const ahead = [made('a', 20), made('x', '2031-11-30', { parent: 'a' }), made('b', 21, { parent: 'x' })];
    assert.equal(inAnyOrder(ahead), 'a x b');
    const behind = [made('z', 18), made('a', 20), made('p', '1970-01-01', { parent: 'a' }), made('b', 21)];
    assert.equal(inAnyOrder(behind), 'z a p b');
    const fork = [made('a', 20), made('c', 22, { parent: 'a' }), made('b', 21, { parent: 'a' })];
    assert.equal(inAnyOrder(fork), 'a b c');
    assert.equal(nextGeneration(fork), 1);
  });

  test('records without a generation come first, but after a parent that has one', () => {
    const all = [
      made('old', '2031-11-30'),
      made('a', 20, { generation: 1 }),
      made('mixed', 22, { parent: 'a' }),
      made('mixed2', 21, { parent: 'mixed' }),
      made('d', 23, { generation: 4, parent: 'mixed2' }),
    ];
    assert.equal(inAnyOrder(all), 'old a mixed mixed2 d');
    assert.equal(nextGeneration(all.slice(0, 4)), 4);
  });

  test('the order stays the same when any snapshots are forgotten', () => {
    const history = fc.array(fc.record({ day: fc.integer({ min: 1, max: 28 }), isKept: fc.boolean() }));
    fc.assert(
      fc.property(history, (entries) => {
        const all: StoreSnapshot[] = [];
        for (const [i, { day }] of entries.entries()) {
          const generation = nextGeneration(all);
          const parent = inOrder(all).at(-1)?.id;
          all.push(made(String(i).padStart(3, '0'), day, { generation, parent }));
        }
        assert.equal(ids(inOrder(all.toReversed())), ids(all));
        const kept = all.filter((_, i) => entries[i]?.isKept);
        assert.equal(ids(inOrder(kept.toReversed())), ids(kept));
      }),
    );
  });

  test('a generation cannot be raised beyond what a number holds', () => {
    const all = [made('a', 20, { generation: Number.MAX_SAFE_INTEGER })];
    assert.equal(nextGeneration(all), Number.MAX_SAFE_INTEGER);
  });
});

describe('snapshot times that do not fit the order', () => {
  const dated = (snapshots: readonly StoreSnapshot[]): string =>
    [...dateSnapshots(snapshots, NOW)]
      .toReversed()
      .map(([id, { ms, doubt }]) => `${id} ${new Date(ms).toISOString().slice(0, 10)} ${doubt ?? ''}`.trim())
      .join(', ');

  test('the misfit times are the fewest that stand in the way of the others; each counts as that of the next snapshot', () => {
    const history = (...days: (number | string)[]): StoreSnapshot[] =>
      days.map((day, i) => made(String(i), day, { generation: i + 1 }));
    assert.equal(
      dated(history(20, 28, 21, 22)),
      '0 2026-11-20, 1 2026-11-21 order, 2 2026-11-21, 3 2026-11-22',
    );
    assert.equal(dated(history(20, '1970-01-01', 21)), '0 2026-11-20, 1 2026-11-21 order, 2 2026-11-21');
    assert.equal(dated(history(20, '2031-01-01', 21)), '0 2026-11-20, 1 2026-11-21 future, 2 2026-11-21');
    assert.equal(dated(history(20, '2031-01-01')), '0 2026-11-20, 1 2031-01-01 future');
    assert.equal(dated(history(20, 22, 21)), '0 2026-11-20, 1 2026-11-21 order, 2 2026-11-21');
    assert.equal(
      dated(history(20, 21, 22, '1970-01-01')),
      '0 2026-11-20, 1 2026-11-21, 2 2026-11-22, 3 2026-11-30 order',
    );
    assert.equal(dated(history(20, 20, 21)), '0 2026-11-20, 1 2026-11-20, 2 2026-11-21');
  });

  test('misfit times are looked for in each database by itself: hosts may have clocks that differ', () => {
    const all = [
      made('a', 20, { generation: 1 }),
      made('m', 19, { generation: 2, host: 'db2' }),
      made('b', 21, { generation: 3 }),
    ];
    for (const { doubt } of dateSnapshots(all, NOW).values()) assert.equal(doubt, undefined);
  });

  test('misfit times are reported if they would have chosen another snapshot', () => {
    const all = [
      made('a', 20, { generation: 1 }),
      made('x', 28, { generation: 2 }),
      made('b', 21, { generation: 3 }),
    ];
    const [, x, b] = all as [StoreSnapshot, StoreSnapshot, StoreSnapshot];
    const datings = dateSnapshots(all, NOW);
    assert.match(
      clockWarning(all, b, datings, Infinity) ?? '',
      /^Snapshot x \(2026-11-28 .*\) has a later time than b /,
    );
    assert.equal(clockWarning(all, b, datings, Date.parse('2026-11-22T00:00:00Z')), undefined);
    assert.match(
      clockWarning(all, x, datings, Infinity) ?? '',
      /^The time of snapshot x .* does not fit the order/,
    );
  });
});

/** Backups of one database, each under a clock that shows what `days` says. */
async function backups(
  t: TestContext,
  days: readonly string[],
): Promise<Awaited<ReturnType<typeof storeHere>>> {
  const folder = tempDir(t);
  const origin = join(folder, 'origin.db');
  smallDatabase(origin, { rows: 200 });
  t.mock.timers.enable({ apis: ['Date'], now: NOW });
  const here = await storeHere(new MemoryBackend(), folder);
  for (const [i, day] of days.entries()) {
    t.mock.timers.setTime(Date.parse(`${day}T10:00:00Z`));
    change(origin, `UPDATE item SET payload = randomblob(500)`);
    await backupHere(here, origin, { tags: [`n${i}`] });
  }
  t.mock.timers.setTime(NOW);
  return here;
}

function tags(snapshots: readonly StoreSnapshot[]): string {
  return snapshots.flatMap((snapshot) => snapshot.tags).join(' ');
}

describe('backups under clocks that are wrong', () => {
  const DAYS = ['2026-11-20', '2031-11-30', '2026-11-21', '1970-01-02', '2026-11-22'];

  test('backups under wrong clocks are listed as they were made, each is the parent of the next, and the last is the newest', async (t) => {
    const { store } = await backups(t, DAYS);
    const all = await store.snapshots();
    assert.equal(tags(all), 'n0 n1 n2 n3 n4');
    assert.deepEqual(
      all.slice(1).map(({ parent }) => parent),
      all.slice(0, -1).map(({ id }) => id),
    );
    assert.equal(findSnapshot(all, 'latest', 'store'), all[4]);
    assert.equal(await store.find('latest').then(({ id }) => id), all[4]?.id);
  });

  test('backups keep their order when the one under a wrong clock, and those around it, are forgotten', async (t) => {
    const here = await backups(t, DAYS);
    const all = await here.store.snapshots();
    const left = all.filter((_, i) => i !== 1);
    assert.equal(tags(inOrder(left.toReversed())), 'n0 n2 n3 n4');
    await here.store.forget([all[2]?.id ?? '', all[3]?.id ?? '']);
    assert.equal(tags(await here.store.snapshots()), 'n0 n1 n4');
  });

  test('a policy keeps and forgets backups in the order in which they were made', async (t) => {
    // The second was made under a clock that was five days ahead.
    const { store } = await backups(t, ['2026-11-20', '2026-11-26', '2026-11-21', '2026-11-22']);
    const all = await store.snapshots();
    const kept = (policy: Parameters<typeof planForget>[1]): string =>
      tags(planForget(all, policy).flatMap(({ keep }) => keep.map(({ snapshot }) => snapshot)));
    assert.equal(kept({ last: 1 }), 'n3');
    assert.equal(kept({ last: 2 }), 'n3 n2');
    // It counts as made with the next one, which is the newest of that day.
    assert.equal(kept({ daily: 2 }), 'n3 n2');
    assert.equal(kept({ within: { years: 0, months: 0, days: 1, hours: 12 } }), 'n3 n2 n1');
  });
});
