import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  existsSync,
  linkSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import {
  Command,
  Hold,
  NEEDS_ROOT,
  NOBODY,
  PROGRAM,
  assertRefused,
  folderState,
  sqlsync,
  summaryOf,
  until,
} from '../cli/command.ts';
import { assertReplicaOf, sha256File, tempDir } from '../support/compare.ts';
import { syncHere } from '../support/sync.ts';
import { change, column, largeDatabase, names, smallDatabase } from '../pages/databases.ts';

interface Place {
  readonly folder: string;
  readonly origin: string;
  readonly replica: string;
  readonly part: string;
}

/** A folder with an origin, and an empty one for its replica. */
function place(t: TestContext, make: (path: string) => void = smallDatabase): Place {
  const origin = join(tempDir(t), 'origin.db');
  make(origin);
  const folder = tempDir(t);
  return { folder, origin, replica: join(folder, 'r.db'), part: join(folder, '.r.db.sqlsync-part') };
}

const large = (path: string): void => largeDatabase(path, 4e6);

/** Starts a sync that stops when its agent has sent 2.5 MB of the 4 MB. */
async function startAndHold(t: TestContext, { origin, replica }: Place): Promise<[Command, Hold]> {
  const hold = new Hold(t, 2.5e6);
  const command = new Command([origin, replica, '--compress', 'none'], { hold });
  t.after(() => command.child.kill('SIGKILL'));
  await hold.reached(command);
  return [command, hold];
}

/** Paths of the files that a command has open. */
function openFiles({ child: { pid } }: Command): string[] {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).map((name) => {
    try {
      return readlinkSync(join(folder, name));
    } catch {
      return '';
    }
  });
}

describe('a leftover beside the name of a new replica', () => {
  for (const suffix of ['-wal', '-journal']) {
    test(`a leftover ${suffix} with content is refused and named, and nothing is made`, async (t) => {
      const { folder, origin, replica } = place(t);
      writeFileSync(replica + suffix, 'the only copy of something');
      const before = folderState(folder);
      const says = new RegExp(`r\\.db${suffix} does, with 26 bytes`);
      await assertRefused([origin, replica], { code: 'REPLICA_LEFTOVER', status: 4, says });
      assert.deepEqual(folderState(folder), before);
      assert.equal(readFileSync(replica + suffix, 'utf8'), 'the only copy of something');
    });

    test(`a ${suffix} that appears while the replica is made is refused too`, async (t) => {
      const here = place(t, large);
      const [command, hold] = await startAndHold(t, here);
      writeFileSync(here.replica + suffix, 'the only copy of something');
      hold.release();
      const { status, stderr } = await command.done;
      assert.equal(status, 4, stderr);
      assert.match(stderr, /REPLICA_LEFTOVER/);
      assert.equal(existsSync(here.replica), false);
      assert.equal(readFileSync(here.replica + suffix, 'utf8'), 'the only copy of something');
      rmSync(here.replica + suffix);
      const summary = await summaryOf([here.origin, here.replica]);
      assert.equal(summary['resumed'], true);
      assertReplicaOf(here.origin, here.replica);
    });
  }

  test('a leftover without content is no obstacle', async (t) => {
    const { origin, replica } = place(t);
    writeFileSync(`${replica}-wal`, '');
    writeFileSync(`${replica}-journal`, '');
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
  });
});

