import assert from 'node:assert/strict';
import { copyFileSync, openSync, renameSync, rmSync, writeSync, closeSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { generateDatabase } from '../../fixtures/generate.ts';
import { assertReplicaOf } from '../support/compare.ts';
import { assertRefused, Command, until } from '../cli/command.ts';
import type { Summary } from '../cli/command.ts';
import { assertDocumented } from '../cli/store-here.ts';
import { Following, SOON, ticksOf, untilSeen } from './following.ts';
import { CHANGE, scene, untilFollowed } from './scene.ts';

for (const journalMode of ['wal', 'delete'] as const) {
  test(`a replica follows each commit of an origin in ${journalMode} mode, in steps of one line each`, async (t) => {
    const all = await scene(t, { journalMode });
    const following = new Following(t, [all.origin, all.replica]);
    await following.untilEvents('step', 1);
    for (let n = 2; n <= 5; n++) {
      await all.app.call('exec', CHANGE);
      await untilFollowed(all, following);
    }
    const { status, summary, stderr } = await following.end();
    assert.deepEqual([status, stderr], [0, '']);
    const steps = following.events('step');
    assert.ok(steps.length >= 5);
    assert.deepEqual(
      steps.map(({ step }) => step),
      steps.map((_, i) => i + 1),
    );
    assert.equal(steps[0]?.['created'], true);
    assert.equal(summary.type, 'summary');
    assertDocumented('follow', summary);
    assert.equal(summary['steps'], steps.length);
    assert.equal(summary['failures'], 0);
    assertReplicaOf(all.origin, all.replica);
  });
}

test('a step moves only what changed', async (t) => {
  const all = await scene(t);
  const following = new Following(t, [all.origin, all.replica]);
  await following.untilEvents('step', 1);
  // The first step leaves a new file, which the second hashes whole; from then on both sides know their pages.
  for (let n = 0; n < 3; n++) {
    await all.app.call('exec', 'UPDATE item SET amount = amount + 1 WHERE id = 7');
    await untilFollowed(all, following);
  }
  const [first, ...later] = following.events('step');
  const last = later.at(-1);
  assert.ok(Number(last?.['pagesChanged']) < 5, JSON.stringify(last));
  assert.ok(Number(last?.['bytesReceived']) < Number(first?.['bytesReceived']) / 4, JSON.stringify(last));
  await following.end();
});

test('a page that a step has sent is compared without its block hashes from then on', async (t) => {
  const all = await scene(t, { pageSize: 65_536 });
  const following = new Following(t, [all.origin, all.replica]);
  await following.untilEvents('step', 1);
  for (let n = 0; n < 4; n++) {
    await all.app.call('exec', 'UPDATE item SET amount = amount + 1 WHERE id = 7');
    await untilFollowed(all, following);
  }
  await following.end();
  const [first, , , last] = following.events('step').filter(({ pagesDelta }) => Number(pagesDelta) > 0);
  const bytesOf = (step: Summary | undefined): number =>
    Number(step?.['bytesSent']) + Number(step?.['bytesReceived']);
  // The block hashes of a page of 64 KiB have 768 bytes.
  assert.ok(bytesOf(last) < bytesOf(first) - 700, JSON.stringify([first, last]));
});

test('while nothing changes, follow uses next to no processor time, sends signs of life only, and writes nothing', async (t) => {
  const all = await scene(t);
  const following = new Following(t, ['--interval', '1s', all.origin, all.replica]);
  await following.untilEvents('step', 1);
  await all.app.call('exec', CHANGE);
  await untilFollowed(all, following);
  const reader = await all.other.open(all.replica, { readonly: true });
  const version = async (): Promise<unknown> => (await reader.call('rows', 'PRAGMA data_version'))[0]?.[0];
  await delay(2000); // the programs have just started, and compile
  const before = { version: await version(), steps: following.events('step').length };
  const pids = following.pids();
  assert.ok(pids.length >= 2);
  // A tick is 10 ms: 6 s of a core are 600. On a busy machine the programs compile for longer.
  const used: number[] = [];
  while (used.length < 5 && (used.at(-1) ?? Infinity) >= 30) {
    const ticks = ticksOf(pids);
    await delay(6000);
    used.push(ticksOf(pids) - ticks);
  }
  assert.ok((used.at(-1) as number) < 30, `${used.join(', ')} ticks`);
  assert.deepEqual({ version: await version(), steps: following.events('step').length }, before);
  await all.app.call('exec', 'UPDATE item SET amount = amount + 1 WHERE id = 7');
  const last = (await following.untilEvents('step', before.steps + 1)).at(-1);
  assert.ok(Number(last?.['bytesSent']) + Number(last?.['bytesReceived']) < 8000, JSON.stringify(last));
  assert.notEqual(await version(), before.version);
  await following.end();
});

test('follow holds no transaction between two looks: every checkpoint and every writer gets through', async (t) => {
  const all = await scene(t);
  const following = new Following(t, [all.origin, all.replica]);
  await following.untilEvents('step', 1);
  const app = await all.other.open(all.origin, { timeoutMs: 5000 });
  for (const mode of ['FULL', 'RESTART', 'TRUNCATE']) {
    await app.call('exec', CHANGE);
    await untilFollowed(all, following);
    assert.equal((await app.call('rows', `PRAGMA wal_checkpoint(${mode})`))[0]?.[0], 0, mode);
  }
  await app.call('exec', 'BEGIN EXCLUSIVE');
  await app.call('exec', 'ROLLBACK');
  await untilFollowed(all, following);
  await following.end();
});

for (const [when, quietMs] of [
  ['after a quiet time', 7000],
  ['at once', 0],
] as const) {
  test(`the application ends ${when}, follow ends, and no commit is lost`, async (t) => {
    const all = await scene(t);
    const following = new Following(t, [all.origin, all.replica]);
    await following.untilEvents('step', 1);
    await all.app.call('exec', CHANGE);
    await untilFollowed(all, following);
    await delay(quietMs);
    await all.app.call('close');
    await following.end();
    const copied = join(all.folder, 'copied.db');
    copyFileSync(all.origin, copied);
    // The connection to an idle origin is closed, so that the application is the last to close it and empties the WAL.
    if (quietMs === 0) copyFileSync(`${all.origin}-wal`, `${copied}-wal`);
    assertReplicaOf(copied, all.replica);
  });
}

test('an origin that is idle can leave WAL mode, and is followed on through VACUUM and another page size', async (t) => {
  const all = await scene(t);
  const following = new Following(t, [all.origin, all.replica]);
  await following.untilEvents('step', 1);
  await all.app.call('exec', 'DELETE FROM item WHERE id % 3 = 0');
  await all.app.call('exec', 'VACUUM');
  await untilFollowed(all, following);
  // The connection is closed once nothing has changed for a while.
  for (let mode: unknown = 'wal'; mode !== 'delete'; await delay(100)) {
    mode = await all.app.call('rows', 'PRAGMA journal_mode = delete').then(
      (rows) => rows[0]?.[0],
      () => 'wal',
    );
  }
  await all.app.call('exec', 'PRAGMA page_size = 2048; VACUUM');
  await untilFollowed(all, following);
  await all.app.call('rows', 'PRAGMA journal_mode = wal');
  await all.app.call('exec', CHANGE);
  await untilFollowed(all, following);
  const { status } = await following.end();
  assert.equal(status, 0);
});

test('a replica that another program wrote is put right, though the origin has not changed', async (t) => {
  const all = await scene(t);
  const following = new Following(t, [all.origin, all.replica]);
  await following.untilEvents('step', 1);
  await untilFollowed(all, following);
  for (let n = 0; n < 2; n++) {
    const vandal = await all.other.open(all.replica, { timeoutMs: 5000 });
    await vandal.call('exec', 'UPDATE item SET amount = -1');
    await vandal.call('close');
    await untilFollowed(all, following);
  }
  const { status, summary } = await following.end();
  assert.deepEqual([status, summary['failures']], [0, 0], following.command.said);
});

for (const journalMode of ['wal', 'delete'] as const) {
  test(`a write into the replica in ${journalMode} mode is put right that comes before the end of a step`, async (t) => {
    const all = await scene(t, { journalMode });
    const following = new Following(t, [all.origin, all.replica]);
    await following.untilEvents('step', 1);
    await untilFollowed(all, following);
    const vandal = await all.other.open(all.replica, { timeoutMs: 5000 });
    const version = async (): Promise<unknown> => (await vandal.call('rows', 'PRAGMA data_version'))[0]?.[0];
    for (let n = 0; n < 8; n++) {
      const before = await version();
      await vandal.call('exec', `UPDATE item SET amount = ${-n}`);
      const patience = performance.now() + 60_000;
      while ((await version()) === before) assert.ok(performance.now() < patience, following.command.said);
    }
    await vandal.call('close');
    await untilFollowed(all, following);
    await following.end();
  });
}

test('a replica that was removed is made again, and a database that takes its place ends follow', async (t) => {
  const all = await scene(t);
  const following = new Following(t, [all.origin, all.replica]);
  await following.untilEvents('step', 1);
  rmSync(all.replica);
  await untilFollowed(all, following);
  await following.untilEvents('step', 2);
  const foreign = join(all.folder, 'foreign.db');
  generateDatabase(foreign, { rows: 10, seed: 5 });
  const mine = statSync(foreign).ino;
  renameSync(foreign, all.replica);
  const { status, stdout } = await following.command.done;
  assert.equal(status, 6, stdout);
  assert.match(stdout, /REPLICA_NOT_MARKED/);
  assert.equal(statSync(all.replica).ino, mine);
});

test('a backup that is put in the place of the origin is followed from then on', async (t) => {
  const all = await scene(t);
  const backup = join(all.folder, 'backup.db');
  await all.app.call('exec', `VACUUM INTO '${backup}'`);
  const following = new Following(t, [all.origin, all.replica]);
  await following.untilEvents('step', 1);
  await all.app.call('exec', CHANGE);
  await untilFollowed(all, following);
  await all.app.call('close');
  for (const suffix of ['', '-wal', '-shm']) rmSync(all.origin + suffix, { force: true });
  await delay(120); // it looks, and finds nothing
  renameSync(backup, all.origin);
  const app = await all.other.open(all.origin);
  await app.call('rows', 'PRAGMA journal_mode = wal');
  await app.call('exec', CHANGE);
  await untilFollowed({ ...all, app }, following);
  const { status } = await following.end();
  assert.equal(status, 0);
});

test('two that follow one origin into one replica do not disturb each other', async (t) => {
  const all = await scene(t);
  const first = new Following(t, [all.origin, all.replica]);
  await first.untilEvents('step', 1);
  const second = new Following(t, [all.origin, all.replica]);
  await second.untilEvents('step', 1);
  for (let n = 0; n < 5; n++) {
    await all.app.call('exec', CHANGE);
    await delay(60);
  }
  await untilFollowed(all, first, second);
  const steps = (): string => [first, second].map((each) => each.events('step').length).join();
  let quiet = '';
  for (let looks = 0; quiet !== steps(); looks++) {
    assert.ok(looks < 60, `they do not come to rest: ${quiet}, then ${steps()} steps`);
    quiet = steps();
    await delay(1000);
  }
  for (const each of [first, second]) assert.equal((await each.end()).status, 0, each.command.said);
  assertReplicaOf(all.origin, all.replica);
});

test('a side that is killed is started again, and --exit-on-error ends instead', async (t) => {
  const all = await scene(t);
  const following = new Following(t, [all.origin, all.replica]);
  const ending = new Following(t, ['--exit-on-error', all.origin, join(all.folder, 'second.db')]);
  for (const each of [following, ending]) {
    await each.untilEvents('step', 1);
    for (const pid of each.pids().slice(1)) process.kill(pid, 'SIGKILL');
  }
  await following.untilEvents('failure', 1);
  await all.app.call('exec', CHANGE);
  await untilFollowed(all, following);
  const ended = await ending.command.done;
  assert.equal(ended.status, 15, ended.stdout);
  const { status, summary } = await following.end();
  assert.deepEqual([status, summary['failures']], [0, 1]);
});

test('follow keeps the limits of a snapshot', async (t) => {
  const all = await scene(t);
  const limits = ['--max-snapshot', '30', '--max-wal-growth', '64M'];
  const following = new Following(t, [...limits, all.origin, all.replica]);
  await following.untilEvents('step', 1);
  await all.app.call('exec', CHANGE);
  await untilFollowed(all, following);
  assert.equal((await following.end()).status, 0);
});

test('SIGTERM ends follow in the middle of a step, and the replica shows the last whole one', async (t) => {
  const all = await scene(t);
  const following = new Following(t, [all.origin, all.replica]);
  await following.untilEvents('step', 1);
  const states = [await all.app.call('imageHash')];
  for (let n = 0; n < 10; n++) {
    await all.app.call('exec', CHANGE);
    states.push(await all.app.call('imageHash'));
    await delay(7);
  }
  const { status } = await following.end();
  assert.equal(status, 0);
  const seen = await all.other.open(all.replica, { readonly: true });
  assert.ok(states.includes(await seen.call('imageHash')));
});

test('a full comparison finds a change that no frame told of, loudly, and the next step copies it', async (t) => {
  const all = await scene(t);
  await all.app.call('rows', 'PRAGMA wal_checkpoint(TRUNCATE)');
  const following = new Following(t, ['--full-every', '300ms', all.origin, all.replica]);
  await following.untilEvents('step', 3);
  // In the middle of the last page, whichever that is.
  const file = openSync(all.origin, 'r+');
  writeSync(file, Buffer.from('past SQLite'), 0, 11, statSync(all.origin).size - 500);
  closeSync(file);
  const [failure] = await following.untilEvents('failure', 1);
  assert.equal(failure?.['code'], 'CHANGES_MISSED');
  await following.untilEvents('step', following.events('step').length + 1);
  const { status, summary } = await following.end();
  assert.deepEqual([status, summary['missed']], [7, 1]);
  assertReplicaOf(all.origin, all.replica);
});

test('people see the beginning and the end, each step with -v, and nothing with -q', async (t) => {
  const all = await scene(t);
  const said: string[] = [];
  for (const [option, times] of [
    ['-v', 2],
    ['-q', 0],
  ] as const) {
    const replica = join(all.folder, `${option}.db`);
    const command = new Command(['follow', option, ...SOON, all.origin, replica]);
    t.after(() => command.child.kill('SIGKILL'));
    await untilSeen(all.other, replica, await all.app.call('imageHash'), []);
    await all.app.call('exec', CHANGE);
    await untilSeen(all.other, replica, await all.app.call('imageHash'), []);
    if (times > 0) await until(() => /pages changed[^]*pages changed/.test(command.said), command);
    command.child.kill('SIGTERM');
    const { status, stdout, stderr } = await command.done;
    assert.equal(status, 0, stdout + stderr);
    said.push(stdout + stderr);
  }
  const [verbose = '', quiet] = said;
  assert.match(verbose, /is an exact copy of .* and follows it/);
  assert.match(verbose, /step \d+: [\d,]+ pages changed/);
  assert.match(verbose, /followed .* steps/);
  assert.equal(quiet, '');
});

test('follow refuses what makes no sense', async (t) => {
  const { origin, replica } = await scene(t);
  const refused = { code: 'USAGE', status: 2 } as const;
  await assertRefused(['follow', '--interval', '1ms', origin, replica], {
    ...refused,
    says: /--interval 1ms/,
  });
  await assertRefused(['follow', 'a:x.db', 'b:y.db'], {
    code: 'BOTH_REMOTE',
    status: 2,
    says: /both on other hosts/,
  });
  await assertRefused(['follow', join(origin, '..', 'missing.db'), replica], {
    code: 'ORIGIN_NOT_FOUND',
    status: 3,
    says: /missing\.db/,
  });
});
