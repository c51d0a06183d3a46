import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { Random } from '../../fixtures/random.ts';
import { backup, initStore, openStore, restore, SqlsyncError } from '../../src/index.ts';
import type { CopyProgress, Store } from '../../src/index.ts';
import { change, largeDatabase } from '../pages/databases.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { untilAll } from '../support/until-all.ts';

const SEED = Number(process.env['SQLSYNC_SEED'] ?? Date.now() % 2 ** 31);

interface Place {
  readonly folder: string;
  readonly origin: string;
  readonly path: string;
  readonly store: Store;
}

async function place(t: TestContext, bytes = 4e5): Promise<Place> {
  const folder = tempDir(t);
  const origin = join(folder, 'a.db');
  largeDatabase(origin, bytes);
  const path = join(folder, 'store');
  return { folder, origin, path, store: await initStore(path) };
}

function code(expected: string): (error: unknown) => boolean {
  return (error) => error instanceof SqlsyncError && error.code === expected;
}

test('backup() adds snapshots to a store, and restore() gives back what each was', async (t) => {
  const { folder, origin, path, store } = await place(t);
  const images = [];
  const progress: CopyProgress[] = [];
  for (let i = 0; i < 2; i++) {
    images.push(pageImage(origin));
    const { snapshot, verified } = await backup({
      origin,
      store: path,
      tags: ['test'],
      host: 'somewhere',
      verify: i === 1,
      onProgress: (each) => progress.push(each),
    });
    assert.deepEqual([snapshot.tags, snapshot.host, snapshot.path], [['test'], 'somewhere', origin]);
    assert.ok(snapshot.time instanceof Date);
    assert.equal(verified, i === 1);
    change(origin, 'UPDATE t SET x = randomblob(100) WHERE rowid = 1');
  }
  assert.ok(progress.length > 0);
  const snapshots = await (await openStore(path)).snapshots();
  for (const [i, { id }] of snapshots.entries()) {
    const target = join(folder, `r${i}.db`);
    const { created, outcome } = await restore({ store: path, snapshot: id.slice(0, 8), target });
    assert.deepEqual([created, outcome], [true, 'committed']);
    assert.ok(readFileSync(target).equals(images[i] as Buffer));
    assert.equal(statSync(target).mode, statSync(origin).mode);
  }
  await assert.rejects(
    restore({ store: path, snapshot: 'latest', target: origin }),
    code('REPLICA_NOT_MARKED'),
  );
  await restore({ store: path, snapshot: 'latest', target: origin, overwrite: true });
  const diff = await store.diff(snapshots[0] as never, snapshots[1] as never, { owners: true });
  assert.ok(diff.objects.some(({ name }) => name === 't'));
  assert.deepEqual((await store.check({ readData: true })).problems, []);
});

test('impossible requests are refused with their codes', async (t) => {
  const { folder, origin, path } = await place(t);
  await assert.rejects(initStore(path), code('STORE_EXISTS'));
  await assert.rejects(openStore(folder), code('STORE_NOT_FOUND'));
  await assert.rejects(backup({ origin, store: folder }), code('STORE_NOT_FOUND'));
  await assert.rejects(backup({ origin: join(folder, 'no.db'), store: path }), code('ORIGIN_NOT_FOUND'));
  await assert.rejects(
    restore({ store: path, snapshot: 'latest', target: join(folder, 'r.db') }),
    code('SNAPSHOT_NOT_FOUND'),
  );
  const controller = new AbortController();
  controller.abort();
  await assert.rejects(backup({ origin, store: path, signal: controller.signal }), code('INTERRUPTED'));
});

test('a backup that is killed at any moment leaves a good store', async (t) => {
  t.diagnostic(`SQLSYNC_SEED=${SEED}`);
  const random = new Random(SEED);
  const { origin, path, store } = await place(t, 4e6);
  const images = new Map<string, Buffer>();
  const done = { killed: 0 };
  for (const i of untilAll(6, done)) {
    change(origin, `UPDATE t SET x = randomblob(8000) WHERE rowid % 5 = ${i % 5}`);
    const image = pageImage(origin);
    // The moment is a number of lines in a system call's trace, not a time.
    if (await killedAtFsync(t, origin, path, random.integer(1, 5))) done.killed++;
    for (const { id } of await store.snapshots()) if (!images.has(id)) images.set(id, image);
    const { snapshot } = await backup({ origin, store: path });
    images.set(snapshot.id, image);
    const { problems, damaged } = await store.check({ readData: true });
    assert.deepEqual([problems, damaged], [[], []]);
  }
  for (const snapshot of await store.snapshots()) {
    const copy = await store.localCopy(snapshot);
    assert.ok(readFileSync(copy.path).equals(images.get(snapshot.id) as Buffer));
    copy.remove();
  }
});

/** Runs a backup that gets kill -9 in its fsync of this number; false if it made fewer. */
async function killedAtFsync(
  t: TestContext,
  origin: string,
  store: string,
  number: number,
): Promise<boolean> {
  const index = join(import.meta.dirname, '../../src/backup/copy/backup.ts');
  const program = `import { runBackup } from ${JSON.stringify(index)};
    await runBackup(${JSON.stringify({ origin, store })});`;
  const inject = `inject=fsync:signal=SIGKILL:when=${number}`;
  const options = ['-qq', '-f', '-o', '/dev/null', '-e', 'trace=fsync', '-e', inject];
  const child = spawn('strace', [...options, process.execPath, '--input-type=module', '-e', program], {
    env: { ...process.env, NODE_DISABLE_COMPILE_CACHE: '1', UV_THREADPOOL_SIZE: '1' },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  const [status, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve) => {
    child.on('exit', (exit, by) => resolve([exit, by]));
  });
  return signal === 'SIGKILL' || status === 137;
}

test('the password of an encrypted store may be a function, for backup() and restore() too', async (t) => {
  const usual = process.env['SQLSYNC_SCRYPT_N'];
  process.env['SQLSYNC_SCRYPT_N'] = String(2 ** 15);
  t.after(() => {
    if (usual === undefined) delete process.env['SQLSYNC_SCRYPT_N'];
    else process.env['SQLSYNC_SCRYPT_N'] = usual;
  });
  const { folder, origin } = await place(t);
  const store = join(folder, 'encrypted');
  const password = (): Promise<string> => Promise.resolve('correct horse');
  assert.equal((await initStore(store, { password })).isEncrypted, true);
  const { snapshot } = await backup({ origin, store, password });
  const target = join(folder, 'back.db');
  await restore({ store, snapshot: snapshot.id, target, password: () => 'correct horse' });
  assert.ok(readFileSync(target).equals(pageImage(origin)));
  const wrong = restore({ store, snapshot: snapshot.id, target: `${target}2`, password: () => 'wrong' });
  await assert.rejects(wrong, code('STORE_PASSWORD'));
});