describe('the part file', () => {
  test('the part file of an interrupted run is where the next run goes on', async (t) => {
    const here = place(t, large);
    const [command] = await startAndHold(t, here);
    await until(() => statSync(here.part).size > 0, command);
    command.child.kill('SIGKILL');
    assert.equal((await command.done).signal, 'SIGKILL');
    assert.deepEqual(
      names(here.folder).filter((name) => !name.includes('-lock')),
      ['.r.db.sqlsync-part'],
    );
    const summary = await summaryOf([here.origin, here.replica]);
    assert.equal(summary['resumed'], true);
    assert.equal(summary['created'], true);
    assert.ok(
      (summary['pagesTransferred'] as number) < (summary['pageCount'] as number),
      JSON.stringify(summary),
    );
    assertReplicaOf(here.origin, here.replica);
    assert.deepEqual(names(here.folder), ['.r.db.sqlsync', 'r.db']);
  });

  test('a part file that was finished but not published becomes the replica', async (t) => {
    const { origin, replica, part, folder } = place(t);
    copyFileSync(origin, part);
    const summary = await summaryOf([origin, replica]);
    assert.equal(summary['outcome'], 'committed');
    assert.equal(summary['resumed'], true);
    assert.equal(summary['pagesTransferred'], 0);
    assertReplicaOf(origin, replica);
    assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
  });

  test('a part file of an older or a longer state is brought up to date', async (t) => {
    const { origin, replica, part } = place(t);
    copyFileSync(origin, part);
    change(origin, 'DELETE FROM attachment; UPDATE item SET amount = -1 WHERE id % 5 = 0; VACUUM');
    assert.ok(statSync(origin).size < statSync(part).size);
    const summary = await summaryOf([origin, replica]);
    assert.equal(summary['resumed'], true);
    assertReplicaOf(origin, replica);
    assert.equal(statSync(replica).size, statSync(origin).size);
  });

  test('a part file of another content altogether does no harm', async (t) => {
    const { origin, replica, part } = place(t);
    writeFileSync(part, Buffer.alloc(100_001, 'rubbish'));
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
  });

  test('a part file with a second hard link is not used, and its content stays', async (t) => {
    const { folder, origin, replica, part } = place(t);
    copyFileSync(origin, part);
    change(part, 'UPDATE item SET amount = -1');
    const other = join(folder, 'other-name');
    linkSync(part, other);
    const before = sha256File(other);
    const summary = await summaryOf([origin, replica]);
    assert.equal(summary['resumed'], false);
    assert.equal(summary['pagesTransferred'], summary['pageCount']);
    assertReplicaOf(origin, replica);
    assert.equal(sha256File(other), before);
    assert.equal(statSync(other).nlink, 1);
  });

  test(
    'a part file of another user is not used: its owner could go on writing it',
    { skip: NEEDS_ROOT },
    async (t) => {
      const { origin, replica, part } = place(t);
      writeFileSync(part, Buffer.alloc(5 * 4096, 1));
      chownSync(part, NOBODY.uid, NOBODY.gid);
      const foreign = openSync(part, 'r+');
      t.after(() => closeSync(foreign));
      const summary = await summaryOf([origin, replica]);
      assert.equal(summary['resumed'], false);
      writeSync(foreign, 'changed after the check');
      assertReplicaOf(origin, replica);
      assert.equal(statSync(replica).uid, process.geteuid?.());
    },
  );

  test('a part file has one writer at a time: a second sync of the same new replica is BUSY', async (t) => {
    const here = place(t, large);
    const [command, hold] = await startAndHold(t, here);
    const second = { code: 'BUSY', status: 5, says: /Another sqlsync is just making/ } as const;
    await assertRefused([here.origin, here.replica, '--busy-timeout', '0.2'], second);
    hold.release();
    const { status, stderr } = await command.done;
    assert.equal(status, 0, stderr);
    assertReplicaOf(here.origin, here.replica);
  });

  test('a second sync waits for the part file, and then brings the replica up to date', async (t) => {
    const here = place(t, large);
    const [command, hold] = await startAndHold(t, here);
    change(here.origin, 'CREATE TABLE later (x)');
    const second = new Command([here.origin, here.replica, '--json', '--busy-timeout', '120']);
    t.after(() => second.child.kill('SIGKILL'));
    await until(() => openFiles(second).some((name) => name.endsWith('.sqlsync-lock')), second);
    hold.release();
    const ended = await command.done;
    assert.equal(ended.status, 0, ended.stderr);
    const { status, stdout, stderr } = await second.done;
    assert.equal(status, 0, stdout + stderr);
    assert.match(stdout, /"outcome":"committed"/);
    assertReplicaOf(here.origin, here.replica);
    assert.deepEqual(names(here.folder), ['.r.db.sqlsync', 'r.db']);
  });

  test('the part file is built once if many syncs of it start together, and all of them succeed', async (t) => {
    const { folder, origin, replica } = place(t);
    const runs = await Promise.all([1, 2, 3].map(() => sqlsync([origin, replica, '--busy-timeout', '120'])));
    for (const { status, stderr } of runs) assert.equal(status, 0, stderr);
    assertReplicaOf(origin, replica);
    assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
  });

  test('a part file and its lock file with content of another program are replaced', async (t) => {
    const { folder, origin, replica, part } = place(t);
    writeFileSync(part, 'garbage');
    writeFileSync(join(folder, '.r.db.sqlsync-lock'), 'pid 4711\n');
    await summaryOf([origin, replica]);
    assertReplicaOf(origin, replica);
    assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
  });

  for (const suffix of ['-lock', '-part']) {
    test(`a ${suffix} that another user left is named with its owner`, { skip: NEEDS_ROOT }, async (t) => {
      const { folder, origin, replica } = place(t);
      chmodSync(dirname(origin), 0o755);
      chmodSync(origin, 0o644);
      // As in /tmp: this user can remove nothing that others made there.
      chmodSync(folder, 0o1777);
      const left = join(folder, `.r.db.sqlsync${suffix}`);
      writeFileSync(left, '', { mode: 0o644 });
      const says = new RegExp(`\\${suffix} belongs to root \\(uid 0\\)`);
      const expected = { code: 'REPLICA_LEFTOVER', status: 4, says, hint: /rm .*sqlsync/ } as const;
      await assertRefused([origin, replica, '--reader', 'dbpage'], expected, { user: NOBODY });
      assert.equal(existsSync(replica), false);
    });
  }
});

