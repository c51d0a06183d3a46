import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { openDatabase } from '../../src/index.ts';
import { follow } from '../../src/index.ts';
import type { FollowStep } from '../../src/index.ts';
import { largeDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';

test('follow() follows what an application writes through the pools, and resolves when its signal aborts', async (t) => {
  const folder = tempDir(t);
  const [origin, replica] = [join(folder, 'a.db'), join(folder, 'r.db')];
  largeDatabase(origin, 4e5);
  const db = await openDatabase(origin);
  t.after(() => db.close());
  const end = new AbortController();
  const steps: FollowStep[] = [];
  let onNext = (): void => {};
  const next = (): Promise<void> => new Promise((resolve) => (onNext = resolve));
  const first = next();
  const following = follow({
    origin,
    replica,
    intervalMs: 50,
    signal: end.signal,
    onStep(step) {
      steps.push(step);
      // A step that only looks whether the replica is what the last one wrote changes nothing.
      if (step.outcome === 'committed') onNext();
    },
  });
  await first;
  for (let n = 0; n < 3; n++) {
    const stepped = next();
    await db.write.exec('UPDATE t SET x = randomblob(100) WHERE rowid = 1');
    await stepped;
  }
  end.abort();
  const summary = await following;
  assert.deepEqual([summary.origin, summary.replica, summary.steps], [origin, replica, steps.length]);
  const commits = steps.filter(({ outcome }) => outcome === 'committed').length;
  assert.ok(commits >= 4);
  assert.equal(summary.commits, commits);
  await db.close();
  assertReplicaOf(origin, replica);
});

test('follow() rejects what is wrong before its first step, and a signal that aborts before it', async (t) => {
  const folder = tempDir(t);
  const [origin, replica] = [join(folder, 'a.db'), join(folder, 'r.db')];
  await assert.rejects(follow({ origin, replica }), { code: 'ORIGIN_NOT_FOUND' });
  await assert.rejects(follow({ origin, replica, intervalMs: 1 }), {
    code: 'USAGE',
    message: /intervalMs is 1/,
  });
  largeDatabase(origin, 4e5);
  const signal = AbortSignal.abort();
  await assert.rejects(follow({ origin, replica, signal }), { code: 'INTERRUPTED' });
});
