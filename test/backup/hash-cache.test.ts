import assert from 'node:assert/strict';
import { existsSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { MemoryBackend } from '../../src/backup/backends/memory-backend.ts';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { backupHere, storeHere } from './store-here.ts';

test('a backup removes the hashes of snapshots that are forgotten, and what killed saves left, but nothing young', async (t) => {
  const folder = tempDir(t);
  const here = await storeHere(new MemoryBackend(), folder);
  const cache = join(folder, 'cache');
  const [a, b] = [join(folder, 'a.db'), join(folder, 'b.db')];
  for (const path of [a, b]) smallDatabase(path, { rows: 5 });
  const snapshot = await backupHere(here, a);
  const [ofA = ''] = readdirSync(cache);
  await backupHere(here, b);
  const [left, young] = [join(cache, 'killed.tmp'), join(cache, 'running.tmp')];
  for (const path of [left, young]) writeFileSync(path, '');
  const hourAgo = new Date(Date.now() - 3_600_000);
  for (const path of [left, join(cache, ofA)]) utimesSync(path, hourAgo, hourAgo);
  utimesSync(young, new Date(Date.now() + 3_600_000), new Date(Date.now() + 3_600_000));

  await backupHere(here, b);
  assert.deepEqual(
    [left, young, join(cache, ofA)].map(existsSync),
    [false, true, true],
    'it is of a snapshot',
  );
  await here.store.forget([snapshot.id]);
  const ofB = readdirSync(cache).filter((name) => name !== ofA);
  await backupHere(here, b);
  assert.deepEqual(readdirSync(cache), ofB);
  assert.equal((await backupHere(here, a)).statistics.pagesAdded, 0);
  assert.ok(existsSync(join(cache, ofA)));
});
