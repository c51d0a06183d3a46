import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, realpathSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { generateDatabase } from '../../fixtures/generate.ts';
import { hostName } from '../../src/files/machine.ts';
import { markReplica } from '../../src/beside/mark.ts';
import { tryExclusiveLock } from '../../src/sqlite/locks/exclusive-lock.ts';
import type { SyncSummary } from '../../src/sync/runs/sync.ts';
import { runSync } from '../../src/sync/runs/sync.ts';
import { assertReplicaOf, sha256File, tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { change, syncHere } from '../support/sync.ts';

const PROGRAM = fileURLToPath(new URL('../../bin/sqlsync.js', import.meta.url));

describe('a second sync right after the first', () => {
  for (const mode of ['wal', 'delete'] as const) {
    test(`a second sync requests no page and changes no byte of a replica in mode ${mode}`, async (t) => {
      const [origin, replica] = paths(tempDir(t));
      generateDatabase(origin, { rows: 200 });
      await runSync({ origin, replica });
      change(replica, (db) => db.pragma(`journal_mode = ${mode}`));
      const before = state(replica);
      const second = await runSync({ origin, replica });
      assert.deepEqual([second.outcome, second.pagesChanged, second.pagesTransferred], ['unchanged', 0, 0]);
      assert.deepEqual(state(replica), before);
    });
  }

  test('a second sync leaves the frames in the WAL of a replica that others have open where they are', async (t) => {
    const [origin, replica] = paths(tempDir(t));
    generateDatabase(origin, { rows: 200 });
    await runSync({ origin, replica });
    const other = new OtherProcess(t);
    const reader = await other.open(replica, { readonly: true });
    await reader.exec('BEGIN');
    await reader.rows('SELECT count(*) FROM item');
    change(origin, (db) => db.exec('UPDATE item SET amount = 3'));
    await runSync({ origin, replica });
    const before = state(replica);
    assert.ok(statSync(`${replica}-wal`).size > 0);
    const { pagesTransferred } = await runSync({ origin, replica });
    assert.equal(pagesTransferred, 0);
    assert.deepEqual(state(replica), before);
  });

  for (const mode of ['wal', 'delete'] as const) {
    test(`a second sync takes no write lock on a replica in mode ${mode}: it succeeds while another program holds that lock`, async (t) => {
      const [origin, replica] = paths(tempDir(t));
      generateDatabase(origin, { rows: 200 });
      await runSync({ origin, replica });
      change(replica, (db) => db.pragma(`journal_mode = ${mode}`));
      const holder = await new OtherProcess(t).open(replica);
      await holder.exec('BEGIN IMMEDIATE');
      const second = await runSync({ origin, replica, busyTimeoutMs: 0 });
      assert.equal(second.outcome, 'unchanged');
      // A sync with pages to write does wait for this lock.
      change(origin, (db) => db.pragma('user_version = 5'));
      await assert.rejects(runSync({ origin, replica, busyTimeoutMs: 0 }), { code: 'BUSY' });
    });
  }

  test('a second sync opens the replica read-only and writes nothing to it, by its system calls', (t) => {
    if (spawnSync('strace', ['-V']).status !== 0) return t.skip('strace is not installed');
    const [origin, replica] = paths(tempDir(t));
    generateDatabase(origin, { rows: 50 });
    const traced = (): string[] => {
      const log = join(dirname(replica), 'trace.log');
      const calls = 'openat,open,write,pwrite64,writev,pwritev,ftruncate,fsync,fdatasync,unlink,rename,link';
      const run = spawnSync('strace', [
        '-f',
        '-y',
        '-e',
        `trace=${calls}`,
        '-o',
        log,
        process.execPath,
        PROGRAM,
        origin,
        replica,
      ]);
      assert.equal(run.status, 0, run.stderr.toString());
      return readFileSync(log, 'utf8')
        .split('\n')
        .filter((line) => line.includes('replica.db'));
    };
    const writes = (lines: string[]): string[] =>
      lines.filter(
        (line) =>
          /(write|writev|pwrite64|pwritev|ftruncate|fsync|fdatasync|unlink|rename|link)\(/.test(line) ||
          (/O_RDWR|O_WRONLY/.test(line) && !/-shm|-wal/.test(line)),
      );
    assert.ok(writes(traced()).length > 3, 'the first sync was not seen to write');
    // The -shm file of a WAL database is shared memory of its readers too.
    assert.deepEqual(
      writes(traced()).filter((line) => !/-(shm|wal)/.test(line)),
      [],
    );
  });
});

/** Lets the database be overwritten as the replica of `origin`. */
function writeMarkOf(origin: string, replica: string): void {
  const originPath = realpathSync(origin);
  markReplica(replica, { originName: origin, originHost: hostName(), originPath }, { warnings: [] });
}

describe('a sync that another one overtakes', () => {
  const moments = [
    ['wal', 'snapshot'],
    ['wal', 'hashes'],
    // Later the comparison itself keeps others from a commit.
    ['delete', 'snapshot'],
  ] as const;
  for (const [mode, at] of moments) {
    test(`an overtaken sync takes a new snapshot, and no replica back (in mode ${mode}, overtaken at its ${at})`, async (t) => {
      const [origin, replica] = paths(tempDir(t));
      generateDatabase(origin, { rows: 200 });
      await runSync({ origin, replica });
      change(replica, (db) => db.pragma(`journal_mode = ${mode}`));
      change(origin, (db) => db.exec('UPDATE item SET amount = 2'));
      const newer = new OtherProcess(t);
      let isOvertaken = false;
      const { outcomeName } = await syncHere({
        origin,
        replica,
        onFrame: async ({ name }) => {
          if (name !== at || isOvertaken) return;
          isOvertaken = true;
          const writer = await newer.open(origin);
          await writer.exec('UPDATE item SET amount = 3');
          await writer.call('close');
          // Its agents are processes of their own.
          assert.equal((await runSync({ origin, replica })).outcome, 'committed');
        },
      });
      assert.ok(isOvertaken);
      assert.equal(outcomeName, 'unchanged');
      assertReplicaOf(origin, replica);
    });
  }

  for (const kind of ['replaced', 'emptied'] as const) {
    for (const mode of ['wal', 'delete'] as const) {
      for (const at of ['snapshot', 'root'] as const) {
        // In rollback mode the other sync waits for the lock that a `--replace` holds from its beginning.
        if (kind === 'replaced' && mode === 'delete' && at === 'root') continue;
        test(`an overtaken sync takes no replica back that is to be ${kind} (in mode ${mode}, overtaken at its ${at})`, async (t) => {
          const folder = tempDir(t);
          const [origin, replica] = paths(folder);
          const other = join(folder, 'other.db');
          if (kind === 'emptied') writeFileSync(origin, '');
          else generateDatabase(origin, { rows: 200, pageSize: 8192 });
          generateDatabase(other, { rows: 300, pageSize: 4096 });
          generateDatabase(replica, { rows: 100, pageSize: 4096, journalMode: mode });
          writeMarkOf(origin, replica);
          let isOvertaken = false;
          const overtaken = syncHere({
            origin,
            replica,
            replace: true,
            onFrame: async ({ name }) => {
              if (name !== at || isOvertaken) return;
              isOvertaken = true;
              const { outcome } = await runSync({ origin: other, replica, overwrite: true });
              assert.equal(outcome, 'committed');
            },
          });
          // The other sync has made the replica that of another origin, which this one finds on its second
          // look.
          await assert.rejects(overtaken, { code: 'REPLICA_NOT_MARKED' });
          assert.ok(isOvertaken);
          assertReplicaOf(other, replica);
          assert.equal(
            change(replica, (db) => db.pragma('journal_mode', { simple: true })),
            mode,
          );
          assert.equal((await runSync({ origin: other, replica })).outcome, 'unchanged', 'its mark is right');
        });
      }
    }
  }

  test('an overtaken sync ends though others write and checkpoint the replica at every moment', async (t) => {
    const [origin, replica] = paths(tempDir(t));
    generateDatabase(origin, { rows: 200 });
    await runSync({ origin, replica });
    change(origin, (db) => db.exec('UPDATE item SET amount = 2'));
    const other = await new OtherProcess(t).open(replica, { timeoutMs: 0 });
    let times = 0;
    let refused = 0;
    const { outcomeName } = await syncHere({
      origin,
      replica,
      onFrame: async ({ name }) => {
        if (name !== 'snapshot' && name !== 'hashes') return;
        times++;
        await other
          .exec('UPDATE item SET amount = amount + 1; PRAGMA wal_checkpoint(TRUNCATE)')
          .catch(() => refused++);
      },
    });
    assert.equal(outcomeName, 'committed');
    // In the end it compares the replica with the lock held.
    assert.ok(times >= 4 && refused >= 1, `${refused} of ${times} were refused`);
    await other.call('close');
    assertReplicaOf(origin, replica);
  });
});

test('a sync that waits for another sync of its replica in rollback mode is no reader, so that the other can commit', async (t) => {
  const [origin, replica] = paths(tempDir(t));
  generateDatabase(origin, { rows: 200 });
  await runSync({ origin, replica });
  change(replica, (db) => db.pragma('journal_mode = delete'));
  change(origin, (db) => db.exec('UPDATE item SET amount = 2'));
  const lock = tryExclusiveLock(join(dirname(replica), '.replica.db.sqlsync-lock'));
  const other = await new OtherProcess(t).open(replica, { timeoutMs: 20_000 });
  let committing: Promise<void> | undefined;
  const waiting = syncHere({
    origin,
    replica,
    busyTimeoutMs: 60_000,
    onFrame: ({ name }) => {
      // From here on until it waits, the sync reads the replica.
      if (name !== 'getChildren' || committing !== undefined) return;
      committing = other.exec('BEGIN EXCLUSIVE; ROLLBACK').finally(() => lock?.release());
    },
  });
  assert.equal((await waiting).outcomeName, 'committed');
  await committing;
  assert.ok(lock !== undefined && committing !== undefined);
  assertReplicaOf(origin, replica);
});

describe('--dry-run', () => {
  test('--dry-run of a new replica leaves nothing in its folder', async (t) => {
    const folder = tempDir(t);
    const [origin, replica] = paths(folder);
    generateDatabase(origin, { rows: 50, journalMode: 'delete' });
    const dry = await runSync({ origin, replica, dryRun: true });
    assert.equal(dry.outcome, 'dryRun');
    assert.deepEqual(readdirSync(folder), ['origin.db']);
    assertSameChanges(dry, await runSync({ origin, replica }));
  });

  for (const mode of ['wal', 'delete'] as const) {
    test(`--dry-run of a replica in mode ${mode} changes no byte and reports what the real run changes`, async (t) => {
      const folder = tempDir(t);
      const [origin, replica] = paths(folder);
      generateDatabase(origin, { rows: 300 });
      await runSync({ origin, replica });
      change(replica, (db) => db.pragma(`journal_mode = ${mode}`));
      for (const sql of [
        'UPDATE item SET amount = 1 WHERE id % 50 = 0',
        'INSERT INTO item (label, payload) SELECT label, zeroblob(5000) FROM item',
        'DELETE FROM item WHERE id > 20; VACUUM',
      ]) {
        change(origin, (db) => db.exec(sql));
        const before = state(replica);
        const names = readdirSync(folder);
        // A dry run compares any database, while another program holds the write lock, and without the right
        // to write.
        const dry = await runSync({ origin, replica, dryRun: true, busyTimeoutMs: 0 });
        assert.deepEqual([dry.outcome, dry.pagesTransferred], ['dryRun', 0]);
        assert.deepEqual(state(replica), before);
        assert.deepEqual(
          readdirSync(folder).filter((name) => !/-(wal|shm)$/.test(name)),
          names.filter((name) => !/-(wal|shm)$/.test(name)),
        );
        assertSameChanges(dry, await runSync({ origin, replica }));
        assertReplicaOf(origin, replica);
      }
    });
  }

  test('--dry-run uses no part file and leaves it as it is', async (t) => {
    const folder = tempDir(t);
    const [origin, replica] = paths(folder);
    generateDatabase(origin, { rows: 300, journalMode: 'delete' });
    const part = join(folder, '.replica.db.sqlsync-part');
    await assert.rejects(
      syncHere({ origin, replica, onFrame: ({ name }) => (name === 'root' ? 'cut' : undefined) }),
      { code: 'CONNECTION_LOST' },
    );
    const before = sha256File(part);
    const dry = await runSync({ origin, replica, dryRun: true });
    assert.equal(sha256File(part), before);
    const real = await runSync({ origin, replica });
    assert.equal(real.resumed, true);
    assert.deepEqual([dry.pagesChanged, real.pagesChanged], [real.pageCount, real.pageCount]);
    assert.equal(real.pagesTransferred, 1, 'page 1, which comes last');
    assertReplicaOf(origin, replica);
  });
});

function paths(folder: string): [origin: string, replica: string] {
  return [join(folder, 'origin.db'), join(folder, 'replica.db')];
}

function assertSameChanges(dry: SyncSummary, real: SyncSummary): void {
  assert.ok(real.pagesChanged > 0, 'nothing had changed');
  assert.equal(dry.pagesChanged, real.pagesChanged);
  assert.equal(real.pagesTransferred, real.pagesChanged);
}

/** Content and times of a database and of its WAL (an empty WAL counts as none), and of sqlsync's files beside them. */
function state(replica: string): unknown {
  return [replica, `${replica}-wal`, join(dirname(replica), '.replica.db.sqlsync')].map((path) => {
    if (!existsSync(path) || statSync(path).size === 0) return undefined;
    return { path, sha256: sha256File(path), mtimeMs: statSync(path).mtimeMs };
  });
}
