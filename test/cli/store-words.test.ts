import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { change, largeDatabase } from '../pages/databases.ts';
import { assertReplicaOf } from '../support/compare.ts';
import { assertRefused, Command, Hold, jsonLines, NEEDS_ROOT, NOBODY, sqlsync } from './command.ts';
import { here } from './store-here.ts';

describe('the messages of commands on a store', () => {
  test('the message about an unknown id gives no advice that is refused', async (t) => {
    const { folder, run } = await here(t);
    await run('backup', 'a.db', 'store');
    const expected = { code: 'SNAPSHOT_NOT_FOUND', status: 18, says: /begins with 0000/ } as const;
    const hint =
      /^ *`sqlsync snapshots STORE` lists them; give the first digits of one of them, at least four\.\s*$/;
    for (const args of [
      ['forget', 'store', '0000'],
      ['restore', 'store#0000', 'x.db'],
    ])
      await assertRefused(args, { ...expected, hint }, { cwd: folder });
  });

  test('the size of an empty store has no ratio', async (t) => {
    const { say, run } = await here(t);
    assert.doesNotMatch(await say('stats', 'store'), /ratio|NaN|0\.0/);
    await run('backup', 'a.db', 'store');
    assert.match(await say('stats', 'store'), /ratio {5}\d+\.\d raw bytes/);
  });

  test('the message about a store in the place of another file names that file', async (t) => {
    const { folder } = await here(t);
    writeFileSync(join(folder, 'file'), 'x');
    symlinkSync('nowhere', join(folder, 'link'));
    for (const [place, says] of [
      ['file', /\/file is a file; expected a folder, or nothing yet/],
      ['file/below/it', /\/file is a file;/],
      ['link', /\/link is a symbolic link that leads to no folder;/],
      ['a.db', /\/a\.db is a file;/],
    ] as const)
      await assertRefused(['init', place], { code: 'USAGE', status: 2, says }, { cwd: folder });
    mkdirSync(join(folder, 'empty'));
    symlinkSync('empty', join(folder, 'good'));
    assert.equal((await sqlsync(['init', 'good/store'], { cwd: folder })).status, 0);
  });

  test('the message about missing permission to read is about reading', { skip: NEEDS_ROOT }, async (t) => {
    const { folder, run } = await here(t);
    await run('backup', 'a.db', 'store');
    chmodSync(folder, 0o755);
    const expected = { code: 'STORE_UNAVAILABLE', status: 18, says: /cannot (read|list) .*EACCES/ } as const;
    for (const args of [
      ['snapshots', 'store'],
      ['check', 'store'],
      ['restore', 'store', '/tmp/none/x.db'],
    ])
      await assertRefused(
        args,
        {
          ...expected,
          hint: /^ *Run sqlsync as the user that owns the store, or allow this user to read it(?!.*written)/,
        },
        { cwd: folder, user: NOBODY, env: { HOME: folder } },
      );
  });
});

test('a restore that prunes overtake goes on with the new packs', async (t) => {
  const store = await here(t);
  const { folder, run } = store;
  const origin = join(folder, 'a.db');
  rmSync(origin);
  largeDatabase(origin, 16 * 1024 * 1024, 'delete');
  await run('backup', 'a.db', 'store');
  change(origin, 'UPDATE t SET x = randomblob(8000) WHERE id % 8 <> 0');
  await run('backup', 'a.db', 'store');
  await run('forget', 'store', '--keep-last', '1');
  // The target exists, so that another agent makes it equal, and all its pages differ.
  largeDatabase(join(folder, 'target.db'), 16 * 1024 * 1024, 'delete');
  const hold = new Hold(t, 2000);
  const args = ['restore', 'store', 'target.db', '--overwrite', '--json', '-v', '--timeout', '0'];
  const command = new Command(args, { cwd: folder, hold });
  await hold.reached(command);
  const deleted = [await run('prune', 'store'), await run('prune', 'store')].map(
    (each) => each['packsDeleted'],
  );
  assert.ok(
    deleted.some((count) => (count as number) > 0),
    'packs are gone',
  );
  hold.release();
  const { status, stdout } = await command.done;
  const last = jsonLines(stdout).at(-1);
  assert.deepEqual([status, last?.type, last?.['outcome']], [0, 'summary', 'committed'], stdout);
  assert.match(stdout, /was deleted by a prune while it was needed/);
  assertReplicaOf(origin, join(folder, 'target.db'));
});
