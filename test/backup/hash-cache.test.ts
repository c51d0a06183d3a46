import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { HashCache } from '../../src/backup/copy/hash-cache.ts';
import { MemoryBackend } from './memory-backend.ts';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { backupHere, originNameOf, storeHere } from './store-here.ts';

process.env['SQLSYNC_SCRYPT_N'] = String(2 ** 15);

test('a backup removes the hashes of forgotten snapshots and the leftovers of killed saves, but nothing young', async (t) => {
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

test('a backup leaves a file alone whose time is a little behind the clock, as those of file systems are', async (t) => {
  const folder = tempDir(t);
  const here = await storeHere(new MemoryBackend(), folder);
  const origin = join(folder, 'a.db');
  smallDatabase(origin, { rows: 5 });
  await backupHere(here, origin);
  const running = join(folder, 'cache', 'running.tmp');
  writeFileSync(running, '');
  const second = new Date(Date.now() - 1000);
  utimesSync(running, second, second);
  await backupHere(here, origin);
  assert.ok(existsSync(running));
});

test('a backup does not use hashes of an older version of the cache, nor a cache that is not whole', async (t) => {
  const folder = tempDir(t);
  const here = await storeHere(new MemoryBackend(), folder);
  const origin = join(folder, 'a.db');
  smallDatabase(origin, { rows: 5 });
  const first = await backupHere(here, origin);
  const [name = ''] = readdirSync(join(folder, 'cache'));
  const file = join(folder, 'cache', name);
  const now = readFileSync(file);
  // The version before had an 8-byte seed after the snapshot's id and the algorithm, XXH64.
  const snapshotEnd = 8 + 32;
  const old = [
    Buffer.from('SQLSYNH2'),
    now.subarray(8, snapshotEnd),
    Buffer.of(1),
    Buffer.alloc(8, 7),
    now.subarray(57, -32),
  ];
  const body = Buffer.concat(old);
  const unknown = Buffer.from(now.subarray(0, -32)).fill(99, snapshotEnd, snapshotEnd + 1);
  for (const content of [body, unknown, now.subarray(0, 50), Buffer.alloc(0)]) {
    writeFileSync(file, Buffer.concat([content, createHash('sha256').update(content).digest()]));
    assert.equal(here.cache.load(originNameOf(origin)), undefined);
    const next = await backupHere(here, origin);
    assert.equal(next.statistics.pagesAdded, 0);
    assert.equal(next.root, first.root);
    assert.equal(here.cache.load(originNameOf(origin))?.snapshot, next.id);
  }
});

test('sealed hashes count for nothing in another store, for another database, or with a changed byte', async (t) => {
  const folder = tempDir(t);
  const origin = join(folder, 'a.db');
  smallDatabase(origin, { rows: 5 });
  const [here, other] = await Promise.all(
    ['first', 'second'].map((name) =>
      storeHere(new MemoryBackend(), join(folder, name), undefined, 'the same password'),
    ),
  );
  assert.ok(here !== undefined && other !== undefined);
  const { id } = await backupHere(here, origin);
  const cache = join(folder, 'first', 'cache');
  const [name = ''] = readdirSync(cache);
  const bytes = readFileSync(join(cache, name));
  const named = originNameOf(origin);
  assert.equal(new HashCache(cache, here.access.sealer).load(named)?.snapshot, id);
  assert.equal(new HashCache(cache, other.access.sealer).load(named), undefined);
  assert.equal(new HashCache(cache).load(named), undefined);
  const another = originNameOf(join(folder, 'b.db'));
  const hashes = here.cache.load(named);
  assert.ok(hashes !== undefined);
  here.cache.save(another, hashes);
  writeFileSync(join(cache, readdirSync(cache).find((each) => each !== name) ?? ''), bytes);
  assert.equal(here.cache.load(another), undefined);
  for (let at = 0; at < bytes.length; at += Math.ceil(bytes.length / 100)) {
    const changed = Buffer.from(bytes);
    changed[at] = (changed[at] as number) ^ 1;
    writeFileSync(join(cache, name), changed);
    assert.equal(here.cache.load(named), undefined, `byte ${at}`);
  }
});
