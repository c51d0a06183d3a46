import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import Database from 'better-sqlite3';
import { assertRefused, sqlsync } from '../cli/command.ts';
import { column, names } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { change, syncHere } from '../support/sync.ts';

const WRITER = join(import.meta.dirname, 'live-writer.ts');
const MODES = ['wal', 'delete'] as const;

interface Place {
  readonly folder: string;
  readonly store: string;
  readonly live: string;
}

/** A store with a snapshot of a database that has another content and journal mode by now. */
async function makePlace(t: TestContext, mode: (typeof MODES)[number]): Promise<Place> {
  const folder = tempDir(t);
  const [store, live] = [join(tempDir(t), 'store'), join(folder, 'live.db')];
  const db = new Database(live);
  db.exec(`
    PRAGMA journal_mode = ${mode};
    CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB);
    CREATE TABLE marker (text);
    INSERT INTO marker VALUES ('old');
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
      INSERT INTO t (x) SELECT randomblob(3000) FROM n`);
  db.close();
  await succeed(['init', store]);
  await succeed(['backup', live, store]);
  change(live, (database) =>
    database.exec("UPDATE t SET x = randomblob(3000) WHERE id % 10 = 0; UPDATE marker SET text = 'new'"),
  );
  return { folder, store, live };
}

async function succeed(args: readonly string[]): Promise<void> {
  const { status, stderr } = await sqlsync(args);
  assert.equal(status, 0, stderr);
}

for (const mode of MODES) {
  describe(`a database in mode ${mode} that an application goes on writing to`, () => {
    test(`a database in mode ${mode} with a live writer is restored, since the restore takes the write lock and compares under it`, async (t) => {
      const { folder, store, live } = await makePlace(t, mode);
      const writer = fork(WRITER, [live]);
      t.after(() => writer.kill('SIGKILL'));
      await once(writer, 'message');
      for (const env of [{}, { SQLSYNC_STAGING_MIN_BYTES: '1' }]) {
        change(live, (db) => {
          db.pragma('busy_timeout = 60000');
          db.exec("UPDATE marker SET text = 'new'");
        });
        const args = ['restore', store, live, '--overwrite', '--busy-timeout', '60'];
        const { status, stderr } = await sqlsync(args, { env });
        assert.equal(status, 0, stderr);
        assert.equal(writer.exitCode, null, 'the application still writes');
        assert.deepEqual(column(live, 'SELECT text FROM marker'), ['old']);
      }
      writer.kill('SIGKILL');
      await once(writer, 'close');
      assert.deepEqual(column(live, 'PRAGMA integrity_check'), ['ok']);
      assert.deepEqual(
        names(folder).filter((name) => name.includes('sqlsync')),
        [],
      );
    });

    test(`a database in mode ${mode} is left as it is if the application keeps the lock, and the error says so`, async (t) => {
      const { folder, store, live } = await makePlace(t, mode);
      const writer = await new OtherProcess(t).open(live);
      await writer.exec("BEGIN IMMEDIATE; UPDATE marker SET text = 'newer'");
      const { status, stderr } = await sqlsync(
        ['restore', store, live, '--overwrite', '--busy-timeout', '0.3'],
        { env: { SQLSYNC_STAGING_MIN_BYTES: '1' } },
      );
      assert.equal(status, 5, stderr);
      assert.match(stderr, /Database \S+live\.db: still locked by another program .*\[BUSY\]/);
      assert.match(stderr, /Nothing was changed\./);
      assert.doesNotMatch(stderr, /replica|may have been committed/i);
      if (names(folder).includes('.live.db.sqlsync-spool')) assert.match(stderr, /\.live\.db\.sqlsync-spool/);
      await writer.exec('COMMIT');
      assert.deepEqual(column(live, 'SELECT text FROM marker'), ['newer']);
    });
  });
}

test('a sync into a database that is written at every moment takes the write lock in the end', async (t) => {
  const folder = tempDir(t);
  const [origin, replica] = [join(folder, 'origin.db'), join(folder, 'replica.db')];
  for (const path of [origin, replica])
    change(path, (db) =>
      db.exec(`PRAGMA journal_mode = wal; CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB);
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
          INSERT INTO t (x) SELECT randomblob(3000) FROM n`),
    );
  const writer = await new OtherProcess(t).open(replica, { timeoutMs: 0 });
  let refused = 0;
  const onFrame = async (): Promise<void> => {
    await writer.exec('UPDATE t SET x = randomblob(3000) WHERE id = 7').catch(() => refused++);
  };
  const { outcomeName } = await syncHere({ origin, replica, overwrite: true, staging: 'always', onFrame });
  assert.equal(outcomeName, 'committed');
  assert.ok(refused > 0, 'the writer met the lock');
  await writer.call('close');
});

test('a restore that fails names a spool that waits beside the database', async (t) => {
  const { folder, store, live } = await makePlace(t, 'delete');
  const reader = await new OtherProcess(t).open(live, { readonly: true });
  await reader.exec('BEGIN; SELECT count(*) FROM t');
  await assertRefused(['restore', store, live, '--overwrite', '--busy-timeout', '0.3'], {
    code: 'BUSY',
    status: 5,
    says: /Database \S+live\.db: still locked/,
    hint: /Nothing was changed.*\/\.live\.db\.sqlsync-spool \([0-9.]+ .B\) keeps what has arrived: run sqlsync again/s,
  });
  assert.ok(names(folder).includes('.live.db.sqlsync-spool'));
  await reader.exec('COMMIT');
  await succeed(['restore', store, live, '--overwrite']);
  assert.deepEqual(names(folder), ['live.db']);
});
