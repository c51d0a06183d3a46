import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmdirSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { change, syncHere } from '../support/sync.ts';
import type { SyncHereResult } from '../support/sync.ts';

const ROWS = 2600;

interface Disk {
  readonly origin: string;
  readonly replica: string;
  /** Leaves so much room, in shares of the bytes that have to travel. */
  leave(share: number): void;
  names(): string[];
}

/** An origin of 10 MB of which all has changed, and its replica on a disk of its own; undefined where none can be had. */
async function onSmallDisk(t: TestContext, mode: 'wal' | 'delete'): Promise<Disk | undefined> {
  const disk = mkdtempSync(join(tmpdir(), 'sqlsync-full-disk-'));
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'tmpfs', disk], { encoding: 'utf8' });
  t.after(() => {
    if (mounted.status === 0) spawnSync('umount', ['--lazy', disk]);
    rmdirSync(disk);
  });
  if (mounted.status !== 0) {
    process.emitWarning(`NOT TESTED: only who may mount can have a full disk (${mounted.stderr})`);
    t.skip('no file system can be mounted');
    return undefined;
  }
  const [origin, replica] = [join(tempDir(t), 'origin.db'), join(disk, 'replica.db')];
  change(origin, (db) => {
    db.exec('CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB)');
    db.exec(
      `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${ROWS}) INSERT INTO t (x) SELECT randomblob(3500) FROM n`,
    );
  });
  await syncHere({ origin, replica });
  change(replica, (db) => db.pragma(`journal_mode = ${mode}`));
  change(origin, (db) => db.exec('UPDATE t SET x = randomblob(3500)'));
  return {
    origin,
    replica,
    leave(share) {
      const { blocks, bfree, bsize } = statfsSync(disk);
      const bytes = Math.ceil((blocks - bfree) * bsize + share * ROWS * 4096);
      assert.equal(spawnSync('mount', ['-o', `remount,size=${bytes}`, disk]).status, 0);
    },
    names: () => readdirSync(disk).filter((name) => !/-(wal|shm)$/.test(name)),
  };
}

const AT_REST = ['.replica.db.sqlsync', 'replica.db'];

async function syncStaged({ origin, replica }: Disk): Promise<SyncHereResult & { snapshots: number }> {
  let snapshots = 0;
  const onFrame = ({ name }: { name: string }): void => void (name === 'snapshot' && snapshots++);
  const result = await syncHere({ origin, replica, staging: 'large', compression: 'none', onFrame });
  return { ...result, snapshots };
}

describe('a replica in WAL mode on a disk without room for the spool and the commit', () => {
  test('is written directly where that is seen before', async (t) => {
    const disk = await onSmallDisk(t, 'wal');
    if (disk === undefined) return;
    disk.leave(1.3);
    const { outcomeName, snapshots } = await syncStaged(disk);
    assert.deepEqual([outcomeName, snapshots], ['committed', 1]);
    assertReplicaOf(disk.origin, disk.replica);
    assert.deepEqual(disk.names().toSorted(), AT_REST);
  });

  test('is written directly after the commit of a spool had no room', async (t) => {
    const disk = await onSmallDisk(t, 'wal');
    if (disk === undefined) return;
    await leaveSpool(disk);
    disk.leave(0.5);
    const { outcomeName, snapshots, resumed } = await syncStaged(disk);
    assert.deepEqual([outcomeName, snapshots, resumed], ['committed', 2, true]);
    assertReplicaOf(disk.origin, disk.replica);
    assert.deepEqual(disk.names().toSorted(), AT_REST);
  });
});

test('a commit without room leaves no spool beside a replica in rollback mode, which cannot do without', async (t) => {
  const disk = await onSmallDisk(t, 'delete');
  if (disk === undefined) return;
  await leaveSpool(disk);
  disk.leave(0.1);
  await assert.rejects(syncStaged(disk), { code: 'REPLICA_UNWRITABLE', message: /full/ });
  assert.deepEqual(disk.names().toSorted(), AT_REST);
  disk.leave(3);
  assert.equal((await syncStaged(disk)).outcomeName, 'committed');
  assertReplicaOf(disk.origin, disk.replica);
  assert.deepEqual(disk.names().toSorted(), AT_REST);
});

/** A run of which nearly all pages arrive. */
async function leaveSpool({ origin, replica }: Disk): Promise<void> {
  const onFrame = ({ name }: { name: string }): 'cut' | void => (name === 'root' ? 'cut' : undefined);
  await assert.rejects(syncHere({ origin, replica, staging: 'always', onFrame }), {
    code: 'CONNECTION_LOST',
  });
  assert.ok(existsSync(join(replica, '..', '.replica.db.sqlsync-spool')));
}
