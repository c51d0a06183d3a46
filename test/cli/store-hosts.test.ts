import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { change, column } from '../pages/databases.ts';
import { assertRefused, sqlsync } from './command.ts';
import { here, listed } from './store-here.ts';
import type { Here } from './store-here.ts';

/** Loaded before the program: it makes the agent take this for the name of its host. */
function hostNamed(name: string): NodeJS.ProcessEnv {
  const code = `
    import { syncBuiltinESMExports } from 'node:module';
    import os from 'node:os';
    os.hostname = () => ${JSON.stringify(name)};
    syncBuiltinESMExports();`;
  return { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(code)}` };
}

/** Backs up a.db as in a container of this name; returns its warnings. */
async function backUpFrom({ folder }: Here, host: string, ...options: string[]): Promise<string[]> {
  change(
    join(folder, 'a.db'),
    `CREATE TABLE IF NOT EXISTS h (x); DELETE FROM h; INSERT INTO h VALUES ('${host}')`,
  );
  const run = await sqlsync(['backup', 'a.db', 'store', ...options], { cwd: folder, env: hostNamed(host) });
  assert.equal(run.status, 0, run.stderr);
  return run.stderr.split('\n').filter((line) => line.startsWith('warning:'));
}

describe('a database whose host has another name at each start', () => {
  test('a changing host name brings a warning from the second name on, with what to do, but not if a name was given', async (t) => {
    const store = await here(t);
    assert.deepEqual(await backUpFrom(store, '1f0c9a'), []);
    const [second = '', ...others] = await backUpFrom(store, '77be20');
    assert.match(
      second,
      /first snapshot of .*a\.db from the host 77be20; the store has 1 .* from the host 1f0c9a\b/,
    );
    assert.match(second, /--host NAME.*--group-by path/);
    assert.deepEqual(others, []);
    assert.match((await backUpFrom(store, 'c3d411')).join(), /2 of that path from 2 other hosts, .* 77be20/);
    assert.deepEqual(await backUpFrom(store, 'c3d411'), []);
    assert.deepEqual(await backUpFrom(store, 'd00000', '--host', 'app'), []);
    assert.deepEqual(await backUpFrom(store, 'e00000', '--host', 'app'), []);
  });

  test('--host keeps, forgets and restores the database of changing hosts as one', async (t) => {
    const store = await here(t);
    for (const host of ['1f0c9a', '77be20', 'c3d411'])
      await backUpFrom(store, host, '--host', 'app', '--keep-last', '1');
    assert.deepEqual(
      (await listed(store)).map(({ host }) => host),
      ['app'],
    );
    await store.run('restore', 'store', 'back.db');
    assert.deepEqual(column(join(store.folder, 'back.db'), 'SELECT x FROM h'), ['c3d411']);
  });

  test('without --host the database of changing hosts is forgotten by path, and a restore asks for the host', async (t) => {
    const store = await here(t);
    for (const host of ['1f0c9a', '77be20', 'c3d411']) await backUpFrom(store, host, '--keep-last', '1');
    const all = await listed(store);
    assert.equal(all.length, 3);
    const newest = all[2]?.id.slice(0, 8) ?? '';
    for (const which of [[], ['--path', 'a.db']])
      await assertRefused(
        ['restore', 'store', 'back.db', ...which],
        {
          code: 'USAGE',
          status: 2,
          says: /snapshots of .*a\.db from 3 hosts: 1f0c9a, 77be20, c3d411/,
          hint: new RegExp(`--host.*${newest}, of c3d411`),
        },
        { cwd: store.folder },
      );
    await store.run('restore', 'store', 'back.db', '--host', '77be20');
    assert.deepEqual(column(join(store.folder, 'back.db'), 'SELECT x FROM h'), ['77be20']);
    // By path, the newest of all snapshots is the one that was made last.
    const { groups } = await store.run('forget', 'store', '--keep-last', '1', '--group-by', 'path', '-n');
    assert.deepEqual(
      (groups as { host?: string; path: string; keep: { id: string }[]; remove: unknown[] }[]).map(
        ({ host, keep, remove }) => [host, keep.map(({ id }) => id.slice(0, 8)), remove.length],
      ),
      [[undefined, [newest], 2]],
    );
    await backUpFrom(store, 'ffffff', '--keep-last', '2', '--group-by', 'paths');
    assert.deepEqual(
      (await listed(store)).map(({ host }) => host),
      ['c3d411', 'ffffff'],
    );
  });
});

describe('--group-by', () => {
  test('--group-by groups by what it names, all together with an empty text, and refuses other names', async (t) => {
    const store = await here(t);
    await store.run('backup', 'a.db', 'b.db', 'store', '--tag', 'x');
    await store.run('backup', 'a.db', 'store', '--tag', 'y');
    const counts = async (groupBy: string): Promise<number[]> => {
      const { groups } = await store.run('forget', 'store', '--keep-last', '1', '-n', '--group-by', groupBy);
      return (groups as { remove: unknown[] }[]).map(({ remove }) => remove.length);
    };
    assert.deepEqual(await counts('host,path'), [1, 0]);
    assert.deepEqual(await counts('host'), [2]);
    assert.deepEqual(await counts(''), [2]);
    assert.deepEqual(await counts('tags'), [1, 0]);
    assert.deepEqual(await counts('host,paths,tag'), [0, 0, 0]);
    const said = await store.say('forget', 'store', '--keep-last', '1', '-n', '--group-by', 'tags');
    assert.match(said, /^tagged x: 1 kept, 1 to remove$/m);
    await assertRefused(
      ['forget', 'store', '--keep-last', '1', '--group-by', 'size'],
      { code: 'USAGE', status: 2, says: /--group-by: .*"size"/ },
      { cwd: store.folder },
    );
  });
});
