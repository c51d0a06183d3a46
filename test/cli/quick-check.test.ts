import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { noQuickCheck } from '../support/quick.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { assertRefused, sqlsync, summaryOf } from './command.ts';

test(
  'a quick check knows a copy that nothing has touched for 3 s to be exact without a look at it, in both journal modes',
  {
    skip: noQuickCheck() ?? false,
  },
  async (t) => {
    const folder = tempDir(t);
    const env = { XDG_CACHE_HOME: join(folder, 'cache') };
    const pairs = (['wal', 'delete'] as const).map((mode) => {
      const [origin, replica] = ['origin', 'replica'].map((name) => join(folder, `${name}-${mode}.db`));
      return { mode, origin: origin as string, replica: replica as string };
    });
    for (const { mode, origin, replica } of pairs) {
      smallDatabase(origin, { journalMode: mode });
      const { quick } = await summaryOf([origin, replica, '--json'], { env });
      assert.equal(quick, false);
    }
    for (const { replica } of pairs) while (Date.now() - statSync(replica).ctimeMs <= 3001) await delay(50);
    for (const { origin, replica } of pairs) {
      assert.equal((await summaryOf([origin, replica, '--json'], { env })).quick, false);
      const { stdout } = await sqlsync([origin, replica], { env });
      assert.match(stdout, /already is an exact copy of .*: [\d,]+ pages \(.*\) not read, /);
      const verbose = await sqlsync([origin, replica, '-v'], { env });
      assert.match(verbose.stdout, /pages \(.*\), not read: nothing has touched either side/);
      const full = await sqlsync([origin, replica, '--full'], { env });
      assert.match(full.stdout, /: 0 of [\d,]+ pages changed, /);
      const every = await summaryOf([origin, replica, '--full-every', '0', '--json'], { env });
      assert.deepEqual([every.outcome, every.quick], ['unchanged', false]);
      change(origin, 'UPDATE item SET amount = 1');
      const changed = await summaryOf([origin, replica, '--json'], { env });
      assert.deepEqual([changed.outcome, changed.quick], ['committed', false]);
      assertReplicaOf(origin, replica);
    }
  },
);

test('--full-every takes a time up to a week', async () => {
  await assertRefused(['a.db', 'b.db', '--full-every', '8d'], {
    code: 'USAGE',
    status: 2,
    says: /--full-every: "8d" is not a duration/,
  });
});
