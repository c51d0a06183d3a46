import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { parseDuration } from '../../src/cli/options/quantities.ts';
import { parsePingUrl, ping } from '../../src/cli/job/ping.ts';
import { Output } from '../../src/cli/terminal/output.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { smallDatabase } from '../pages/databases.ts';
import { Command, Hold, assertRefused, folderState, sqlsync, untilGone } from './command.ts';
import { parseMetrics } from './metrics.ts';
import { startPingServer } from './ping-server.ts';

/** A place with an origin, and a cache folder of its own so that no other test has the lock. */
interface Place {
  readonly folder: string;
  readonly origin: string;
  readonly replica: string;
  readonly env: { readonly XDG_CACHE_HOME: string };
}

function place(t: TestContext): Place {
  const folder = tempDir(t);
  const origin = join(folder, 'a.db');
  smallDatabase(origin);
  const cache = join(folder, 'cache');
  mkdirSync(cache);
  return { folder, origin, replica: join(folder, 'b.db'), env: { XDG_CACHE_HOME: cache } };
}

/** A run that holds the lock of its job, in the middle of its work. */
async function startHeld(t: TestContext, { origin, replica, env }: Place): Promise<[Command, Hold]> {
  const hold = new Hold(t, 1000);
  const command = new Command([origin, replica, '--lock-wait', '0', '-q'], { hold, env });
  t.after(() => command.child.kill('SIGKILL'));
  await hold.reached(command);
  return [command, hold];
}

describe('--lock-wait', () => {
  test('--lock-wait 0 gives up at once while another run of the job is under way, and touches nothing', async (t) => {
    const here = place(t);
    const { origin, replica, folder, env } = here;
    const server = await startPingServer(t);
    const [first, hold] = await startHeld(t, here);
    const before = folderState(folder);
    const metrics = join(folder, 'a.prom');
    const args = [
      origin,
      replica,
      '--lock-wait',
      '0',
      '--metrics-file',
      metrics,
      '--ping',
      `${server.url}/check`,
    ];
    await assertRefused(
      args,
      {
        code: 'LOCKED',
        status: 20,
        says: /Another run of this job is still under way; this one did nothing/,
      },
      { env },
    );
    assert.deepEqual(folderState(folder), before);
    assert.deepEqual(
      server.pings.map(({ request }) => request),
      ['POST /check/fail'],
      'the other run is the one that started',
    );
    hold.release();
    assert.equal((await first.done).status, 0, first.said);
    assertReplicaOf(origin, replica);
    assert.deepEqual(readdirSync(join(env.XDG_CACHE_HOME, 'sqlsync', 'jobs')), [], 'the lock is gone');
  });

  test('--lock-wait waits for the other run, however the user spells the same places', async (t) => {
    const here = place(t);
    const [first, hold] = await startHeld(t, here);
    const second = new Command(
      ['./a.db', '../' + here.folder.split('/').at(-1) + '/b.db', '--lock-wait=1m', '--json', '-v'],
      {
        env: here.env,
        cwd: here.folder,
      },
    );
    t.after(() => second.child.kill('SIGKILL'));
    await second.says('waiting');
    const other = await sqlsync([here.origin, join(here.folder, 'c.db'), '--lock-wait', '0'], {
      env: here.env,
    });
    assert.equal(other.status, 0, `another job does not wait: ${other.stderr}`);
    assert.equal(second.child.exitCode, null, second.said);
    hold.release();
    assert.equal((await first.done).status, 0, first.said);
    const { status, stdout } = await second.done;
    assert.equal(status, 0, stdout);
    assert.match(stdout, /"outcome":"unchanged"/, 'it found what the first had copied');
  });

  test('a lock does not count after its run was killed', async (t) => {
    const here = place(t);
    const [first] = await startHeld(t, here);
    const agents = first.children();
    first.child.kill('SIGKILL');
    await first.done;
    await untilGone(agents);
    const { origin, replica, env } = here;
    const next = await sqlsync([origin, replica, '--lock-wait', '0'], { env });
    assert.deepEqual([next.status, next.stderr], [0, '']);
    assertReplicaOf(origin, replica);
  });

  test('a lock does not count if another program filled the file that a killed run left', async (t) => {
    const here = place(t);
    const [first] = await startHeld(t, here);
    const agents = first.children();
    first.child.kill('SIGKILL');
    await first.done;
    await untilGone(agents);
    const { origin, replica, env } = here;
    const folder = join(env.XDG_CACHE_HOME, 'sqlsync', 'jobs');
    const [left] = readdirSync(folder);
    writeFileSync(join(folder, left ?? ''), 'pid 4711\n');
    const next = await sqlsync([origin, replica, '--lock-wait', '0'], { env });
    assert.deepEqual([next.status, next.stderr], [0, '']);
    assert.deepEqual(readdirSync(folder), []);
    mkdirSync(join(folder, left ?? ''));
    await assertRefused(
      [origin, replica, '--lock-wait', '0'],
      { code: 'USAGE', status: 2, says: /--lock-wait: .*\.lock is a folder/, hint: /remove it/ },
      { env },
    );
  });

  test('a signal ends a run that waits for a lock, and it has done nothing', async (t) => {
    const here = place(t);
    await startHeld(t, here);
    const { origin, replica, env } = here;
    const second = new Command([origin, replica, '--lock-wait', '1h', '-v'], { env });
    t.after(() => second.child.kill('SIGKILL'));
    await second.says('waiting');
    second.child.kill('SIGTERM');
    const { status, stderr } = await second.done;
    assert.equal(status, 130, stderr);
    assert.match(stderr, /while another run of this job was under way \[INTERRUPTED\]/);
  });

  test('a run says what to do if the lock has no place', async (t) => {
    const { origin, replica } = place(t);
    await assertRefused(
      [origin, replica, '--lock-wait', '0'],
      { code: 'USAGE', status: 2, says: /lock .* cannot be made/, hint: /XDG_CACHE_HOME/ },
      { env: { XDG_CACHE_HOME: origin } },
    );
    assert.equal(existsSync(replica), false);
  });

  test(
    'a run ends if the folder for its locks can never be made',
    { skip: !existsSync('/proc/self') },
    async (t) => {
      const { origin, replica } = place(t);
      await assertRefused(
        [origin, replica, '--lock-wait', '0'],
        { code: 'USAGE', status: 2, says: /lock .* cannot be made/, hint: /XDG_CACHE_HOME/ },
        { env: { XDG_CACHE_HOME: '/proc/no/such/folder' } },
      );
      assert.equal(existsSync(replica), false);
    },
  );
});

