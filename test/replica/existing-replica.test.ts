import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  renameSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { Command, Hold, assertRefused, folderState, jsonLines } from '../cli/command.ts';
import { assertReplicaOf, sha256File, tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import type { OtherConnection } from '../support/other-process.ts';
import { syncHere } from '../support/sync.ts';
import {
  addPageChecksums,
  change,
  column,
  damage,
  largeDatabase,
  names,
  smallDatabase,
} from '../pages/databases.ts';

const MODES = ['wal', 'delete'] as const;
type Mode = (typeof MODES)[number];

interface Pair {
  /** The folder of the replica. */
  readonly folder: string;
  readonly origin: string;
  readonly replica: string;
}

/** A replica that is one change behind its origin; it has all of the origin's pages and more. */
async function pair(t: TestContext, mode: Mode, bytes = 0): Promise<Pair> {
  const folder = tempDir(t);
  const [origin, replica] = [join(tempDir(t), 'origin.db'), join(folder, 'r.db')];
  if (bytes > 0) largeDatabase(origin, bytes);
  else smallDatabase(origin);
  await syncHere({ origin, replica });
  change(replica, `PRAGMA journal_mode = ${mode}`);
  change(
    origin,
    bytes > 0 ? 'UPDATE t SET x = randomblob(8000)' : 'UPDATE item SET amount = -1 WHERE id % 9 = 0',
  );
  return { folder, origin, replica };
}

async function locked(t: TestContext, path: string, begin: string): Promise<OtherConnection> {
  const connection = await new OtherProcess(t).open(path);
  await connection.exec(begin);
  return connection;
}

for (const mode of MODES) {
  describe(`an existing replica in mode ${mode}`, () => {
    test('a replica that another writer locks for longer than --busy-timeout is BUSY and stays as it was', async (t) => {
      const { folder, origin, replica } = await pair(t, mode);
      const before = folderState(folder);
      const writer = await locked(t, replica, 'BEGIN IMMEDIATE');
      const expected = { code: 'BUSY', status: 5, says: /r\.db: still locked .* after 200 ms/ } as const;
      await assertRefused([origin, replica, '--busy-timeout', '0.2'], {
        ...expected,
        hint: /--busy-timeout/,
      });
      await writer.exec('ROLLBACK');
      await writer.call('close');
      assert.deepEqual(folderState(folder), before);
    });

    test('a sync waits for a replica that another writer locks for a moment', async (t) => {
      const { origin, replica } = await pair(t, mode);
      const writer = await locked(t, replica, 'BEGIN IMMEDIATE');
      // The comparison of equally many pages needs no lock: it reports its progress before the wait begins.
      const command = new Command([origin, replica, '--json', '--busy-timeout', '60']);
      await command.says('"progress"');
      await writer.exec('ROLLBACK');
      const { status, stdout } = await command.done;
      assert.equal(status, 0, stdout);
      assertReplicaOf(origin, replica);
    });

    test('a replica whose file is replaced during the sync is REPLICA_REPLACED, and both files stay as they are', async (t) => {
      const { folder, origin, replica } = await pair(t, mode, 1e6);
      const moved = join(folder, 'moved.db');
      const other = join(folder, 'other.db');
      smallDatabase(other, { seed: 5, journalMode: mode });
      const before = [sha256File(replica), sha256File(other)];
      const hold = new Hold(t, 300_000);
      const command = new Command([origin, replica, '--compress', 'none'], { hold });
      await hold.reached(command);
      renameSync(replica, moved);
      if (existsSync(`${replica}-wal`)) renameSync(`${replica}-wal`, `${moved}-wal`);
      if (existsSync(`${replica}-shm`)) renameSync(`${replica}-shm`, `${moved}-shm`);
      renameSync(other, replica);
      hold.release();
      const { status, stderr } = await command.done;
      assert.match(stderr, /\[REPLICA_REPLACED\]/);
      assert.equal(status, 4);
      assert.deepEqual([sha256File(moved), sha256File(replica)], before);
    });

    for (const [what, harm] of [
      ['a schema that cannot be parsed', (path: string) => damage(path, 100, Buffer.alloc(3000, 0xa5))],
      ['damaged pages', (path: string) => damage(path, 5 * 4096 + 17, Buffer.alloc(30_000, 0x5a))],
      ['a truncated file', (path: string) => truncateSync(path, 20 * 4096)],
      ['a file cut in the middle of a page', (path: string) => truncateSync(path, 20 * 4096 + 1000)],
      ['a header with a wrong count of pages', (path: string) => damage(path, 28, Buffer.of(0, 0, 1, 0))],
    ] as const) {
      test(`a replica with ${what} is repaired by the next sync`, async (t) => {
        const { origin, replica } = await pair(t, mode);
        harm(replica);
        assert.equal((await syncHere({ origin, replica })).outcomeName, 'committed');
        assertReplicaOf(origin, replica);
      });
    }

    test('a replica becomes an empty database if the origin has no pages, and that is unchanged then', async (t) => {
      const { origin, replica } = await pair(t, mode);
      truncateSync(origin, 0);
      assert.equal((await syncHere({ origin, replica })).outcomeName, 'committed');
      assert.deepEqual(column(replica, 'SELECT name FROM sqlite_schema'), []);
      assert.deepEqual(column(replica, 'PRAGMA integrity_check'), ['ok']);
      const before = sha256File(replica);
      assert.equal((await syncHere({ origin, replica })).outcomeName, 'unchanged');
      assert.equal(sha256File(replica), before);
    });

    test('a replica in auto_vacuum FULL is not vacuumed by its own commit', async (t) => {
      const { origin } = await pair(t, mode);
      change(origin, 'DELETE FROM attachment WHERE id % 2 = 0');
      const replica = join(tempDir(t), 'full.db');
      smallDatabase(replica, { seed: 3, autoVacuum: 'full', journalMode: mode, rows: 600 });
      await syncHere({ origin, replica, overwrite: true });
      assertReplicaOf(origin, replica);
    });
  });
}

describe('an existing replica', () => {
  test('a replica with a hot journal is recovered, then synced', async (t) => {
    const { folder, origin, replica } = await pair(t, 'delete', 2e6);
    const other = new OtherProcess(t);
    const writer = await other.open(replica);
    await writer.exec('PRAGMA cache_size = 5; BEGIN IMMEDIATE; UPDATE t SET x = zeroblob(8000)');
    await other.end();
    assert.ok(statSync(`${replica}-journal`).size > 0, 'the transaction was spilled into the file');
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
    assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
  });

  test('a replica with a hot journal and nothing else to change is left without a journal', async (t) => {
    const { origin, replica } = await pair(t, 'delete', 2e6);
    await syncHere({ origin, replica });
    const other = new OtherProcess(t);
    const writer = await other.open(replica);
    await writer.exec('PRAGMA cache_size = 5; BEGIN IMMEDIATE; UPDATE t SET x = zeroblob(8000)');
    await other.end();
    assert.equal((await syncHere({ origin, replica })).outcomeName, 'unchanged');
    assert.equal(existsSync(`${replica}-journal`), false);
    assertReplicaOf(origin, replica);
  });

  test('a replica of 0 bytes takes the origin without --overwrite', async (t) => {
    const { origin } = await pair(t, 'wal');
    const replica = join(tempDir(t), 'empty.db');
    writeFileSync(replica, '');
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
  });

  test('a replica that is a symbolic link is synced where the link points, if the user asks for that', async (t) => {
    const { folder, origin, replica } = await pair(t, 'wal');
    const elsewhere = join(tempDir(t), 'links');
    mkdirSync(elsewhere);

    symlinkSync(replica, join(elsewhere, 'link.db'));
    await syncHere({ origin, replica: join(elsewhere, 'link.db'), followLinks: true });
    assertReplicaOf(origin, replica);
    assert.ok(lstatSync(join(elsewhere, 'link.db')).isSymbolicLink());
    assert.deepEqual(names(elsewhere), ['link.db']);
    assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
  });

  test('a replica of the checksum VFS is refused, unchanged', async (t) => {
    const { folder, origin } = await pair(t, 'wal');
    const replica = join(folder, 'cksum.db');
    smallDatabase(replica, { reservedBytes: 8, journalMode: 'delete' });
    addPageChecksums(replica, 4096);
    const before = folderState(folder);
    const expected = { code: 'REPLICA_CHECKSUM_VFS', status: 4, says: /checksum VFS/ } as const;
    await assertRefused([origin, replica, '--overwrite'], expected);
    assert.deepEqual(folderState(folder), before);
  });

  test('a replica with 8 reserved bytes of another use is overwritten', async (t) => {
    const { folder, origin } = await pair(t, 'wal');
    const replica = join(folder, 'reserved.db');
    smallDatabase(replica, { reservedBytes: 8, journalMode: 'delete' });
    await syncHere({ origin, replica, overwrite: true });
    assertReplicaOf(origin, replica);
  });

  test('a replica gets the pages in the spool of a killed run from the origin, not from the spool', async (t) => {
    const { folder, origin, replica } = await pair(t, 'delete', 1e6);
    const hold = new Hold(t, 300_000);
    const command = new Command([origin, replica, '--compress', 'none'], { hold });
    await hold.reached(command);
    command.child.kill('SIGKILL');
    await command.done;
    copyFileSync(replica, join(tempDir(t), 'kept.db'));
    damage(join(folder, '.r.db.sqlsync-spool'), 0, Buffer.alloc(50_000, 1));
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
    assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
  });

  test('a replica that does not differ is opened for reading only, and no byte of it changes', async (t) => {
    const { folder, origin, replica } = await pair(t, 'delete');
    await syncHere({ origin, replica });
    const writer = await locked(t, replica, 'BEGIN IMMEDIATE');
    const { status, stdout } = await new Command([origin, replica, '--json', '--busy-timeout', '0']).done;
    await writer.call('close');
    assert.equal(status, 0, stdout);
    assert.equal(jsonLines(stdout).at(-1)?.['outcome'], 'unchanged');
    const before = folderState(folder);
    await syncHere({ origin, replica });
    assert.deepEqual(folderState(folder), before);
  });
});
