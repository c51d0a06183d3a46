import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { assertRefused, sqlsync, summaryOf, until, untilGone } from '../cli/command.ts';
import { assertDocumented } from '../cli/store-here.ts';
import { ServiceHere, events, eventually, untilEvents } from './running-service.ts';

/** A moment that does not come while a test runs. */
const FAR_AWAY = ((moment) => `0 0 ${moment.getDate()} ${moment.getMonth() + 1} *`)(
  new Date(Date.now() + 180 * 86_400_000),
);

describe('the service', () => {
  test('it makes replicas, follows, and backs up, each as its schedule says, and proves that they can be restored', async (t) => {
    const here = new ServiceHere(t);
    here.database('a.db');
    await summaryOf(['init', 'store'], { cwd: here.folder });
    here.configure(
      `concurrency: 4
databases:
  - path: a.db
    verify: 1h
    targets:
      - { replica: copies/a.db, schedule: 1s }
      - { replica: copies/b.db, schedule: follow, options: { interval: 100ms } }
      - { store: store, schedule: '${FAR_AWAY}', keep: { last: 2 } }
`,
    );
    const service = await here.start();
    // The second copy of a replica is one by its schedule.
    await untilEvents(service, 'copied', 'copies/a.db', 2);
    await untilEvents(service, 'following', 'copies/b.db');
    await untilEvents(service, 'proven', 'copies/a.db');
    await untilEvents(service, 'proven', 'copies/b.db');
    const status = await here.status();
    assert.equal(status.exitStatus, 0);
    assert.equal(status.isServiceRunning, true);
    assert.deepEqual(
      status.targets.map(({ kind, level }) => [kind, level]),
      [
        ['replica', 'fine'],
        ['follow', 'fine'],
        ['store', 'fine'],
      ],
    );
    const replica = await here.target('copies/a.db');
    assert.equal(replica.sizeBytes, statSync(here.path('a.db')).size);
    assert.ok(replica.provenAtMs !== undefined && replica.lastSuccessAtMs !== undefined);
    const store = await here.target('store');
    assert.ok((store.nextRunAtMs ?? 0) > status.atMs, 'a store waits for its moment');
    await here.stop(service);
    for (const name of ['a.db', 'b.db'])
      assert.equal(
        (await sqlsync(['verify', 'a.db', `copies/${name}`], { cwd: here.folder })).status,
        0,
        name,
      );
    assert.deepEqual(
      existsSync(here.path('state', 'proof')) ? readdirSync(here.path('state', 'proof')) : [],
      [],
    );
  });

  test('a backup is made with the policy and the password of the file, which no one gets to see', async (t) => {
    const here = new ServiceHere(t);
    here.database('a.db');
    writeFileSync(here.path('password'), 'hunter2-of-the-store\n');
    writeFileSync(here.path('ping'), 'http://127.0.0.1:1/hunter2-of-the-ping\n');
    await summaryOf(['init', 'store', '--encrypt', '--password-file', 'password'], { cwd: here.folder });
    here.configure(
      `databases:
  - path: a.db
    schedule: 1s
    verify: 1h
    ping-file: ping
    targets:
      - { store: store, keep: { last: 1 }, password-file: password, options: { tag: nightly } }
`,
    );
    const service = await here.start();
    await untilEvents(service, 'copied', 'store', 2);
    await untilEvents(service, 'proven', 'store');
    const shown = await sqlsync(['status', '--json'], { cwd: here.folder });
    const run = await here.stop(service);
    const { snapshots } = await summaryOf(['snapshots', 'store', '--password-file', 'password'], {
      cwd: here.folder,
    });
    assert.deepEqual(
      (snapshots as { tags: string[] }[]).map(({ tags }) => tags),
      [['nightly']],
    );
    for (const text of [
      run.stdout,
      run.stderr,
      shown.stdout,
      readFileSync(here.path('state', 'state.json'), 'utf8'),
    ])
      assert.doesNotMatch(text, /hunter2/);
    assert.match(run.stdout, /127\.0\.0\.1:1 did not get the report/);
  });

  test('a folder is watched: a database that appears gets its copies, and one that goes is told', async (t) => {
    const here = new ServiceHere(t);
    const first = here.database('first.db');
    here.configure(
      `databases:
  - folder: .
    pattern: '*.db'
    schedule: 1s
    targets: [{ replica: 'copies/{name}' }]
`,
    );
    const service = await here.start();
    await untilEvents(service, 'copied', 'copies/first.db');
    // Under its name only when it is whole.
    here.database('second.tmp');
    renameSync(here.path('second.tmp'), here.path('second.db'));
    await untilEvents(service, 'copied', 'copies/second.db');
    rmSync(first);
    await eventually(async () => (await here.target('first.db')).level === 'gone', 'first.db is gone');
    const { level, exitStatus } = await here.status();
    assert.deepEqual([level, exitStatus], ['fine', 0]);
    await here.stop(service);
    assert.ok(existsSync(here.path('copies', 'first.db')), 'its copy is kept');
  });

  test('a copy that fails makes the status failing, runs the hook, and the status is fine when it succeeds again', async (t) => {
    const here = new ServiceHere(t);
    const database = here.database('a.db');
    renameSync(database, `${database}.away`);
    here.configure(
      `databases:
  - path: a.db
    schedule: 1s
    targets: [{ replica: copies/a.db }]
    hooks: { failure: 'echo "$SQLSYNC_CODE $SQLSYNC_ORIGIN" >> failures' }
`,
    );
    const service = await here.start();
    await untilEvents(service, 'failure', 'copies/a.db');
    await eventually(() => here.lines('failures').length > 0, 'the hook ran');
    assert.equal(here.lines('failures')[0], `ORIGIN_NOT_FOUND ${database}`);
    const failing = await here.status();
    assert.deepEqual([failing.level, failing.exitStatus], ['failing', 2]);
    assert.match(failing.targets[0]?.why ?? '', /\[ORIGIN_NOT_FOUND\]/);
    renameSync(`${database}.away`, database);
    await untilEvents(service, 'copied', 'copies/a.db');
    assert.equal((await here.status()).exitStatus, 0);
    await here.stop(service);
  });

  test('a copy of a store that cannot be restored makes the status failing', async (t) => {
    const here = new ServiceHere(t);
    here.database('a.db');
    await summaryOf(['init', 'store'], { cwd: here.folder });
    const target = `{ store: store, schedule: 1s, options: { no-cache: true }`;
    here.configure(`databases: [{ path: a.db, targets: [${target} }] }]\n`);
    const first = await here.start();
    await untilEvents(first, 'copied', 'store');
    await here.stop(first);
    for (const name of readdirSync(here.path('store', 'packs'))) rmSync(here.path('store', 'packs', name));
    // No copy is due, so that the damage is not found before.
    here.configure(
      `databases: [{ path: a.db, targets: [${target.replace('1s', `'${FAR_AWAY}'`)}, verify: 1h }] }]\n`,
    );
    const second = await here.start();
    await untilEvents(second, 'failure', 'store');
    const { exitStatus, targets } = await here.status();
    assert.equal(exitStatus, 2);
    assert.match(targets[0]?.why ?? '', /could not be proven restorable/);
    await here.stop(second);
  });

  test('a copy that the configuration does not ask for is not made: nothing is started by half', async (t) => {
    const here = new ServiceHere(t);
    here.database('a.db');
    here.configure(
      'databases:\n  - path: a.db\n    schedule: 1s\n    targets: [{ replica: copies/a.db }, { store: store, schedule: never }]\n',
    );
    const expected = { code: 'CONFIG_INVALID', status: 2, says: /found "never"/ } as const;
    await assertRefused(['run'], expected, { cwd: here.folder });
    assert.deepEqual([readdirSync(here.path('copies')), existsSync(here.path('state'))], [[], false]);
  });
});

