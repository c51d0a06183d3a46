import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { follow, initStore, openDatabase, openStore } from '../../src/index.ts';
import type { FollowStep } from '../../src/index.ts';
import { summaryOf } from '../cli/command.ts';
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

test('follow() with a store adds each state that an application commits, under a password from a function', async (t) => {
  const folder = tempDir(t);
  const [origin, store] = [join(folder, 'a.db'), join(folder, 'store')];
  largeDatabase(origin, 4e5);
  const password = (): string => 'open sesame';
  await initStore(store, { password: password() });
  const db = await openDatabase(origin);
  t.after(() => db.close());
  const end = new AbortController();
  let stepped = Promise.withResolvers<void>();
  const following = follow({
    origin,
    store,
    password,
    host: 'somewhere',
    intervalMs: 50,
    signal: end.signal,
    onStep: ({ outcome }) => outcome === 'committed' && stepped.resolve(),
  });
  // An error is thrown where it is awaited.
  const next = (): Promise<unknown> => Promise.race([stepped.promise, following]);
  await next();
  stepped = Promise.withResolvers();
  await db.write.exec('UPDATE t SET x = randomblob(100) WHERE rowid = 1');
  await next();
  end.abort();
  const summary = await following;
  assert.deepEqual([summary.origin, summary.replica, summary.commits], [origin, store, 2]);
  await db.close();
  const target = join(folder, 'restored.db');
  const passwordFile = join(folder, 'password');
  writeFileSync(passwordFile, password());
  await summaryOf(['restore', `${store}#latest`, target], { env: { SQLSYNC_PASSWORD_FILE: passwordFile } });
  assertReplicaOf(origin, target);
  const opened = await openStore(store, { password: password() });
  assert.deepEqual(
    (await opened.snapshots()).map(({ host }) => host),
    ['somewhere'],
  );
});

test('follow() with a store refuses what is for replicas', async (t) => {
  const [origin, store] = [join(tempDir(t), 'a.db'), 'store'];
  const wrong = { origin, store, overwrite: true };
  await assert.rejects(follow(wrong), { code: 'USAGE', message: /follow\(\) has no option overwrite/ });
  await assert.rejects(follow({ origin, store, snapshotEveryMs: -1 }), {
    code: 'USAGE',
    message: /snapshotEveryMs is -1/,
  });
});
