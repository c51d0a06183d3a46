import { prepareQuickTests } from '../support/quick.ts';
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { KeptOrigin } from '../../src/origin/kept-origin.ts';
import { pageNumber } from '../../src/pages/page-types.ts';
import { tempDir } from '../support/compare.ts';
import { openDescriptors } from '../support/descriptors.ts';
import { OtherProcess } from '../support/other-process.ts';
import type { OtherConnection } from '../support/other-process.ts';

prepareQuickTests({ after });

/** The application is another process: each process must have one SQLite, and close no file of a database beside it. */
async function origin(t: TestContext): Promise<{ path: string; application: OtherConnection }> {
  const path = join(tempDir(t), 'origin.db');
  const application = await new OtherProcess(t).open(path);
  await application.exec('PRAGMA journal_mode = WAL; CREATE TABLE t (x); CREATE TABLE u (x)');
  return { path, application };
}

test('a commit between the last look at an idle origin and the end of its connection is noticed', async (t) => {
  const { path, application } = await origin(t);
  const kept = new KeptOrigin(0);
  t.after(() => kept.close());
  (await kept.open(path, { busyTimeoutMs: 1000 })).close();
  assert.equal(kept.hasChanged(), false);
  await application.exec('INSERT INTO t VALUES (1)');
  await kept.detachIfIdle();
  assert.equal(kept.hasChanged(), true);
});

test('an idle origin whose connection has ended is looked at from outside', async (t) => {
  const { path, application } = await origin(t);
  const kept = new KeptOrigin(0);
  (await kept.open(path, { busyTimeoutMs: 1000 })).close();
  assert.equal(kept.hasChanged(), false);
  await kept.detachIfIdle();
  // Nothing keeps the application from leaving WAL mode now.
  assert.equal(kept.hasChanged(), false);
  await application.exec('INSERT INTO t VALUES (1)');
  assert.equal(kept.hasChanged(), true);
  assert.deepEqual(await application.rows('PRAGMA journal_mode = DELETE'), [['delete']]);
});

/** An application whose last write into the file is a while ago, as that of most. */
async function settled(t: TestContext): ReturnType<typeof origin> {
  const made = await origin(t);
  await delay(3200);
  return made;
}

test('a kept origin sees a WAL that begins anew again and again, though nobody asks it meanwhile', async (t) => {
  const { path, application } = await settled(t);
  const kept = new KeptOrigin();
  t.after(() => kept.close());
  (await kept.open(path, { busyTimeoutMs: 1000 })).close();
  for (let n = 0; n < 4; n++) {
    await application.exec(`INSERT INTO t VALUES (${n})`);
    await delay(200);
    await application.exec('PRAGMA wal_checkpoint(TRUNCATE)');
  }
  (await kept.open(path, { busyTimeoutMs: 1000 })).close();
  // The first table has page 2.
  assert.deepEqual([...(kept.changes?.pages ?? [])], [2]);
});

test('the connection to an idle origin ends by itself, and what it has collected is found again', async (t) => {
  const { path, application } = await settled(t);
  const kept = new KeptOrigin(100);
  t.after(() => kept.close());
  (await kept.open(path, { busyTimeoutMs: 1000 })).close();
  await application.exec('INSERT INTO t VALUES (1)');
  assert.equal(kept.hasChanged(), true);
  while (openDescriptors(path) > 0) await delay(1);
  assert.equal(kept.hasChanged(), true);
  // A checkpoint moves the time of the file, which hides nothing.
  await application.exec('INSERT INTO u VALUES (1)');
  await application.exec('PRAGMA wal_checkpoint(PASSIVE)');
  (await kept.open(path, { busyTimeoutMs: 1000 })).close();
  assert.deepEqual(
    [...(kept.changes?.pages ?? [])].toSorted((a, b) => a - b),
    [2, 3],
  );
});

test('the connection to an idle origin does not end under a snapshot', async (t) => {
  const { path } = await settled(t);
  const kept = new KeptOrigin(0);
  t.after(() => kept.close());
  const snapshot = await kept.open(path, { busyTimeoutMs: 1000 });
  const before = openDescriptors(path);
  await delay(300);
  await kept.detachIfIdle();
  assert.equal(openDescriptors(path), before);
  assert.equal(snapshot.readPage(pageNumber(1)).length, snapshot.pageSize);
  snapshot.close();
});

test('of a WAL that began anew while nobody was attached, the changes are not known', async (t) => {
  const { path, application } = await settled(t);
  const kept = new KeptOrigin(100);
  t.after(() => kept.close());
  (await kept.open(path, { busyTimeoutMs: 1000 })).close();
  while (openDescriptors(path) > 0) await delay(1);
  await application.exec('INSERT INTO t VALUES (1)');
  await application.exec('PRAGMA wal_checkpoint(TRUNCATE)');
  await application.exec('INSERT INTO u VALUES (1)');
  (await kept.open(path, { busyTimeoutMs: 1000 })).close();
  assert.equal(kept.changes, undefined);
});