describe('copies of the service', () => {
  /** Hooks that tell when a copy begins and ends, and hold it until there is a file `go`. */
  const HELD = `{ before: 'echo "+ $SQLSYNC_TARGET" >> log; while [ ! -e go ]; do sleep 0.02; done', after: 'echo "- $SQLSYNC_TARGET" >> log' }`;

  test('at most as many run at a time as the file says, and one into a store', async (t) => {
    const here = new ServiceHere(t);
    const names = ['a', 'b', 'c', 'd', 'e'];
    for (const name of names) here.database(`${name}.db`);
    await summaryOf(['init', 'store'], { cwd: here.folder });
    writeFileSync(here.path('go'), '');
    here.configure(
      `concurrency: 2
databases:
  - path: '*.db'
    schedule: 1s
    hooks: ${HELD}
    targets: [{ replica: 'copies/{name}' }, { store: store }]
`,
    );
    const service = await here.start();
    for (const name of names) await untilEvents(service, 'copied', `copies/${name}.db`, 2);
    await untilEvents(service, 'copied', 'store', names.length);
    await here.stop(service);
    assert.deepEqual(events(service, 'failure'), []);
    const underWay: string[] = [];
    for (const line of here.lines('log')) {
      const target = line.slice(2);
      if (line.startsWith('+')) {
        assert.ok(!underWay.includes(target), `${target} has two at a time`);
        underWay.push(target);
        assert.ok(underWay.length <= 2, `${underWay.length} at a time`);
      } else {
        assert.ok(underWay.includes(target), `${target} has ended twice`);
        underWay.splice(underWay.indexOf(target), 1);
      }
    }
  });

  test('a copy that a kill of the service cut off is made again, once', async (t) => {
    const here = new ServiceHere(t);
    here.database('a.db');
    here.configure(
      `databases: [{ path: a.db, schedule: '${FAR_AWAY}', hooks: ${HELD}, targets: [{ replica: copies/a.db }] }]\n`,
    );
    const idle = await here.start();
    await here.stop(idle);
    const file = here.path('state', 'state.json');
    const text = readFileSync(file, 'utf8');
    // As if its moment, and some years of such moments, had passed while the host slept.
    writeFileSync(file, text.replace(/"dueAtMs":\d+/, '"dueAtMs":1000'));
    const killed = await here.start();
    await eventually(() => here.lines('log').length === 1, 'the copy began');
    const children = killed.children();
    killed.child.kill('SIGKILL');
    // The hook holds the stderr of the service, and ends by itself.
    await killed.done;
    await untilGone(children);
    const again = await here.start();
    await eventually(() => here.lines('log').length === 2, 'the copy began again');
    writeFileSync(here.path('go'), '');
    await untilEvents(again, 'copied', 'copies/a.db');
    const { nextRunAtMs = 0, isRunning } = await here.target('copies/a.db');
    assert.ok(
      nextRunAtMs > Date.now() && !isRunning,
      'it is due at the next moment, and not for each that passed',
    );
    await here.stop(again);
    assert.deepEqual(
      here.lines('log').map((line) => line[0]),
      ['+', '+', '-'],
    );
  });

  test('a copy under way ends when the service does, and is due again', async (t) => {
    const here = new ServiceHere(t);
    here.database('a.db');
    here.configure(
      `databases: [{ path: a.db, schedule: 1h, hooks: ${HELD}, targets: [{ replica: copies/a.db }] }]\n`,
    );
    const service = await here.start();
    await eventually(() => here.lines('log').length === 1, 'the copy began');
    const children = service.children();
    assert.equal((await here.target('copies/a.db')).isRunning, true);
    await here.stop(service);
    await untilGone(children);
    const { isRunning, nextRunAtMs = Infinity, level } = await here.target('copies/a.db');
    assert.deepEqual([isRunning, nextRunAtMs <= Date.now(), level], [false, true, 'fine']);
  });
});

