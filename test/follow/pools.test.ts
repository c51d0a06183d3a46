import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { generateDatabase } from '../../fixtures/generate.ts';
import { PROGRAM } from '../cli/command.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { Following, kill, stateOf, untilSeen } from './following.ts';
import { PoolsApplication } from './pools-application.ts';
import { CHANGE } from './scene.ts';

/** No look comes by itself in the time that a test may take. */
const NEVER: readonly string[] = ['--interval', '1h'];

interface Scene {
  readonly folder: string;
  readonly origin: string;
  readonly replica: string;
  /** Not a process that has the pools. */
  readonly other: OtherProcess;
}

function scene(t: TestContext): Scene {
  const folder = tempDir(t);
  const [origin, replica] = [join(folder, 'origin.db'), join(folder, 'replica.db')];
  generateDatabase(origin, { rows: 600, pageSize: 1024, journalMode: 'wal' });
  return { folder, origin, replica, other: new OtherProcess(t) };
}

async function untilFollowed({ other, origin, replica }: Scene, following: Following): Promise<void> {
  const state = await stateOf(other, origin);
  assert.ok(state !== undefined, 'the origin can be read');
  await untilSeen(other, replica, state, [following]);
}

for (const first of ['the application', 'follow'] as const) {
  test(`commits through the pools arrive without a look by time if ${first} was there first`, async (t) => {
    const all = scene(t);
    const follow = async (): Promise<Following> => {
      const begun = new Following(t, [...NEVER, all.origin, all.replica]);
      await begun.untilEvents('step', 1);
      return begun;
    };
    let following = first === 'follow' ? await follow() : undefined;
    const app = await PoolsApplication.open(t, all.origin);
    following ??= await follow();
    for (let n = 0; n < 3; n++) {
      await app.exec(CHANGE);
      await untilFollowed(all, following);
    }
    assert.equal((await following.end()).status, 0);
  });
}

test('two applications tell of their commits, also when the one that coordinates them ends or is killed, and one that is opened again', async (t) => {
  const all = scene(t);
  const apps = [await PoolsApplication.open(t, all.origin), await PoolsApplication.open(t, all.origin)];
  const following = new Following(t, [...NEVER, all.origin, all.replica]);
  await following.untilEvents('step', 1);
  for (const end of ['close', 'kill'] as const) {
    for (const app of apps) {
      await app.exec(CHANGE);
      await untilFollowed(all, following);
    }
    // The first one to open the database coordinates.
    const [oldest] = apps.splice(0, 1);
    await oldest?.exec(CHANGE);
    await oldest?.[end]();
    await untilFollowed(all, following);
    apps.push(await PoolsApplication.open(t, all.origin));
  }
  for (const app of apps) await app.close();
  const again = await PoolsApplication.open(t, all.origin);
  await again.exec(CHANGE);
  await untilFollowed(all, following);
  assert.equal((await following.end()).status, 0);
});

test('an application writes on beside a follower that is stopped or killed, which has all of it when it goes on', async (t) => {
  const all = scene(t);
  const app = await PoolsApplication.open(t, all.origin);
  let following = new Following(t, [...NEVER, all.origin, all.replica]);
  await following.untilEvents('step', 1);
  await app.exec(CHANGE);
  await untilFollowed(all, following);
  const stopped = following.pids();
  for (const pid of stopped) kill(pid, 'SIGSTOP');
  for (let n = 0; n < 300; n++) await app.exec(CHANGE);
  for (const pid of stopped) kill(pid, 'SIGCONT');
  await untilFollowed(all, following);
  for (const pid of following.pids()) kill(pid, 'SIGKILL');
  await following.command.done;
  await app.exec(CHANGE);
  following = new Following(t, [...NEVER, all.origin, all.replica]);
  await untilFollowed(all, following);
  await app.exec(CHANGE);
  await untilFollowed(all, following);
  assert.equal((await following.end()).status, 0);
});

test('an agent at the host of the origin hears of commits there', async (t) => {
  const all = scene(t);
  const shell = join(all.folder, 'shell');
  writeFileSync(shell, '#!/bin/sh\nshift\neval "$*"\n', { mode: 0o700 });
  const remote = ['--rsh', shell, '--remote-exe', `'${process.execPath}' '${PROGRAM}'`];
  const app = await PoolsApplication.open(t, all.origin);
  const following = new Following(t, [...NEVER, ...remote, `host:${all.origin}`, all.replica]);
  await following.untilEvents('step', 1);
  for (let n = 0; n < 2; n++) {
    await app.exec(CHANGE);
    await untilFollowed(all, following);
  }
  assert.equal((await following.end()).status, 0);
});
