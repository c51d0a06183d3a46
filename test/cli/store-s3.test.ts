import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { change, smallDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { Following } from '../follow/following.ts';
import { S3Server, SERVER_KEYS } from '../support/s3-server.ts';
import { assertRefused, Command, sqlsync, summaryOf } from './command.ts';
import type { CommandOptions, Run, Summary } from './command.ts';

const REFUSED = { code: 'STORE_UNAVAILABLE', status: 18 } as const;

describe('the commands on a store in S3', () => {
  test('init warns of a bucket that overwrites, and says how to get what is missing', async (t) => {
    const { server, store, options, say } = await here(t);
    server.keepsConditions = false;
    const { stdout, stderr } = await say('init', store);
    assert.match(stdout, /is now a backup store, with the id/);
    assert.match(stderr, /warning: This bucket does not refuse to overwrite a file/);
    await assertRefused(
      ['init', store],
      { code: 'STORE_EXISTS', status: 18, says: /There is a store in s3:/ },
      options,
    );
    server.twist = () => ({ status: 404, code: 'NoSuchBucket' });
    await assertRefused(
      ['init', store],
      { ...REFUSED, says: /NoSuchBucket/, hint: /Make the bucket bucket/ },
      options,
    );
  });

  test('an encrypted store in S3 shows the service nothing, and lists nothing once this host knows it', async (t) => {
    const { server, folder, store, options, run, say } = await here(t);
    writeFileSync(join(folder, 'password'), 'secret in S3\n');
    const env = { ...options.env, SQLSYNC_PASSWORD_FILE: join(folder, 'password') };
    const secret = (...args: string[]): Promise<Summary> => summaryOf(args, { ...options, env });
    const { stderr } = await say('init', `${store}/plain`);
    assert.match(stderr, /is not encrypted: anyone who can read its files there/);
    assert.doesNotMatch((await say('init', `${store}/meant`, '--plain')).stderr, /not encrypted/);
    await secret('init', store, '--encrypt');
    await secret('backup', 'a.db', store);
    const before = server.requests.length;
    await secret('backup', 'a.db', store, '--skip-if-unchanged');
    assert.deepEqual(
      server.requests.slice(before).filter(({ method }) => method === 'PUT'),
      [],
    );
    change(join(folder, 'a.db'), 'UPDATE item SET amount = -1 WHERE id % 50 = 0');
    await secret('backup', 'a.db', store);
    await secret('restore', store, 'back.db');
    assertReplicaOf(join(folder, 'a.db'), join(folder, 'back.db'));
    await secret('check', store, '--read-data');
    const more = ['--new-password-file', join(folder, 'password')];
    const changed = await sqlsync(['key', 'passwd', store, ...more], { ...options, env });
    assert.match(changed.stdout, /If the bucket keeps versions, the old version of the key file stays/);
    await assertRefused(
      ['snapshots', store],
      { code: 'STORE_PASSWORD', status: 27, says: /is encrypted/ },
      {
        ...options,
        detached: true,
      },
    );
    await run('snapshots', `${store}/plain`);
  });

  test('a store that is not there is not found, and neither a snapshot nor a database takes its place', async (t) => {
    const { store, options, run } = await here(t);
    const missing = { code: 'STORE_NOT_FOUND', status: 18, says: /There is no store in s3:/ } as const;
    for (const command of ['snapshots', 'repair']) await assertRefused([command, store], missing, options);
    await run('init', store);
    const usage = { code: 'USAGE', status: 2 } as const;
    const noSnapshot = { ...usage, says: /neither an id nor a time/ };
    await assertRefused(['restore', `${store}#nothing`, 'b.db'], noSnapshot, options);
    const swapped = { ...usage, says: /The arguments look swapped/ };
    await assertRefused(['backup', store, 'a.db'], swapped, options);
    await assertRefused(['restore', 'a.db', store], swapped, options);
    await assertRefused(
      ['snapshots', 's3:http://example.com/bucket/x'],
      { ...usage, says: /no encryption/ },
      options,
    );
  });

  test('a backup to S3 keeps its hashes in the cache folder, and with --no-cache nowhere', async (t) => {
    const { folder, store, run } = await here(t);
    const { id } = await run('init', store);
    const hashes = join(folder, 'cache', 'sqlsync', 'hashes', String(id));
    await run('backup', 'a.db', store, '--no-cache', '--keep-last', '1', '--prune');
    assert.equal(existsSync(hashes), false);
    for (const name of ['files', 'parents'])
      assert.equal(existsSync(join(folder, 'cache', 'sqlsync', name)), false);
    await run('backup', 'a.db', store);
    assert.equal(existsSync(hashes), true);
  });

  test('a database that is followed into S3 takes one put a step, no list and no get, and nothing while it is quiet', async (t) => {
    const { server, folder, store, options, run } = await here(t);
    await run('init', store);
    const origin = join(folder, 'a.db');
    const app = await new OtherProcess(t).open(origin);
    const following = new Following(t, [origin, store], options);
    await following.untilEvents('step', 2);
    const before = server.requests.length;
    for (let n = 1; n <= 5; n++) {
      await app.exec(`UPDATE item SET amount = ${n} WHERE id = 7`);
      await following.untilEvents('step', 2 + n);
    }
    await delay(200); // several looks that find nothing
    assert.deepEqual(
      server.requests.slice(before).map(({ operation }) => operation),
      Array.from({ length: 5 }, () => 'put'),
    );
    assert.equal((await following.end()).status, 0);
    await app.call('close');
    await run('restore', store, 'back.db');
    assertReplicaOf(origin, join(folder, 'back.db'));
  });

  test('a backup lists nothing once this host knows the store, and writes nothing in vain', async (t) => {
    const { server, folder, store, options, run } = await here(t);
    await run('init', store);
    await run('backup', 'a.db', store);
    const billed = async (...more: string[]): Promise<Record<string, number>> => {
      const before = server.requests.length;
      const { backups, requests } = (await run('backup', 'a.db', store, ...more)) as unknown as {
        backups: { unchanged: boolean }[];
        requests: { reads: number; writes: number };
      };
      const count = (operation: string): number =>
        server.requests.slice(before).filter((request) => request.operation === operation).length;
      assert.deepEqual([requests.reads, requests.writes], [count('get'), count('put') + count('list')]);
      return {
        puts: count('put'),
        lists: count('list'),
        gets: count('get'),
        skipped: Number(backups[0]?.unchanged),
      };
    };
    assert.deepEqual(await billed(), { puts: 1, lists: 0, gets: 9, skipped: 0 });
    assert.deepEqual(await billed('--skip-if-unchanged'), { puts: 0, lists: 0, gets: 6, skipped: 1 });
    const { stdout } = await sqlsync(['backup', 'a.db', store, '--skip-if-unchanged'], options);
    assert.match(stdout, /^a\.db has not changed since its snapshot [0-9a-f]{8}: no new one was made/m);
    change(join(folder, 'a.db'), 'UPDATE item SET amount = -1 WHERE id = 3');
    // Besides the config, the parent's record and the note on it, the old version of the delta that is tried.
    assert.deepEqual(await billed('--skip-if-unchanged'), { puts: 3, lists: 0, gets: 10, skipped: 0 });
    assert.equal((await billed('--no-cache'))['lists'], 9);
  });

  test('a command reads no index, record or tree again that this host has, but check does', async (t) => {
    const { server, folder, store, run } = await here(t);
    await run('init', store);
    for (let day = 0; day < 3; day++) {
      change(join(folder, 'a.db'), `UPDATE item SET amount = ${day} WHERE id = 3`);
      await run('backup', 'a.db', store);
    }
    const files = async (...args: string[]): Promise<Record<string, number>> => {
      const before = server.requests.length;
      await run(...args);
      const gets = server.requests.slice(before).filter(({ operation }) => operation === 'get');
      const kinds = gets.map(({ key }) => /(?:indexes|snapshots|packs)(?=\/)/.exec(key)?.[0] ?? 'config');
      return Object.fromEntries(
        ['indexes', 'snapshots', 'packs'].map((kind) => [kind, kinds.filter((each) => each === kind).length]),
      );
    };
    const none = { indexes: 0, snapshots: 0, packs: 0 };
    assert.deepEqual(await files('snapshots', store), none);
    assert.deepEqual(await files('forget', store, '--keep-last', '2'), none);
    const { packs = 0, ...restored } = await files('restore', `${store}#latest`, 'b.db');
    assert.deepEqual(restored, { indexes: 0, snapshots: 0 });
    assert.ok(packs > 0, 'pages are read');
    const { packs: read = 0, ...checked } = await files('check', store);
    assert.deepEqual(checked, { indexes: 3, snapshots: 2 });
    assert.ok(read > 0, 'trees are read');
  });

  test('a backup that finds a damaged pack compares all others, also after it did without lists', async (t) => {
    const { server, folder, store, run, say } = await here(t);
    await run('init', store);
    await run('backup', 'a.db', store);
    change(join(folder, 'a.db'), 'UPDATE item SET amount = 1 WHERE id % 2 = 0');
    await run('backup', 'a.db', store);
    for (const [key, { bytes, modified }] of server.objects)
      if (key.includes('/packs/'))
        server.objects.set(key, { bytes: Buffer.from(bytes).fill(0, 60, bytes.length - 60), modified });
    change(join(folder, 'a.db'), 'UPDATE item SET amount = 2 WHERE id = 3');
    const { stderr } = await say('backup', 'a.db', store);
    assert.match(stderr, /1 more packs in the store were changed/);
    await run('restore', `${store}#latest`, 'b.db');
    assert.ok(readFileSync(join(folder, 'b.db')).equals(readFileSync(join(folder, 'a.db'))));
  });

  test('a backup into the past is refused before anything is read', async (t) => {
    const { server, store, options } = await here(t);
    const past = `${store}?at=2026-11-21T08:00:00Z`;
    const refused = { code: 'USAGE', status: 2, says: /the past can only be read/ } as const;
    for (const args of [
      ['backup', 'a.db', past, '--skip-if-unchanged'],
      ['init', past],
      ['forget', past, '--keep-last', '1'],
      ['prune', past],
      ['repair', past],
      ['key', 'add', past],
    ])
      await assertRefused(args, refused, options);
    assert.equal(server.requests.length, 0);
    await summaryOf(['init', 'store'], options);
    await assertRefused(['copy', 'store', past], refused, options);
    assert.equal(server.requests.length, 0);
  });

  test('a backup reads the lists after a prune of this host that deleted packs', async (t) => {
    const { server, folder, store, run } = await here(t);
    await run('init', store);
    await run('backup', 'a.db', store);
    change(join(folder, 'a.db'), 'DROP TABLE item; VACUUM');
    await run('backup', 'a.db', store);
    const listed = async (): Promise<boolean> => {
      const before = server.requests.length;
      await run('backup', 'a.db', store);
      return server.requests.slice(before).some(({ operation }) => operation === 'list');
    };
    assert.equal(await listed(), false);
    await run('prune', store, '--grace', '0');
    assert.equal(await listed(), false, 'nothing was deleted');
    await run('forget', store, '--keep-last', '1');
    // What is needed of a pack is copied first, and the pack goes once its mark has an age by the clock of the service.
    for (let deleted = 0; deleted === 0; await delay(100))
      deleted = Number((await run('prune', store, '--grace', '0', '--max-unused', '0%'))['packsDeleted']);
    assert.equal(await listed(), true);
    assert.equal(await listed(), false);
  });

  test('snapshots go from a folder to S3 and back', async (t) => {
    const { folder, store, run } = await here(t);
    for (const place of [store, 'local', 'back']) await run('init', place);
    await run('backup', 'a.db', 'local');
    await run('copy', 'local', store);
    await run('copy', store, 'back');
    await run('restore', 'back', 'b.db');
    assert.ok(readFileSync(join(folder, 'b.db')).equals(readFileSync(join(folder, 'a.db'))));
  });

  test('no output of a command has a key, not even of requests that fail', async (t) => {
    const { server, store, say, folder } = await here(t);
    const secret = SERVER_KEYS.secretAccessKey;
    const runs = [await say('init', store, '-v'), await say('backup', '-v', 'a.db', store)];
    server.twist = () => ({ status: 403, code: 'AccessDenied' });
    runs.push(await say('snapshots', store, '-v'));
    server.twist = () => ({ status: 403, code: 'SignatureDoesNotMatch' });
    runs.push(await say('check', store, '--json'));
    for (const { stdout, stderr } of runs) assert.ok(!`${stdout}${stderr}`.includes(secret));
    assert.equal(existsSync(join(folder, 'store')), false);
  });

  test('a signal ends a command whose store does not answer', async (t) => {
    const { server, store, options, run } = await here(t);
    await run('init', store);
    await run('backup', 'a.db', store);
    let hanging = 0;
    server.twist = ({ operation, key }) => {
      if (operation !== 'get' || !key.includes('/packs/')) return undefined;
      hanging++;
      return { hangs: true };
    };
    const command = new Command(['restore', store, 'b.db'], options);
    while (hanging === 0) await delay(10);
    // The first is for a proper end, which cannot come; a later one ends the process.
    const ended = command.done.then(() => true);
    while (!(await Promise.race([ended, delay(200, false)]))) command.child.kill('SIGINT');
    assert.equal((await command.done).signal, 'SIGINT');
  });
});

interface Here {
  readonly server: S3Server;
  readonly folder: string;
  readonly store: string;
  readonly options: CommandOptions;
  /** Runs a command in the folder with --json; returns its summary. */
  readonly run: (...args: string[]) => Promise<Summary>;
  readonly say: (...args: string[]) => Promise<Run>;
}

/** A folder with the database a.db, and a service without a store. */
async function here(t: TestContext): Promise<Here> {
  const server = await S3Server.start(t);
  const folder = tempDir(t);
  smallDatabase(join(folder, 'a.db'));
  mkdirSync(join(folder, 'cache'), { mode: 0o700 });
  const env = {
    AWS_ACCESS_KEY_ID: SERVER_KEYS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: SERVER_KEYS.secretAccessKey,
    XDG_CACHE_HOME: join(folder, 'cache'),
  };
  const options = { cwd: folder, env };
  const run = (...args: string[]): Promise<Summary> => summaryOf(args, options);
  const say = (...args: string[]): Promise<Run> => sqlsync(args, options);
  return { server, folder, store: server.address, options, run, say };
}
