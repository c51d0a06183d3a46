import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { Random } from '../../fixtures/random.ts';
import { MemoryBackend } from './memory-backend.ts';
import { planForget } from '../../src/backup/prune/plan-forget.ts';
import type { RetentionPolicy } from '../../src/backup/prune/retention.ts';
import { tempDir } from '../support/compare.ts';
import { untilAll } from '../support/until-all.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';

const SEED = Number(process.env['SQLSYNC_SEED'] ?? Date.now() % 2 ** 31);

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const GRACE_SECONDS = 12 * 3600;
const BACKUPS = 24;

/** By the number of the backup. */
const JUMPS: ReadonlyMap<number, number> = new Map([
  [8, -400 * DAY_MS],
  [12, 800 * DAY_MS],
]);

const POLICIES: readonly RetentionPolicy[] = [
  { last: 3 },
  { daily: 2 },
  { within: { years: 0, months: 0, days: 2, hours: 0 } },
  { last: 1, withinHourly: { years: 0, months: 0, days: 1, hours: 0 } },
];

test('a clock that is set back and forth loses nothing: not what a policy keeps, nor what was just made', async (t) => {
  t.diagnostic(`SQLSYNC_SEED=${SEED}`);
  const done = { future: 0, forgotten: 0, deleted: 0 };
  for (const run of untilAll(1, done)) await history(t, new Random(SEED + run), done);
  t.diagnostic(JSON.stringify(done));
});

/** Backups, forgets and prunes of one store under a clock that jumps; counts them in `done`. */
async function history(
  t: TestContext,
  random: Random,
  done: { future: number; forgotten: number; deleted: number },
): Promise<void> {
  const folder = tempDir(t);
  const origin = join(folder, 'origin.db');
  smallDatabase(origin, { rows: 40 });
  t.mock.timers.reset();
  t.mock.timers.enable({ apis: ['Date'], now: 1_700_000_000_000 });
  const here = await storeHere(new MemoryBackend(), folder, GRACE_SECONDS);
  const images = new Map<string, Buffer>();
  for (let number = 0; number < BACKUPS; number++) {
    // Mostly hours pass. With any seed, the clock is wrong by up to a year now and then and then right again,
    // at least once back and once forth.
    const isWrong = random.chance(0.25);
    const jumpMs =
      JUMPS.get(number) ?? (isWrong ? random.integer(-365, 365) * DAY_MS : random.integer(1, 30) * HOUR_MS);
    t.mock.timers.setTime(Math.max(DAY_MS, Date.now() + jumpMs));
    change(origin, `UPDATE item SET payload = randomblob(500) WHERE id % 5 = ${number % 5}`);
    const made = await backupHere(here, origin);
    images.set(made.id, readFileSync(origin));
    const all = await here.store.snapshots();
    for (const policy of POLICIES) {
      const kept = planForget(all, policy).flatMap(({ keep }) => keep.map(({ snapshot }) => snapshot.id));
      assert.ok(kept.includes(made.id), `the newest is not kept by ${JSON.stringify(policy)}`);
    }
    done.future += all.filter(({ time }) => time.getTime() > Date.now()).length;
    const [group] = planForget(all, random.pick(POLICIES));
    const { forgotten } = await here.store.forget(group?.remove.map(({ id }) => id) ?? []);
    done.forgotten += forgotten.length;
    done.deleted += (await here.store.prune({ maxUnusedRatio: 0 })).packsDeleted;
    const left = await here.store.snapshots();
    assert.deepEqual(
      left.map(({ id }) => id).toSorted(),
      group?.keep.map(({ snapshot }) => snapshot.id).toSorted(),
    );
    await assertStored(here, left, images);
  }
  const { problems, damaged } = await here.store.check({ readData: true });
  assert.deepEqual([problems, damaged], [[], []]);
}
