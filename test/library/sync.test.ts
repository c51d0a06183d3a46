import assert from 'node:assert/strict';
import { existsSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import Database from 'better-sqlite3';
import { SqlsyncError, sync, verify } from '../../src/index.ts';
import type { CopyProgress } from '../../src/index.ts';
import { change, largeDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { commandLine, rejection, runningSync } from './running-sync.ts';

function place(t: TestContext, bytes = 4e5): { folder: string; origin: string; replica: string } {
  const folder = tempDir(t);
  const origin = join(folder, 'a.db');
  largeDatabase(origin, bytes);
  return { folder, origin, replica: join(folder, 'r.db') };
}

test('sync() makes an exact copy, then brings it up to date, and tells what it did', async (t) => {
  const { origin, replica } = place(t);
  const first = await sync({ origin, replica });
  assert.deepEqual(
    [first.outcome, first.created, first.origin, first.replica],
    ['committed', true, origin, replica],
  );
  assert.equal((await sync({ origin, replica })).outcome, 'unchanged');
  change(origin, 'UPDATE t SET x = randomblob(100) WHERE rowid = 1');
  const third = await sync({ origin, replica });
  assert.deepEqual([third.outcome, third.created], ['committed', false]);
  assert.ok(third.pagesChanged > 0 && third.pagesChanged < third.pageCount);
  assertReplicaOf(origin, replica);
});

test('progress, warnings and notes reach the application', async (t) => {
  const { origin, replica } = place(t);
  change(origin, 'PRAGMA journal_mode = delete');
  const progress: CopyProgress[] = [];
  const warnings: string[] = [];
  const summary = await sync({
    origin,
    replica,
    onProgress: (step) => progress.push(step),
    onWarning: (warning) => warnings.push(warning),
    onNote: () => {},
  });
  assert.equal(progress.at(-1)?.phase, 'commit');
  assert.equal(progress.at(-1)?.pagesReceived, summary.pagesTransferred);
  assert.equal(warnings.length, 1);
  assert.match(warnings[0] as string, /rollback/i);
  assert.deepEqual(summary.warnings, warnings);
});

test('the options of the command do the same in the library', async (t) => {
  const { folder, origin, replica } = place(t);
  assert.equal((await sync({ origin, replica, dryRun: true })).outcome, 'dryRun');
  assert.equal(existsSync(replica), false);

  largeDatabase(replica, 1e5);
  assert.equal((await rejection(sync({ origin, replica }))).code, 'REPLICA_NOT_MARKED');
  const overwritten = await sync({
    origin,
    replica,
    overwrite: true,
    hash: 'sha256',
    reader: 'dbpage',
    compress: 'zstd',
  });
  assert.equal(overwritten.outcome, 'committed');
  assertReplicaOf(origin, replica);

  const other = join(folder, 'other-page-size.db');
  change(other, 'PRAGMA page_size = 512; CREATE TABLE t (x)');
  assert.equal(
    (await rejection(sync({ origin: other, replica, overwrite: true }))).code,
    'REPLICA_PAGE_SIZE',
  );
  assert.equal((await sync({ origin: other, replica, overwrite: true, replace: true })).outcome, 'committed');
  assertReplicaOf(other, replica);
});

test('a failure is a SqlsyncError with the code, message and hint of the command', async (t) => {
  const { folder, replica } = place(t);
  const origin = join(folder, 'missing.db');
  const failure = await rejection(sync({ origin, replica }));
  assert.ok(failure instanceof SqlsyncError);
  assert.equal(failure.code, 'ORIGIN_NOT_FOUND');
  assert.equal(failure.message, `Origin ${origin} does not exist`);
  assert.match(failure.hint ?? '', /Check the path/);
});

test('the cause of a failure crosses over with its code', async (t) => {
  const { origin } = place(t);
  const failure = await rejection(sync({ origin, replica: join(origin, 'r.db') }));
  assert.equal(failure.code, 'REPLICA_UNWRITABLE');
  assert.ok(failure.cause instanceof Error);
  assert.equal((failure.cause as NodeJS.ErrnoException).code, 'ENOTDIR');
});

test('busyTimeoutMs bounds the wait for another program', async (t) => {
  const { origin, replica } = place(t);
  await sync({ origin, replica });
  change(origin, 'UPDATE t SET x = randomblob(100)');
  const writer = await new OtherProcess(t).open(replica);
  await writer.exec('BEGIN IMMEDIATE');
  assert.equal((await rejection(sync({ origin, replica, busyTimeoutMs: 50 }))).code, 'BUSY');
});

test('the options for remote hosts are used', async (t) => {
  const { replica } = place(t);
  const failure = await rejection(
    sync({ origin: '127.0.0.1:a.db', replica, port: 1, connectTimeoutMs: 5000 }),
  );
  assert.equal(failure.code, 'CONNECT_FAILED');
  assert.match(failure.message, /\b1\b/);
});

test('verify() tells whether two databases are the same, and where they differ', async (t) => {
  const { origin, replica } = place(t);
  await sync({ origin, replica });
  const same = await verify({ a: origin, b: replica });
  assert.deepEqual([same.same, same.differingPages, same.b.location], [true, [], replica]);
  change(replica, 'UPDATE t SET x = randomblob(8000) WHERE rowid = 1');
  const different = await verify({ a: origin, b: replica, hash: 'sha256' });
  assert.equal(different.same, false);
  assert.ok(different.differingPages.length > 0);
  assert.deepEqual(
    different.objects.map(({ name }) => name),
    ['t'],
  );
  assert.equal((await rejection(verify({ a: origin, b: `${replica}x` }))).code, 'ORIGIN_NOT_FOUND');
});

test('several syncs at once do not disturb each other', async (t) => {
  const { folder, origin } = place(t);
  const replicas = [1, 2, 3].map((n) => join(folder, `r${n}.db`));
  await Promise.all(replicas.map((replica) => sync({ origin, replica })));
  for (const replica of replicas) assertReplicaOf(origin, replica);
});

test('calls for one new replica wait for each other, and an abort ends the wait but not the run', async (t) => {
  const { origin, replica } = place(t, 4e6);
  const { hold, result } = await runningSync(t, { origin, replica });
  const controller = new AbortController();
  // A run of another process would be refused after this time.
  const options = { origin, replica, busyTimeoutMs: 0 };
  const waiting = sync({ ...options, signal: controller.signal });
  const later = sync(options);
  controller.abort();
  assert.equal((await rejection(waiting)).code, 'INTERRUPTED');
  assert.equal(existsSync(replica), false, 'the first one is still under way');
  hold.release();
  assert.deepEqual([(await result).created, (await result).outcome], [true, 'committed']);
  assert.equal((await later).outcome, 'unchanged');
  assertReplicaOf(origin, replica);
});

test('the locks that the application holds on the origin and on the replica outlive a sync', async (t) => {
  const { origin, replica } = place(t);
  await sync({ origin, replica });
  change(replica, 'PRAGMA journal_mode = delete');
  const [writer, reader] = [new Database(origin), new Database(replica)];
  writer.exec('BEGIN IMMEDIATE');
  reader.exec('BEGIN; SELECT * FROM t');
  await sync({ origin, replica, dryRun: true });
  const other = new OtherProcess(t);
  await assert.rejects((await other.open(origin)).exec('BEGIN IMMEDIATE'), { code: 'SQLITE_BUSY' });
  await assert.rejects((await other.open(replica)).exec('BEGIN EXCLUSIVE'), { code: 'SQLITE_BUSY' });
  writer.close();
  reader.close();
});

test('the application has neither database open during a sync, and no command line names one', async (t) => {
  const { folder, origin, replica } = place(t, 4e6);
  const { hold, result, child, agents } = await runningSync(t, { origin, replica });
  const open = readdirSync('/proc/self/fd').map(linkOf);
  assert.deepEqual(
    open.filter((path) => path.startsWith(folder)),
    [],
  );
  for (const pid of [child, ...agents]) assert.ok(!commandLine(pid).includes(folder));
  hold.release();
  assert.equal((await result).outcome, 'committed');
});

/** The descriptor by which the test read the folder is closed by now. */
function linkOf(descriptor: string): string {
  try {
    return readlinkSync(join('/proc/self/fd', descriptor));
  } catch {
    return '';
  }
}
