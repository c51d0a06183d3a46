import { prepareQuickTests } from '../support/quick.ts';
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, test } from 'node:test';
import Database from 'better-sqlite3';
import { KeptOrigin } from '../../src/origin/kept-origin.ts';
import { tempDir } from '../support/compare.ts';

prepareQuickTests({ after });

test('a commit between the last look at an idle origin and the end of its connection is noticed', async (t) => {
  const path = join(tempDir(t), 'origin.db');
  const application = new Database(path);
  t.after(() => application.close());
  application.pragma('journal_mode = WAL');
  application.exec('CREATE TABLE t (x)');
  const kept = new KeptOrigin(0);
  t.after(() => kept.close());
  (await kept.open(path, { busyTimeoutMs: 1000 })).close();
  assert.equal(kept.hasChanged(), false);
  application.exec('INSERT INTO t VALUES (1)');
  await kept.detachIfIdle();
  assert.equal(kept.hasChanged(), true);
});

test('an idle origin whose connection has ended is looked at from outside', async (t) => {
  const path = join(tempDir(t), 'origin.db');
  const application = new Database(path);
  t.after(() => application.close());
  application.pragma('journal_mode = WAL');
  application.exec('CREATE TABLE t (x)');
  const kept = new KeptOrigin(0);
  (await kept.open(path, { busyTimeoutMs: 1000 })).close();
  assert.equal(kept.hasChanged(), false);
  await kept.detachIfIdle();
  // Nothing keeps the application from leaving WAL mode now.
  assert.equal(kept.hasChanged(), false);
  application.exec('INSERT INTO t VALUES (1)');
  assert.equal(kept.hasChanged(), true);
  assert.equal(application.pragma('journal_mode = DELETE', { simple: true }), 'delete');
});
