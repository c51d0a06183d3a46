import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { BackupSummary } from '../../src/backup/options.ts';
import { Copies } from '../../src/cli/job/copies.ts';
import { copyOnward } from '../../src/cli/store/copy-onward.ts';
import { Output } from '../../src/cli/terminal/output.ts';
import { change } from '../pages/databases.ts';
import { assertReplicaOf } from '../support/compare.ts';
import { assertRefused, Command, jsonLines, sqlsync, summaryOf } from './command.ts';
import { here, listed } from './store-here.ts';
import type { Summary } from './command.ts';

test('snapshots are copied to another store, once, and restored from there', async (t) => {
  const place = await here(t);
  const { folder, run, say } = place;
  await run('backup', 'a.db', 'b.db', 'store');
  change(join(folder, 'a.db'), 'UPDATE item SET amount = -1');
  await run('backup', 'a.db', 'store', '--tag', 'weekly');
  await run('init', 'other');
  const tagged = await run('copy', 'store', 'other', '--tag', 'weekly');
  assert.equal((tagged['copied'] as unknown[]).length, 1);
  const said = await say('copy', 'store', 'other');
  assert.match(said, /2 snapshots copied, [\d.]+ kB added; 1 snapshot there already\n$/);
  assert.equal(await say('copy', 'store', 'other'), 'Nothing to copy; 3 snapshots there already\n');
  await run('restore', 'other', 'back.db', '--path', 'a.db');
  assertReplicaOf(join(folder, 'a.db'), join(folder, 'back.db'));
  const { snapshots } = (await summaryOf(['snapshots', 'other'], { cwd: folder })) as Summary & {
    snapshots: { tags: string[]; original: string }[];
  };
  const originals = (await listed(place)).map(({ id }) => id);
  assert.deepEqual(
    snapshots.map(({ original }) => original),
    originals,
  );
  await run('check', 'other', '--read-data');
});

test('a copy names what is wrong with its arguments', async (t) => {
  const { folder, run } = await here(t);
  await run('backup', 'a.db', 'store');
  for (const [args, code, status, says] of [
    [['store', 'store'], 'USAGE', 2, /are one store/],
    [['store', 'nowhere'], 'STORE_NOT_FOUND', 18, /nowhere/],
    [['nowhere', 'store'], 'STORE_NOT_FOUND', 18, /nowhere/],
    [['store', 'a.db'], 'STORE_NOT_FOUND', 18, /a\.db is a file/],
    [['store', 'store', 'abcd', '--host', 'db1'], 'USAGE', 2, /exclude each other/],
  ] as const)
    await assertRefused(['copy', ...args], { code, status, says }, { cwd: folder });
});

test('a copy that is killed anywhere is completed by the next', async (t) => {
  const { folder, run } = await here(t);
  change(
    join(folder, 'a.db'),
    `CREATE TABLE big AS WITH RECURSIVE i (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 30000)
    SELECT i, randomblob(600) AS x FROM i`,
  );
  await run('backup', 'a.db', 'b.db', 'store');
  await run('init', 'other', '--grace', '0');
  for (let ms = 100; ms < 1000; ms += 150) {
    const command = new Command(['copy', 'store', 'other'], { cwd: folder });
    setTimeout(() => command.child.kill('SIGKILL'), ms);
    await command.done;
    await run('check', 'other');
  }
  await run('copy', 'store', 'other');
  await run('restore', 'other', 'back.db', '--path', 'a.db');
  assertReplicaOf(join(folder, 'a.db'), join(folder, 'back.db'));
  await run('prune', 'other', '--grace', '0');
  await run('check', 'other', '--read-data');
});

test('a backup copies its new snapshots to other stores too; one that fails stops neither the others nor the backup', async (t) => {
  const { folder, run, say } = await here(t);
  await run('init', 'second');
  await run('init', 'third');
  const said = await say('backup', 'a.db', 'b.db', 'store', '--copy-to', 'second', '--copy-to', 'third');
  assert.match(said, /\nCopied to second: 2 snapshots, .* added\nCopied to third: 2 snapshots, .* added\n$/);
  change(join(folder, 'a.db'), 'UPDATE item SET amount = -1');
  const broken = await sqlsync(
    [
      'backup',
      'a.db',
      'store',
      '--copy-to',
      'none',
      '--copy-to',
      'third',
      '--json',
      '--metrics-file',
      'm.prom',
    ],
    { cwd: folder },
  );
  assert.equal(broken.status, 21);
  const lines = jsonLines(broken.stdout);
  assert.deepEqual(
    lines.filter(({ type }) => type === 'failure').map(({ origin, code }) => [origin, code]),
    [['none', 'STORE_NOT_FOUND']],
  );
  const summary = lines.at(-1) as Summary & { copies: Record<string, unknown>[]; backups: unknown[] };
  assert.equal(summary.backups.length, 1);
  assert.deepEqual(
    summary.copies.map(({ store, copied, code }) => [store, copied, code]),
    [
      ['none', undefined, 'STORE_NOT_FOUND'],
      ['third', 1, undefined],
    ],
  );
  const metrics = readFileSync(join(folder, 'm.prom'), 'utf8');
  assert.match(metrics, /store="none"/);
  for (const store of ['store', 'third']) {
    await run('restore', store, `${store}.db`, '--path', 'a.db');
    assertReplicaOf(join(folder, 'a.db'), join(folder, `${store}.db`));
  }
  const [{ length }] = [
    (await summaryOf(['snapshots', 'second'], { cwd: folder }))['snapshots'] as unknown[],
  ];
  assert.equal(length, 2);
});

test('a snapshot that was forgotten before it is copied to another store does not keep the others from it', async (t) => {
  const place = await here(t);
  const { folder, run } = place;
  await run('init', 'second');
  await run('backup', 'a.db', 'b.db', 'store');
  const [first, second] = await listed(place);
  assert.ok(first !== undefined && second !== undefined);
  const copied = async (): Promise<readonly unknown[]> => {
    const summaries = [first, second].map((snapshot) => ({ origin: snapshot.path, snapshot }));
    const [result] = await copyOnward({
      store: join(folder, 'store'),
      access: {},
      others: [join(folder, 'second')],
      summaries: summaries as unknown as BackupSummary[],
      output: new Output({ json: false, verbosity: 'quiet', isStdoutTaken: true }),
      copies: new Copies([]),
      signal: undefined,
      labelsOf: (origin, store) => ({ command: 'backup', origin, store }),
      figuresOf: () => undefined,
    });
    return [result?.copied, result?.error];
  };
  await run('forget', 'store', first.id);
  assert.deepEqual(await copied(), [1, undefined]);
  await run('forget', 'store', second.id);
  assert.deepEqual(await copied(), [0, undefined]);
});
