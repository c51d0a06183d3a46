import assert from 'node:assert/strict';
import { fork, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { loadCommands } from '../../src/cli/command-files.ts';
import { STORES } from '../../src/cli/store/store-command.ts';
import { change, column, smallDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { Command, Hold, PROGRAM, assertRefused, jsonLines, sqlsync } from './command.ts';
import type { Summary } from './command.ts';
import { parseMetrics } from './metrics.ts';
import { startPingServer } from './ping-server.ts';
import { here, listed } from './store-here.ts';
import type { Listed } from './store-here.ts';

const STORE_COMMAND_NAMES = (await loadCommands())
  .filter(({ group }) => group === STORES)
  .map(({ name }) => name);

describe('a backup store on the command line', () => {
  test('snapshots are taken of a database under a writer, and each is given back as it was', async (t) => {
    const place = await here(t);
    const { folder, run, say } = place;
    const path = join(folder, 'live.db');
    const writer = fork(join(import.meta.dirname, 'ticking-writer.ts'), [path]);
    t.after(() => writer.kill('SIGKILL'));
    await once(writer, 'message');
    await run('backup', 'live.db', 'store', '--tag', 'first', '--tag', 'x,y', '--verify');
    const second = await say('backup', 'live.db', 'store', '--host', 'web1');
    assert.match(second, /^Snapshot [0-9a-f]{8} of live\.db: .*\d+ pages.* added, [\d.]+ m?s\n$/);
    const ended = once(writer, 'message');
    writer.send('stop');
    const [ticks] = (await ended) as [number];
    await once(writer, 'exit');
    await run('backup', path, 'store');
    const snapshots = await listed(place);
    assert.deepEqual(
      snapshots.map(({ path: of, tags, host }) => [of, tags.join(), host === 'web1']),
      [
        [path, 'first,x,y', false],
        [path, '', true],
        [path, '', false],
      ],
    );
    const values: number[] = [];
    for (const { id } of snapshots) {
      const target = join(folder, `${id.slice(0, 8)}.db`);
      await run('restore', `store#${id.slice(0, 8)}`, target);
      const [a, b] = column(target, 'SELECT value FROM counter ORDER BY name') as [number, number];
      assert.equal(a, b, 'one instant of it');
      assert.deepEqual(column(target, 'PRAGMA integrity_check'), ['ok']);
      values.push(a);
    }
    assert.deepEqual(
      values,
      values.toSorted((x, y) => x - y),
    );
    assert.equal(values[2], ticks);
    assertReplicaOf(path, join(folder, `${snapshots[2]?.id.slice(0, 8)}.db`));
    const table = await say('snapshots', 'store', '--tag', 'x');
    assert.match(table, /^ID +Time +Host +Tags .*Path\n[0-9a-f]{8} .* first,x,y .*live\.db\n1 snapshot\n$/);
  });

  test('a backup takes those of several databases that it can read, and names the others', async (t) => {
    const place = await here(t);
    const { folder } = place;
    const server = await startPingServer(t);
    const { status, stdout } = await sqlsync(
      [
        'backup',
        'none.db',
        'x*.db',
        '?.db',
        'store',
        '--json',
        '--metrics-file',
        'm.prom',
        '--ping',
        server.url,
      ],
      { cwd: folder },
    );
    assert.equal(status, 21, stdout);
    const lines = jsonLines(stdout);
    const summary = lines.find(({ type }) => type === 'summary') as Summary & {
      failures: unknown[];
      backups: unknown[];
    };
    assert.deepEqual([summary.backups.length, summary.failures.length], [2, 2]);
    assert.deepEqual(
      lines.filter(({ type }) => type === 'failure').map(({ type, origin, code }) => [type, origin, code]),
      [
        ['failure', 'none.db', 'ORIGIN_NOT_FOUND'],
        ['failure', 'x*.db', 'ORIGIN_NOT_FOUND'],
      ],
    );
    assert.equal(lines.at(-1), summary);
    assert.deepEqual(
      (await listed(place)).map(({ path }) => path),
      [join(folder, 'a.db'), join(folder, 'b.db')],
    );
    const exitStatuses = parseMetrics(readFileSync(join(folder, 'm.prom'), 'utf8'))
      .filter(({ name }) => name === 'sqlsync_last_run_exit_status')
      .map(({ labels, value }) => [labels['command'], labels['origin'], labels['store'], value]);
    assert.deepEqual(exitStatuses, [
      ['backup', 'none.db', 'store', 3],
      ['backup', 'x*.db', 'store', 3],
      ['backup', './a.db', 'store', 0],
      ['backup', './b.db', 'store', 0],
    ]);
    assert.deepEqual(
      server.pings.map(({ request }) => request),
      ['POST /start', 'POST /fail'],
    );
    assert.match(
      server.pings[1]?.body ?? '',
      /Snapshot .* of \.\/a\.db[^]*2 of 4 databases could not be backed up/,
    );
  });

  test('a backup with a policy forgets snapshots of its own database only, and forget those that its filters choose', async (t) => {
    const place = await here(t);
    const { run, say, folder } = place;
    await run('backup', 'a.db', 'b.db', 'store');
    await run('backup', 'a.db', 'b.db', 'store', '--tag', 'keep');
    change(join(folder, 'a.db'), 'CREATE TABLE more (x); INSERT INTO more VALUES (randomblob(100000))');
    const kept = await run('backup', 'a.db', 'store', '--keep-last', '1', '--keep-tag', 'keep', '--prune');
    assert.equal((kept['forgotten'] as string[]).length, 1);
    assert.ok(kept['prune'] !== undefined);
    assert.deepEqual(
      (await listed(place, '--path', 'b.db')).map(({ tags }) => tags.join()),
      ['', 'keep'],
      'the backup did not take b.db, so its snapshots stay',
    );
    const dry = await say('forget', 'store', '--keep-last=1', '-n');
    assert.match(dry, /a\.db: 1 kept, 1 to remove\n/);
    assert.match(dry, /keep +would remove\n|would remove/);
    assert.equal((await listed(place)).length, 4);
    const [newest] = (await listed(place, '--path', 'a.db')).slice(-1) as [Listed];
    const byId = await run('forget', 'store', newest.id.slice(0, 12), '--prune');
    assert.deepEqual(byId['forgotten'], [newest.id]);
    const byPolicy = await run('forget', 'store', '--keep-daily', '1', '--path', 'b.db');
    const groups = byPolicy['groups'] as { path: string; keep: { reasons: string[] }[]; remove: unknown[] }[];
    assert.equal(groups.length, 1);
    assert.deepEqual(groups[0]?.keep[0]?.reasons, ['daily snapshot']);
    assert.equal(groups[0]?.remove.length, 1);
    assert.equal((await listed(place)).length, 2);
    const server = await startPingServer(t);
    const url = `${server.url}/check`;
    await run('prune', 'store', '--grace', '0', '--max-unused', '5%', '--lock-wait', '0', '--ping', url);
    const told = server.pings.map(({ request }) => request);
    assert.deepEqual(told, ['POST /check/start', 'POST /check']);
    assert.deepEqual((await run('check', 'store', '--read-data'))['problems'], []);
    assert.match(await say('stats', 'store'), /^2 snapshots of 2 databases\n +raw +[\d.]+ kB/);
  });

  test('snapshots can be compared, dumped and opened', async (t) => {
    const { folder, run, say } = await here(t);
    const path = join(folder, 'a.db');
    await run('backup', 'a.db', 'store');
    change(path, 'CREATE TABLE wide (x); INSERT INTO wide VALUES (randomblob(20000))');
    await run('backup', 'a.db', 'store');
    const [first, second] = ((await run('snapshots', 'store'))['snapshots'] as Listed[]).map(({ id }) =>
      id.slice(0, 8),
    );
    const diff = await say('diff', `store#${first}`, `#${second}`);
    assert.match(diff, /^[0-9a-f]{8} \(.*\) and [0-9a-f]{8} \(.*\) differ in \d+ pages/);
    assert.match(diff, /\n {2}wide: 0 pages in the first, \d+ in the second\n/);
    const sql = await say('dump', 'store');
    const made = spawnSync('sqlite3', [join(folder, 'made.db')], { input: sql, encoding: 'utf8' });
    assert.deepEqual([made.status, made.stderr], [0, '']);
    const query = `SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%' ORDER BY name`;
    assert.deepEqual(column(join(folder, 'made.db'), query), column(path, query));
    assert.equal(
      await say('open', `store#${first}`, `SELECT count(*) FROM sqlite_schema WHERE name = 'wide'`),
      '0\n',
    );
    const copy = (await say('open', 'store', '--exec', 'echo')).trim();
    assert.match(copy, /snapshot\.db$/);
    assert.equal(existsSync(copy), false, 'the copy is gone');
    const head = spawnSync(
      'sh',
      ['-c', '"$0" "$@" | head -n 1', process.execPath, PROGRAM, 'dump', 'store'],
      {
        cwd: folder,
        encoding: 'utf8',
      },
    );
    assert.deepEqual([head.stdout, head.stderr], ['PRAGMA foreign_keys=OFF;\n', '']);
  });

  test('a snapshot whose record cannot be read can be forgotten, and a lost index repaired', async (t) => {
    const place = await here(t);
    const { folder, run, say } = place;
    await run('backup', 'a.db', 'store');
    await run('backup', 'b.db', 'store');
    const [first] = (await listed(place)) as [Listed];
    writeFileSync(join(folder, 'store', 'snapshots', first.id), '{}');
    for (const name of readdirSync(join(folder, 'store', 'indexes'))) {
      const path = join(folder, 'store', 'indexes', name);
      rmSync(path);
    }
    const code = 'STORE_DAMAGED';
    await assertRefused(
      ['prune', 'store'],
      { code, status: 19, says: /snapshots/, hint: /repair/ },
      { cwd: folder },
    );
    const trial = await sqlsync(['repair', 'store', '-n'], { cwd: folder });
    assert.equal(trial.status, 19);
    assert.match(
      trial.stdout,
      /^To repair:\n {2}2 packs would be indexed again\n1 snapshot cannot be restored whole\n/,
    );
    const forgotten = await say('forget', 'store', first.id.slice(0, 9));
    assert.match(forgotten, new RegExp(`\n${first.id.slice(0, 8)} .*removed\n$`));
    const summary = await run('repair', 'store', '--read-data');
    assert.deepEqual([summary['packsIndexed'], summary['lost']], [2, []]);
    assert.equal(
      await say('repair', 'store'),
      'Nothing to repair\nThe packs were not read, only listed: --read-data reads them.\n',
    );
    assert.equal(await say('repair', 'store', '--read-data'), 'Nothing to repair\n');
    assert.deepEqual((await run('check', 'store', '--read-data'))['problems'], []);
    await run('prune', 'store');
    await run('restore', 'store', 'back.db');
    rmSync(join(folder, 'store', 'config'));
    const refused = await sqlsync(['prune', 'store'], { cwd: folder });
    assert.match(refused.stderr, /sqlsync repair STORE/);
    assert.match(await say('repair', 'store'), /the config written anew/);
    await run('prune', 'store');
  });

  test('check finds damage, says so by its exit status, and a restore gives nothing wrong', async (t) => {
    const { folder, run } = await here(t);
    await run('backup', 'a.db', 'store');
    const packs = join(folder, 'store', 'packs');
    for (const name of readdirSync(packs)) {
      const bytes = readFileSync(join(packs, name));
      bytes.writeUInt8(bytes.readUInt8(bytes.length >> 1) ^ 1, bytes.length >> 1);
      writeFileSync(join(packs, name), bytes);
    }
    const check = await sqlsync(['check', 'store', '--read-data'], { cwd: folder });
    assert.equal(check.status, 19, check.stderr);
    assert.match(
      check.stdout,
      /1 snapshot cannot be restored:\nID .*Lost\n[0-9a-f]{8} .* pages?\n0 snapshots can be restored/,
    );
    const quiet = await sqlsync(['check', 'store', '--read-data', '-q'], { cwd: folder });
    assert.deepEqual([quiet.status, quiet.stdout], [19, '']);
    assert.match(quiet.stderr, /1 snapshot damaged \[STORE_DAMAGED\]/);
    const restored = await sqlsync(['restore', 'store', 'r.db'], { cwd: folder });
    assert.equal(restored.status, 19, restored.stderr);
    assert.equal(existsSync(join(folder, 'r.db')), false);
  });

  test('a store is as good as before after an interrupted backup', async (t) => {
    const place = await here(t);
    const { folder, run } = place;
    const hold = new Hold(t, 1000);
    const command = new Command(
      ['backup', 'a.db', 'b.db', 'store', '--lock-wait', '0', '--metrics-file', 'm.prom'],
      {
        cwd: folder,
        hold,
        env: { XDG_CACHE_HOME: join(folder, 'cache') },
      },
    );
    t.after(() => command.child.kill('SIGKILL'));
    await hold.reached(command);
    await assertRefused(
      ['backup', 'a.db', './b.db', './store', '--lock-wait=0', '--metrics-file', 'm.prom'],
      { code: 'LOCKED', status: 20, says: /still under way/ },
      { cwd: folder, env: { XDG_CACHE_HOME: join(folder, 'cache') } },
    );
    command.child.kill('SIGTERM');
    assert.equal((await command.done).status, 130, command.said);
    const exitStatuses = parseMetrics(readFileSync(join(folder, 'm.prom'), 'utf8'))
      .filter(({ name }) => name === 'sqlsync_last_run_exit_status')
      .map(({ labels, value }) => [labels['origin'], value]);
    const both = [
      ['a.db', 130],
      ['b.db', 130],
    ];
    assert.deepEqual(exitStatuses, both, 'also of the databases that it had not come to');
    assert.deepEqual(await listed(place), []);
    await run('backup', 'a.db', 'store');
    assert.deepEqual((await run('check', 'store', '--read-data'))['problems'], []);
  });
});

describe('a name that is a command', () => {
  test('a word is a command only where it stands first; the database of that name is ./NAME', async (t) => {
    const folder = tempDir(t);
    for (const name of ['backup', 'stats']) smallDatabase(join(folder, name), { rows: 5 });
    for (const args of [
      ['./backup', 'c1.db'],
      ['--', 'backup', 'c2.db'],
      ['backup', 'c3.db'],
    ]) {
      const { status, stderr } = await sqlsync(args, { cwd: folder });
      const isCommand = args[0] === 'backup';
      assert.equal(status, isCommand ? 2 : 0, stderr);
    }
    assertReplicaOf(join(folder, 'backup'), join(folder, 'c1.db'));
    assertReplicaOf(join(folder, 'backup'), join(folder, 'c2.db'));
    assert.equal(existsSync(join(folder, 'c3.db')), false);
    await assertRefused(
      ['stats', 'c1.db'],
      {
        code: 'STORE_NOT_FOUND',
        status: 18,
        says: /c1\.db is a file, and a store is a folder/,
        hint: /database named stats is \.\/stats/,
      },
      { cwd: folder },
    );
  });

  test('each command is offered by the completion, and has a help of its own', async () => {
    const { stdout } = await sqlsync(['--get-yargs-completions', 'sqlsync', 'backup', 'a.db', '--keep-w']);
    assert.match(stdout, /^--keep-weekly$/m);
    const help = await sqlsync(['--help']);
    for (const name of STORE_COMMAND_NAMES) assert.match(help.stdout, new RegExp(`sqlsync ${name} <`), name);
    const forget = await sqlsync(['forget', '--help']);
    assert.match(forget.stdout, /--keep-within-monthly/);
    assert.doesNotMatch(forget.stdout, /--port/);
  });
});
