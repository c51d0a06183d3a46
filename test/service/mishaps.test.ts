import assert from 'node:assert/strict';
import { chmodSync, mkdirSync } from 'node:fs';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { assertRefused, sqlsync, summaryOf, until } from '../cli/command.ts';
import { ServiceHere, events, untilEvents } from './running-service.ts';

test('a hook that fails after a copy does not make the copy again', async (t) => {
  const here = new ServiceHere(t);
  here.database('a.db');
  await summaryOf(['init', 'store'], { cwd: here.folder });
  here.configure(
    `databases: [{ path: a.db, schedule: 1h, hooks: { after: 'exit 3' }, targets: [{ store: store, keep: { last: 2 } }] }]\n`,
  );
  const service = await here.start();
  await untilEvents(service, 'failure', 'store');
  const { level, why, lastSuccessAtMs, nextRunAtMs = 0 } = await here.target('store');
  assert.deepEqual([level, why], ['failing', 'The hook after ended with status 3 [HOOK_FAILED]']);
  assert.ok(nextRunAtMs - (lastSuccessAtMs ?? 0) >= 3_600_000, 'it is due at its next moment');
  await here.stop(service);
});

test('a hook that takes too long is ended, with all that it started', async (t) => {
  const here = new ServiceHere(t);
  here.database('a.db');
  here.configure(
    `databases: [{ path: a.db, schedule: 1h, hooks: { before: 'sleep 1000 & wait', timeout: 300ms }, targets: [{ replica: copies/a.db }] }]\n`,
  );
  const service = await here.start();
  await untilEvents(service, 'failure', 'copies/a.db');
  assert.match(String(events(service, 'failure')[0]?.['message']), /hook before took too long/);
  await until(() => service.children().length === 0, service);
  await here.stop(service);
});

test('a client that keeps its connection does not keep the service from ending', async (t) => {
  const here = new ServiceHere(t);
  here.database('a.db');
  here.configure('databases: [{ path: a.db, schedule: 1h, targets: [{ replica: copies/a.db }] }]\n');
  const service = await here.start();
  // Neither reads nor closes its end.
  const client = connect({ path: here.path('state', 'socket'), allowHalfOpen: true });
  client.on('error', () => {});
  t.after(() => client.destroy());
  await once(client, 'connect');
  await here.stop(service);
});

test('a reload may make a follower of a schedule, and a schedule of a follower', async (t) => {
  const here = new ServiceHere(t);
  here.database('a.db');
  const configure = (schedule: string): void =>
    here.configure(
      `databases: [{ path: a.db, schedule: ${schedule}, targets: [{ replica: copies/a.db }] }]\n`,
    );
  configure('follow');
  const service = await here.start();
  await untilEvents(service, 'following', 'copies/a.db');
  for (const round of [1, 2]) {
    configure('1s');
    service.child.kill('SIGHUP');
    await untilEvents(service, 'copied', 'copies/a.db', events(service, 'copied').length + 1);
    configure('follow');
    service.child.kill('SIGHUP');
    await untilEvents(service, 'following', 'copies/a.db', round + 1);
  }
  const { isFollowing, nextRunAtMs } = await here.target('copies/a.db');
  assert.deepEqual([isFollowing, nextRunAtMs, events(service, 'failure')], [true, undefined, []]);
  await here.stop(service);
});

test('a state folder that others can write is refused', async (t) => {
  const here = new ServiceHere(t);
  here.database('a.db');
  here.configure('databases: [{ path: a.db, schedule: 1h, targets: [{ replica: copies/a.db }] }]\n');
  mkdirSync(here.path('state'));
  chmodSync(here.path('state'), 0o777);
  const expected = {
    code: 'CONFIG_INVALID',
    status: 2,
    says: /Other users can write the state folder/,
  } as const;
  await assertRefused(['run'], expected, { cwd: here.folder });
});

test('a watched folder that is away makes the status failing, and nothing is lost', async (t) => {
  const here = new ServiceHere(t);
  mkdirSync(here.path('in'));
  here.configure("databases: [{ folder: nowhere, schedule: 1h, targets: [{ replica: 'copies/{name}' }] }]\n");
  const service = await here.start();
  const status = await here.status();
  assert.deepEqual([status.level, status.exitStatus, status.targets], ['failing', 2, []]);
  const { stdout } = await sqlsync(['status'], { cwd: here.folder });
  assert.match(stdout, /nowhere\/\*: The folder .*nowhere is not there/);
  await here.stop(service);
});