describe('--ping', () => {
  test('--ping reports start and success with the output for people, even if that is not printed', async (t) => {
    const { origin, replica } = place(t);
    const server = await startPingServer(t);
    const url = server.url.replace('http://', 'http://user:p%40ss@') + '/uuid/?rid=1';
    const { status, stdout, stderr } = await sqlsync([origin, replica, '-q', '--ping', url]);
    assert.deepEqual([status, stdout, stderr], [0, '', '']);
    assert.deepEqual(
      server.pings.map(({ request }) => request),
      ['POST /uuid/start?rid=1', 'POST /uuid/?rid=1'],
    );
    const [start, success] = server.pings;
    assert.equal(start?.body, '');
    assert.match(success?.body ?? '', /is now an exact copy of/);
    assert.equal(success?.authorization, `Basic ${Buffer.from('user:p@ss').toString('base64')}`);
  });

  test('--ping reports a failure with the error and its hint', async (t) => {
    const { replica } = place(t);
    const server = await startPingServer(t);
    const { status } = await sqlsync(['/no/such.db', replica, '-q', '--ping', `${server.url}/uuid`]);
    assert.equal(status, 3);
    assert.deepEqual(
      server.pings.map(({ request }) => request),
      ['POST /uuid/start', 'POST /uuid/fail'],
    );
    assert.match(server.pings[1]?.body ?? '', /such\.db .*\[ORIGIN_NOT_FOUND\]\n\S/);
  });

  test('--ping reports a run that was ended by a signal', async (t) => {
    const here = place(t);
    const server = await startPingServer(t);
    const hold = new Hold(t, 1000);
    const command = new Command([here.origin, here.replica, '--ping', server.url], { hold, env: here.env });
    t.after(() => command.child.kill('SIGKILL'));
    await hold.reached(command);
    command.child.kill('SIGTERM');
    assert.equal((await command.done).status, 130);
    assert.deepEqual(
      server.pings.map(({ request }) => request),
      ['POST /start', 'POST /fail'],
    );
  });

  test('a ping that nobody takes warns, without its secret path, and fails no sync', async (t) => {
    const { origin, replica } = place(t);
    const refusing = await startPingServer(t, () => 503);
    const { status, stderr } = await sqlsync([origin, replica, '--ping', `${refusing.url}/secret`]);
    assert.equal(status, 0);
    const { host } = new URL(refusing.url);
    assert.match(
      stderr,
      new RegExp(`warning: http://${host} did not get the report of the start: status 503`),
    );
    assert.match(
      stderr,
      new RegExp(`warning: http://${host} did not get the report of the success: status 503`),
    );
    assert.doesNotMatch(stderr, /secret/);
    assertReplicaOf(origin, replica);
  });

  test('the ping of the end never comes before that of the start, however long that takes', async (t) => {
    const { origin, replica } = place(t);
    let copied: () => boolean = () => false;
    const server = await startPingServer(t, async (n) => {
      if (n > 0) return 200;
      // The work is done while the service still holds its answer back.
      while (!copied()) await delay(5);
      return 500;
    });
    const command = new Command([origin, replica, '--ping', server.url]);
    t.after(() => command.child.kill('SIGKILL'));
    copied = () => command.said.includes('exact copy') || command.child.exitCode !== null;
    assert.equal((await command.done).status, 0, command.said);
    // On a machine so busy that the work took longer than a ping waits, the run does not ask again.
    const wasSilent = command.said.includes('no answer within 5 s');
    assert.deepEqual(
      server.pings.map(({ request }) => request),
      [...(wasSilent ? [] : ['POST /start']), 'POST /start', 'POST /'],
    );
  });

  test('a ping is tried twice if that may help, and once if it may not', async (t) => {
    const recovering = await startPingServer(t, (n) => (n === 0 ? 500 : 200));
    assert.equal(await ping(new URL(recovering.url), 'success', ''), undefined);
    assert.equal(recovering.pings.length, 2);
    const unknown = await startPingServer(t, () => 404);
    assert.match((await ping(new URL(unknown.url), 'success', '')) ?? '', /status 404/);
    assert.equal(unknown.pings.length, 1);
    const silent = await startPingServer(t, () => undefined);
    // Long enough for the request to arrive on a busy machine.
    assert.ok((await ping(new URL(silent.url), 'fail', '', 10_000))?.endsWith('no answer within 10 s'));
    assert.equal(silent.pings.length, 1);
    const closed = await closedPort();
    assert.match((await ping(new URL(`http://127.0.0.1:${closed}`), 'start', '')) ?? '', /ECONNREFUSED/);
  });

  test('a ping carries the end of the output, and no more than a service takes', () => {
    const output = new Output({ json: true, verbosity: 'quiet' });
    for (let i = 0; i < 2000; i++) output.result(`line ${i}`);
    assert.ok(output.tail.length < 10_000);
    assert.match(output.tail, /^…[^]*line 1998\nline 1999\n$/);
  });

  test('the address of a ping has to be one of the web', () => {
    for (const text of [
      '',
      'uuid',
      'ftp://host/uuid',
      '//host/uuid',
      'file:///etc/passwd',
      'http://a%zz@host/',
    ]) {
      assert.throws(() => parsePingUrl(text), { code: 'USAGE' }, text);
    }
  });
});