describe('the name of a new replica', () => {
  test('the name of a new replica is taken only when the replica is complete, and nothing else is left then', async (t) => {
    const here = place(t, large);
    const [command, hold] = await startAndHold(t, here);
    assert.equal(existsSync(here.replica), false);
    assert.equal(statSync(here.part).mode & 0o777, 0o600, 'nobody can open it unfinished');
    hold.release();
    const { status, stderr } = await command.done;
    assert.equal(status, 0, stderr);
    assertReplicaOf(here.origin, here.replica);
    assert.deepEqual(names(here.folder), ['.r.db.sqlsync', 'r.db']);
  });

  test('the name of a new replica that another program takes meanwhile stays that program’s, unmarked', async (t) => {
    const here = place(t, large);
    const [command, hold] = await startAndHold(t, here);
    smallDatabase(here.replica, { seed: 7, journalMode: 'delete' });
    const before = sha256File(here.replica);
    hold.release();
    const { status, stderr } = await command.done;
    assert.equal(status, 4, stderr);
    assert.match(stderr, /REPLICA_EXISTS/);
    const next = { code: 'REPLICA_NOT_MARKED', status: 6, says: /not made by sqlsync/ } as const;
    await assertRefused([here.origin, here.replica], next);
    assert.equal(sha256File(here.replica), before);
    assert.deepEqual(names(here.folder), ['r.db']);
  });

  test('a new replica takes its name without replacing anything on a file system without hard links', async (t) => {
    const { folder, origin, replica } = place(t);
    const strace = ['-f', '-qq', '-o', '/dev/null', '-e', 'trace=link,linkat'];
    const inject = ['-e', 'inject=link,linkat:error=EPERM'];
    const { status, stderr, error } = spawnSync(
      'strace',
      [...strace, ...inject, process.execPath, PROGRAM, origin, replica],
      { encoding: 'utf8' },
    );
    assert.equal(error, undefined, 'strace is needed to take hard links away');
    assert.equal(status, 0, stderr);
    assertReplicaOf(origin, replica);
    assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
  });

  for (const [originMode, umask, expected] of [
    [0o640, 0o022, 0o640],
    [0o666, 0o027, 0o640],
    [0o777, 0o022, 0o644],
    [0o600, 0o000, 0o600],
    [0o444, 0o022, 0o644],
    [0o000, 0o777, 0o600],
  ] as const) {
    const [from, less, to] = [originMode, umask, expected].map((mode) => mode.toString(8).padStart(3, '0'));
    test(`a new replica has the bits of its origin less the umask, and its owner may write it: ${from}, ${less} → ${to}`, async (t) => {
      const { origin, replica } = place(t);
      chmodSync(origin, originMode);
      const own = process.umask(umask);
      const started = summaryOf([origin, replica]);
      process.umask(own);
      await started;
      assert.equal((statSync(replica).mode & 0o7777).toString(8), expected.toString(8));
    });
  }

  test('a new replica may be one of an origin without pages', async (t) => {
    const { origin, replica } = place(t, (path) => writeFileSync(path, ''));
    const summary = await summaryOf([origin, replica]);
    assert.equal(summary['created'], true);
    assert.equal(statSync(replica).size, 0);
    assert.deepEqual(column(replica, 'SELECT name FROM sqlite_schema'), []);
  });
});
