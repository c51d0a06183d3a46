import assert from 'node:assert/strict';
import { readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { until } from '../cli/command.ts';
import type { Summary } from '../cli/command.ts';
import { Following } from './following.ts';
import { CHANGE, scene, untilFollowed } from './scene.ts';

test('follow that has not followed to the end says since when and why, and its status is that of the failure', async (t) => {
  const all = await scene(t);
  const following = new Following(t, [all.origin, all.replica]);
  const [step] = await following.untilEvents('step', 1);
  renameSync(all.origin, join(all.folder, 'elsewhere.db'));
  await following.untilEvents('failure', 2);
  const { status, summary } = await following.end();
  const last = following.events('step').at(-1) ?? step;
  assert.deepEqual(
    [status, summary['failing'], summary['lastStepAtMs']],
    [3, 'ORIGIN_NOT_FOUND', last?.['atMs']],
  );
});

test('a signal to all processes of a follower at once, as systemd sends it, is no failure', async (t) => {
  const all = await scene(t);
  const following = new Following(t, [all.origin, all.replica]);
  await following.untilEvents('step', 1);
  for (const pid of following.pids().toReversed()) process.kill(pid, 'SIGTERM');
  const { status, stdout } = await following.command.done;
  assert.equal(status, 0, stdout);
});

test('a connection that breaks after its first step each time is begun less and less often', async (t) => {
  const all = await scene(t);
  const following = new Following(t, [all.origin, all.replica], {
    env: { SQLSYNC_RETRY_FIRST_PAUSE_MS: '1000' },
  });
  for (let n = 1; n <= 3; n++) {
    await following.untilEvents('step', n);
    for (const pid of following.pids().slice(1)) process.kill(pid, 'SIGKILL');
    await following.untilEvents('failure', n);
  }
  const pauses = following
    .events('failure')
    .map(({ hint }) => Number(/tries again in ([\d.]+) s/.exec(String(hint))?.[1]));
  // Each is shortened by up to a half: at most 1 s, and at least 2 s.
  assert.ok((pauses[0] as number) < (pauses[2] as number), pauses.join(' '));
  await following.end();
});

test('an origin that is empty for a moment, while a backup is copied over it, never empties the replica', async (t) => {
  const all = await scene(t);
  const backup = join(all.folder, 'backup.db');
  await all.app.call('exec', `VACUUM INTO '${backup}'`);
  const following = new Following(t, [all.origin, all.replica]);
  await following.untilEvents('step', 1);
  await all.app.call('exec', CHANGE);
  await untilFollowed(all, following);
  await all.app.call('close');
  truncateSync(all.origin, 0);
  for (const suffix of ['-wal', '-shm']) rmSync(all.origin + suffix, { force: true });
  await delay(500); // it looks every 50 ms
  writeFileSync(all.origin, readFileSync(backup));
  await untilFollowed(all, following);
  await following.end();
  for (const step of following.events('step')) assert.ok(Number(step['pageCount']) > 0, JSON.stringify(step));
});

test('an origin that stays empty empties the replica, with a warning', async (t) => {
  const all = await scene(t);
  const following = new Following(t, [all.origin, all.replica]);
  await following.untilEvents('step', 1);
  await all.app.call('close');
  truncateSync(all.origin, 0);
  for (const suffix of ['-wal', '-shm']) rmSync(all.origin + suffix, { force: true });
  const isEmpty = (warning: Summary): boolean => String(warning['message']).startsWith('The origin is empty');
  await until(() => following.events('warning').some(isEmpty), following.command);
  await following.end();
  assert.equal(following.events('step').at(-1)?.['pageCount'], 0);
});