describe('one configuration', () => {
  test('a second service with it is refused', async (t) => {
    const here = new ServiceHere(t);
    here.database('a.db');
    here.configure('databases: [{ path: a.db, schedule: 1h, targets: [{ replica: copies/a.db }] }]\n');
    const service = await here.start();
    await assertRefused(
      ['run'],
      { code: 'LOCKED', status: 20, says: /Another service/ },
      { cwd: here.folder },
    );
    await here.stop(service);
  });

  test('a reload takes what changed, and does not disturb what follows', async (t) => {
    const here = new ServiceHere(t);
    for (const name of ['a.db', 'b.db']) here.database(name);
    const follows = '  - { path: a.db, schedule: follow, targets: [{ replica: copies/a.db }] }\n';
    here.configure(`databases:\n${follows}`);
    const service = await here.start();
    await untilEvents(service, 'following', 'copies/a.db');
    const before = service.children();
    here.configure(
      `databases:\n${follows}  - { path: b.db, schedule: 1h, targets: [{ replica: copies/b.db }] }\n`,
    );
    service.child.kill('SIGHUP');
    await untilEvents(service, 'copied', 'copies/b.db');
    for (const pid of before) assert.ok(service.children().includes(pid), 'the follower goes on');

    here.configure('databases: [{ path: b.db }]\n');
    service.child.kill('SIGHUP');
    await until(() => events(service, 'failure').some(({ code }) => code === 'CONFIG_INVALID'), service);
    const refused = await here.status();
    assert.equal(refused.exitStatus, 1);
    assert.match(refused.configFailure?.message ?? '', /no targets/);
    assert.equal(refused.targets.length, 2);

    here.configure('databases: [{ path: b.db, schedule: 1h, targets: [{ replica: copies/b.db }] }]\n');
    service.child.kill('SIGHUP');
    await until(() => events(service, 'reloaded').length === 2, service);
    await untilGone(before);
    const { targets, exitStatus } = await here.status();
    assert.deepEqual([targets.map(({ target }) => target), exitStatus], [[here.path('copies', 'b.db')], 0]);
    assert.equal(
      events(service, 'copied', 'copies/b.db').length,
      1,
      'what has not changed is not copied again',
    );
    await here.stop(service);
  });

  test('its socket and its state are for its user alone', async (t) => {
    const here = new ServiceHere(t);
    here.database('a.db');
    here.configure('databases: [{ path: a.db, schedule: 1h, targets: [{ replica: copies/a.db }] }]\n');
    const service = await here.start();
    const modes = ['', 'socket', 'state.json'].map(
      (name) => statSync(join(here.path('state'), name)).mode & 0o777,
    );
    assert.deepEqual(modes, [0o700, 0o600, 0o600]);
    await here.stop(service);
  });
});

describe('the status', () => {
  test('its fields are documented, and people get a line for each target', async (t) => {
    const here = new ServiceHere(t);
    here.database('a.db');
    here.configure('databases: [{ path: a.db, schedule: 1h, targets: [{ replica: copies/a.db }] }]\n');
    const refused = { code: 'CONFIG_INVALID', status: 2, says: /No service has run/ } as const;
    await assertRefused(['status'], refused, { cwd: here.folder });
    const service = await here.start();
    await untilEvents(service, 'copied', 'copies/a.db');
    const summary = await summaryOf(['status'], { cwd: here.folder });
    assertDocumented('status', summary);
    const { stdout } = await sqlsync(['status'], { cwd: here.folder });
    assert.match(stdout, /^1 target: 1 fine\n.*Database.*\nfine .*a\.db .*copies\/a\.db .* in \d+ (?:h|min)/);
    await here.stop(service);
    const { stdout: after } = await sqlsync(['status'], { cwd: here.folder });
    assert.match(after, /No service runs/);
  });
});
