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

/**
 * An origin of 10 MB that has changed as a whole, and its replica on a disk of its own; undefined if this
 * host cannot make one.
 */
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
  test('a replica in WAL mode is written directly if the disk is seen to have no room for the spool and the commit', async (t) => {
    const disk = await onSmallDisk(t, 'wal');
    if (disk === undefined) return;
    disk.leave(1.3);
    const { outcomeName, snapshots } = await syncStaged(disk);
    assert.deepEqual([outcomeName, snapshots], ['committed', 1]);
    assertReplicaOf(disk.origin, disk.replica);
    assert.deepEqual(disk.names().toSorted(), AT_REST);
  });

  test('a replica in WAL mode is written directly after the commit of a spool had no room', async (t) => {
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

test('a commit without room leaves no spool beside a replica in rollback mode, which cannot be written without one', async (t) => {
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

/** A run that ends after nearly all pages have arrived. */
async function leaveSpool({ origin, replica }: Disk): Promise<void> {
  const onFrame = ({ name }: { name: string }): 'cut' | void => (name === 'root' ? 'cut' : undefined);
  await assert.rejects(syncHere({ origin, replica, staging: 'always', onFrame }), {
    code: 'CONNECTION_LOST',
  });
  assert.ok(existsSync(join(replica, '..', '.replica.db.sqlsync-spool')));
}

describe('a disk without room for a new replica', () => {
  interface NewPlace {
    readonly origin: string;
    readonly replica: string;
    readonly disk: string;
    resize(bytes: number): void;
  }

  /** An origin of 10 MB, and an empty disk of so many bytes. */
  function place(t: TestContext, bytes: number): NewPlace | undefined {
    const disk = mkdtempSync(join(tmpdir(), 'sqlsync-full-disk-'));
    const mount = (options: string): boolean =>
      spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', disk]).status === 0;
    const isMounted = mount(`size=${bytes}`);
    t.after(() => {
      if (isMounted) spawnSync('umount', ['--lazy', disk]);
      rmdirSync(disk);
    });
    if (!isMounted) {
      t.skip('NOT TESTED: only who may mount can have a full disk');
      return undefined;
    }
    const origin = join(tempDir(t), 'origin.db');
    change(origin, (db) =>
      db.exec(`CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB);
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${ROWS})
          INSERT INTO t (x) SELECT randomblob(3500) FROM n`),
    );
    const resize = (size: number): void => assert.ok(mount(`remount,size=${size}`));
    return { origin, replica: join(disk, 'replica.db'), disk, resize };
  }

  const refused = {
    code: 'REPLICA_UNWRITABLE',
    message: /replica\.db needs 10\.\d MB more, and \d\.\d\d MB are free in .*ENOSPC/,
  } as const;

  test('a disk without room for a new replica is found before the first byte, and nothing is left', async (t) => {
    const here = place(t, 5e6);
    if (here === undefined) return;
    let pages = 0;
    const onFrame = ({ name }: { name: string }): void => void (name === 'pages' && pages++);
    await assert.rejects(syncHere({ ...here, onFrame }), {
      ...refused,
      hint: /Nothing was written. Free some/,
    });
    assert.equal(pages, 0);
    assert.deepEqual(readdirSync(here.disk), []);
  });

  test('a disk without room for a replacement of another page size is found, and the replica stays', async (t) => {
    const here = place(t, 14e6);
    if (here === undefined) return;
    change(here.replica, (db) => db.exec('PRAGMA page_size = 1024; CREATE TABLE t (x)'));
    await assert.rejects(syncHere({ ...here, replace: true, overwrite: true }), {
      code: 'REPLICA_UNWRITABLE',
      message: /needs 2\d\.\d MB more, and 1\d\.\d MB are free/,
    });
    assert.deepEqual(readdirSync(here.disk), ['replica.db']);
    here.resize(64e6);
    assert.equal((await syncHere({ ...here, replace: true, overwrite: true })).outcomeName, 'committed');
  });

  test('a disk has room enough if the part file of an interrupted run has most of the replica already', async (t) => {
    const here = place(t, 12e6);
    if (here === undefined) return;
    const onFrame = ({ name }: { name: string }): 'cut' | void => (name === 'root' ? 'cut' : undefined);
    await assert.rejects(syncHere({ ...here, onFrame }), {
      code: 'CONNECTION_LOST',
      hint: /\/\.replica\.db\.sqlsync-part \(10\.\d MB\) keeps what has arrived: run sqlsync again to continue from it, or remove it/,
    });
    assert.equal((await syncHere(here)).outcomeName, 'committed');
    assertReplicaOf(here.origin, here.replica);
  });

  test('a disk that fills up meanwhile is named, with the part file that fills it', async (t) => {
    const here = place(t, 64e6);
    if (here === undefined) return;
    let isSmall = false;
    const onFrame = ({ name }: { name: string }): void => {
      if (name === 'pages' && !isSmall) here.resize(4e6);
      if (name === 'pages') isSmall = true;
    };
    await assert.rejects(syncHere({ ...here, onFrame, compression: 'none' }), {
      code: 'REPLICA_UNWRITABLE',
      message: /ENOSPC/,
      hint: /Free some space.*\.replica\.db\.sqlsync-part \(\d\.\d\d MB\) keeps what has arrived/,
    });
    here.resize(64e6);
    const { resumed } = await syncHere(here);
    assert.equal(resumed, true);
    assertReplicaOf(here.origin, here.replica);
  });
});
