import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { choosePacks } from '../../src/backup/check/choose-packs.ts';
import { change } from '../pages/databases.ts';
import { assertReplicaOf } from '../support/compare.ts';
import { Command, assertRefused, jsonLines, sqlsync, summaryOf, until } from './command.ts';
import { startPingServer } from './ping-server.ts';
import { here, listed } from './store-here.ts';
import type { Here } from './store-here.ts';

/** Changes a byte of the first frame of each pack. */
function damagePacks({ folder }: Here): void {
  const packs = join(folder, 'store', 'packs');
  for (const name of readdirSync(packs)) {
    const bytes = readFileSync(join(packs, name));
    bytes[30] = (bytes[30] as number) ^ 0xff;
    rmSync(join(packs, name));
    writeFileSync(join(packs, name), bytes);
  }
}

describe('check of a store', () => {
  test('check of a store claims no more than it looked at', async (t) => {
    const place = await here(t);
    await place.run('backup', 'a.db', 'store');
    const plain = await place.say('check', 'store');
    assert.doesNotMatch(plain, /can be restored/);
    assert.match(plain, /everything is there that 1 snapshot needs\n.* not the data in 1 pack .*--read-data/);
    const part = await place.say('check', 'store', '--read-data-subset', '500M');
    assert.doesNotMatch(part, /can be restored/);
    assert.match(part, /A part of the data was read: 1 pack .* of 1 pack .*--read-data reads all/);
    assert.match(
      await place.say('check', 'store', '--read-data'),
      /1 snapshot can be restored\nAll data was read/,
    );
    for (const [options, dataRead, packsRead] of [
      [[], 'none', 0],
      [['--read-data-subset', '5%'], 'part', 1],
      [['--read-data'], 'all', 1],
    ] as const) {
      const summary = await place.run('check', 'store', ...options);
      assert.deepEqual(
        [summary['dataRead'], summary['packsRead'], summary['packs']],
        [dataRead, packsRead, 1],
      );
    }
  });

  test('check of a store names each fault once, with short ids and the next step', async (t) => {
    const place = await here(t);
    await place.run('backup', 'a.db', 'store');
    const id = (await listed(place))[0]?.id ?? '';
    damagePacks(place);
    const { status, stdout } = await sqlsync(['check', 'store', '--read-data'], { cwd: place.folder });
    assert.equal(status, 19);
    assert.doesNotMatch(stdout, /[0-9a-f]{64}/);
    const [pack = ''] = readdirSync(join(place.folder, 'store', 'packs'));
    assert.equal(stdout.split(`packs/${pack.slice(0, 8)}`).length, 2, stdout);
    assert.match(stdout, /sqlsync repair store --read-data/);
    assert.ok(stdout.includes(`restore --salvage store#${id.slice(0, 8)}`), stdout);
  });

  test('check of a store takes a random part of about the wanted size', () => {
    const packs = Array.from({ length: 100 }, (_, i) => ({ name: `p${i}`, bytes: 10 }));
    assert.equal(choosePacks(packs, { percent: 5 }).length, 5);
    assert.equal(choosePacks(packs, { percent: 0.01 }).length, 1);
    assert.equal(choosePacks(packs, { bytes: 95 }).length, 10);
    assert.equal(choosePacks(packs, { bytes: 1e9 }).length, 100);
    assert.deepEqual(choosePacks([], { percent: 5 }), []);
    const runs = new Set(Array.from({ length: 20 }, () => choosePacks(packs, { percent: 5 }).sort().join()));
    assert.ok(runs.size > 1, 'not the same ones each time');
    const all = [1, 2, 3, 4, 5, 6, 7].flatMap((n) => choosePacks(packs, { n, m: 7 }));
    assert.equal(new Set(all).size, 100);
  });

  test('check of a store is a job: it pings, has metrics and does not overlap', async (t) => {
    const place = await here(t);
    await place.run('backup', 'a.db', 'store');
    const server = await startPingServer(t);
    const metrics = join(place.folder, 'check.prom');
    const words = ['store', '--ping', server.url, '--metrics-file', metrics, '--lock-wait', '0'];
    const env = { XDG_CACHE_HOME: join(place.folder, 'cache') };
    const sound = await sqlsync(['check', ...words], { cwd: place.folder, env });
    assert.equal(sound.status, 0, sound.stderr);
    damagePacks(place);
    const damaged = await sqlsync(['check', '--read-data', ...words], { cwd: place.folder, env });
    assert.equal(damaged.status, 19);
    const told = server.pings.map(({ request }) => /\/(start|fail)$/.exec(request)?.[1] ?? 'success');
    assert.deepEqual(told, ['start', 'success', 'start', 'fail']);
    assert.match(readFileSync(metrics, 'utf8'), /exit_status\{command="check",store="store"\} 19/);
    assert.match(readFileSync(metrics, 'utf8'), /last_success_timestamp_seconds\{command="check"/);
  });
});

describe('verify with snapshots', () => {
  test('verify compares a snapshot with a database in both orders, and two snapshots', async (t) => {
    const place = await here(t);
    await place.run('backup', 'a.db', 'b.db', 'store');
    const same = await summaryOf(['verify', 'store#latest', 'a.db', '--path', 'a.db'], { cwd: place.folder });
    assert.equal(same['same'], true);
    assert.equal((same['a'] as { location: string }).location, 'store#latest');
    change(join(place.folder, 'a.db'), 'CREATE TABLE more (x)');
    const { status, stdout } = await sqlsync(['verify', 'a.db', 'store', '--path', 'a.db'], {
      cwd: place.folder,
    });
    assert.equal(status, 1);
    assert.match(stdout, /^a\.db and store differ in /);
    await place.run('backup', 'a.db', 'store');
    const ids = (await listed(place)).map(({ id }) => id);
    const two = await sqlsync(['verify', `store#${ids[0]}`, `store#${ids[2]}`, '--json'], {
      cwd: place.folder,
    });
    assert.deepEqual([two.status, jsonLines(two.stdout).at(-1)?.['same']], [1, false]);
    const ambiguous = { code: 'USAGE', status: 2, says: /snapshots of 2 databases/ } as const;
    await assertRefused(['verify', 'store', 'a.db'], ambiguous, { cwd: place.folder });
  });

  test('verify of snapshots pings what it found', async (t) => {
    const place = await here(t);
    const server = await startPingServer(t);
    const run = await sqlsync(['verify', 'a.db', 'b.db', '--ping', server.url], { cwd: place.folder });
    assert.equal(run.status, 1);
    assert.match(server.pings.at(-1)?.request ?? '', /\/fail$/);
  });
});

describe('temporary copies', () => {
  test('temporary copies that a killed run left are removed by the next run, and no others', async (t) => {
    const place = await here(t);
    await place.run('backup', 'a.db', 'store');
    const TMPDIR = join(place.folder, 'tmp');
    mkdirSync(TMPDIR);
    const options = { cwd: place.folder, env: { TMPDIR } };
    const left = (): string[] => readdirSync(TMPDIR).filter((name) => name.startsWith('sqlsync-temporary-'));
    const foreign = join(TMPDIR, 'sqlsync-temporary-abcdef');
    mkdirSync(foreign, { mode: 0o700 });
    const killed = new Command(['open', 'store', '--exec', `sh -c 'exec sleep 1000'`], options);
    await until(() => killed.children().length > 0, killed);
    const [child] = killed.children();
    killed.child.kill('SIGKILL');
    await until(() => killed.child.signalCode !== null, killed);
    process.kill(child as number, 'SIGKILL');
    await killed.done;
    const abandoned = left().filter((name) => !foreign.endsWith(name));
    assert.equal(abandoned.length, 1);
    const running = new Command(['open', 'store', '--exec', `sh -c 'exec sleep 1000'`], options);
    await until(() => running.children().length > 0, running);
    assert.ok(!existsSync(join(TMPDIR, abandoned[0] as string)), 'what the killed run left is gone');
    assert.equal(left().length, 2, 'the one in use, and the one of an unknown run');
    const dumped = await sqlsync(['dump', 'store'], options);
    assert.equal(dumped.status, 0, dumped.stderr);
    assert.equal(left().length, 2, 'the one in use stays');
    process.kill(running.children()[0] as number, 'SIGKILL');
    await running.done;
    assert.deepEqual(left(), ['sqlsync-temporary-abcdef']);
  });

  test('a run that cannot have a folder for temporary copies names that folder', async (t) => {
    const place = await here(t);
    await place.run('backup', 'a.db', 'store');
    const TMPDIR = join(place.folder, 'nowhere');
    for (const words of [
      ['open', 'store', 'SELECT 1'],
      ['dump', 'store'],
      ['backup', 'a.db', 'store', '--verify'],
    ]) {
      const { status, stderr } = await sqlsync(words, { cwd: place.folder, env: { TMPDIR } });
      assert.equal(status, 25, stderr);
      assert.ok(stderr.includes(TMPDIR) && stderr.includes('TMPDIR='), stderr);
      assert.doesNotMatch(stderr, /forget/i);
    }
  });
});

describe('advice about a store', () => {
  test('advice about a store asks first whether its disk is mounted, and says repair if its packs are there', async (t) => {
    const { folder } = await here(t);
    const options = { cwd: folder };
    const unmounted = {
      code: 'STORE_NOT_FOUND',
      status: 18,
      says: /Check that its disk is mounted/,
    } as const;
    await assertRefused(['check', 'elsewhere'], unmounted, options);
    rmSync(join(folder, 'store', 'config'));
    mkdirSync(join(folder, 'store', 'packs'), { recursive: true });
    writeFileSync(join(folder, 'store', 'packs', 'ab'.repeat(32)), 'x');
    await assertRefused(['check', 'store'], { ...unmounted, says: /sqlsync repair/ }, options);
  });

  test('advice about a store notices swapped arguments', async (t) => {
    const { folder } = await here(t);
    const swapped = { code: 'USAGE', status: 2, says: /look swapped: store is a store/ } as const;
    await assertRefused(['backup', 'store', 'a.db'], swapped, { cwd: folder });
    await assertRefused(['restore', 'a.db', 'store'], swapped, { cwd: folder });
  });
});

test('a store whose indexes name no bases is damaged to check, which says the way out: repair makes new ones', async (t) => {
  const { folder, run } = await here(t);
  await run('backup', 'a.db', 'store');
  const indexes = join(folder, 'store', 'indexes');
  for (const name of readdirSync(indexes)) {
    const bytes = readFileSync(join(indexes, name));
    rmSync(join(indexes, name));
    bytes.write('SQLSYNX1');
    writeFileSync(join(indexes, createHash('sha256').update(bytes).digest('hex')), bytes);
  }
  const { stdout } = await sqlsync(['check', 'store'], { cwd: folder });
  assert.match(stdout, /sqlsync repair/);
  await run('repair', 'store');
  await run('restore', 'store', 'back.db');
  assertReplicaOf(join(folder, 'a.db'), join(folder, 'back.db'));
});