describe('--metrics-file', () => {
  test('--metrics-file has the last run, and after a failure still the figures of the last success', async (t) => {
    const { folder, origin, replica } = place(t);
    const file = join(folder, 'a.prom');
    const startedAt = Date.now() / 1000;
    const args = [origin, replica, '-q', '--metrics-file', file];
    // The first run makes a local replica without an agent, and receives nothing.
    assert.equal((await sqlsync([origin, replica, '-q'])).status, 0);
    assert.equal((await sqlsync(args)).status, 0);
    const read = (): Record<string, number> => {
      const samples = parseMetrics(readFileSync(file, 'utf8'));
      for (const { labels } of samples) assert.deepEqual(labels, { command: 'sync', origin, replica });
      return Object.fromEntries(samples.map(({ name, value }) => [name, value]));
    };
    const first = read();
    const snapshotAt = first['sqlsync_snapshot_timestamp_seconds'] as number;
    const succeededAt = first['sqlsync_last_success_timestamp_seconds'] as number;
    assert.ok(startedAt <= snapshotAt && snapshotAt <= succeededAt && succeededAt <= Date.now() / 1000);
    assert.equal(first['sqlsync_last_run_exit_status'], 0);
    assert.ok((first['sqlsync_received_bytes'] as number) > 0);
    const failed = await sqlsync([...args, '--max-time', '0.001']);
    assert.equal(failed.status, 16, failed.stderr);
    const second = read();
    assert.equal(second['sqlsync_last_run_exit_status'], 16);
    assert.equal(second['sqlsync_last_success_timestamp_seconds'], succeededAt);
    assert.ok((second['sqlsync_last_failure_timestamp_seconds'] as number) >= succeededAt);
  });

  test('a metrics file that is a database, or a text of another kind, stays as it is', async (t) => {
    const { folder, origin, replica } = place(t);
    const notes = join(folder, 'notes.txt');
    writeFileSync(notes, 'Do not forget the milk, nor the bread.\n');
    for (const file of [origin, replica, notes]) {
      const before = file === replica ? undefined : readFileSync(file);
      const run = await sqlsync([origin, replica, '--metrics-file', file]);
      assert.equal(run.status, 0, run.stderr);
      assert.match(run.stderr, /warning: The metrics could not be written: .* no metrics file/);
      if (before !== undefined) assert.deepEqual(readFileSync(file), before);
    }
    assert.equal((await sqlsync(['verify', origin, replica])).status, 0);
  });

  test('a metrics file that cannot be written warns and fails no sync; so does one of another job', async (t) => {
    const { folder, origin, replica } = place(t);
    const nowhere = await sqlsync([origin, replica, '--metrics-file', join(folder, 'none', 'a.prom')]);
    assert.equal(nowhere.status, 0);
    assert.match(nowhere.stderr, /warning: The metrics could not be written: ENOENT/);
    const file = join(folder, 'a.prom');
    assert.equal((await sqlsync([origin, replica, '--metrics-file', file])).stderr, '');
    const other = await sqlsync([origin, join(folder, 'c.db'), '--metrics-file', file]);
    assert.equal(other.status, 0);
    assert.match(other.stderr, /warning: .* had metrics of other jobs .*b\.db.* its own file/);
  });
});

test('a dry run tells nobody that anything was copied', async (t) => {
  const { origin, replica } = place(t);
  for (const option of [
    ['--ping', 'http://127.0.0.1/'],
    ['--metrics-file', 'a.prom'],
  ]) {
    await assertRefused([origin, replica, '--dry-run', ...option], {
      code: 'USAGE',
      status: 2,
      says: /exclude/,
    });
  }
});

test('a duration is a number of seconds, or has a unit', () => {
  const durations = {
    '0': 0,
    '90': 90_000,
    '30s': 30_000,
    '1.5m': 90_000,
    '2h': 7_200_000,
    '7d': 604_800_000,
  };
  for (const [text, ms] of Object.entries(durations))
    assert.equal(parseDuration('--lock-wait', text, true), ms);
  for (const text of ['', 'm', '-1', '1w', '8d', '1e3', '1 m', 'soon']) {
    assert.throws(
      () => parseDuration('--lock-wait', text, true),
      { code: 'USAGE', message: /--lock-wait/ },
      text,
    );
  }
});

async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
