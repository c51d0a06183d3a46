import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertRefused } from './command.ts';
import { here, listed } from './store-here.ts';

test('diff looks for latest and times in the database of the other snapshot, if that is named by its id', async (t) => {
  const store = await here(t);
  await store.run('backup', 'a.db', 'b.db', 'store');
  await store.run('backup', 'b.db', 'a.db', 'store');
  const all = await listed(store);
  const of = (name: string): string[] => all.filter(({ path }) => path.endsWith(name)).map(({ id }) => id);
  const [firstOfA = '', lastOfA] = of('a.db');
  const [firstOfB = '', lastOfB] = of('b.db');
  const pair = async (a: string, b: string, ...more: string[]): Promise<unknown[]> => {
    const summary = await store.run('diff', `store#${a}`, `#${b}`, ...more);
    return [summary['a'], summary['b']].map((snapshot) => (snapshot as { id: string }).id);
  };
  assert.deepEqual(await pair(firstOfA, 'latest'), [firstOfA, lastOfA]);
  assert.deepEqual(await pair(firstOfB, 'latest'), [firstOfB, lastOfB]);
  assert.deepEqual(await pair('latest', firstOfB), [lastOfB, firstOfB]);
  assert.deepEqual(await pair(firstOfA, firstOfB), [firstOfA, firstOfB]);
  assert.deepEqual(await pair(firstOfA, 'latest', '--path', 'b.db'), [firstOfA, lastOfB]);
  await assertRefused(
    ['diff', 'store', '#latest'],
    { code: 'USAGE', status: 2, says: /2 databases/ },
    { cwd: store.folder },
  );
});
