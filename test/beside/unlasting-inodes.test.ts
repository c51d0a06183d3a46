import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { NO_SSHFS, remountedBySshfs } from '../support/sshfs.ts';
import { assertRefused, sqlsync } from '../cli/command.ts';
import { change, smallDatabase } from '../pages/databases.ts';

const NOT_MARKED = { code: 'REPLICA_NOT_MARKED', status: 6, says: /not made by sqlsync/ } as const;

interface Scene {
  readonly folder: string;
  readonly app: string;
}

function scene(t: TestContext): Scene {
  const folder = tempDir(t);
  const app = join(folder, 'app.db');
  smallDatabase(app, { rows: 20 });
  return { folder, app };
}

async function copy(app: string, replica: string): Promise<void> {
  const { status, stderr } = await sqlsync(['-q', app, replica]);
  assert.equal(stderr, '');
  assert.equal(status, 0);
}

describe('the mark of a replica on a file system without lasting inodes', { skip: NO_SSHFS }, () => {
  test('the mark of a replica holds in every later run without lasting inodes, also after another mount', async (t) => {
    const { folder, app } = scene(t);
    const step = async (mnt: string): Promise<void> => {
      // New files take the numbers that others had before the mount.
      writeFileSync(join(mnt, `other ${Math.random()}`), '');
      await copy(app, join(mnt, 'copy.db'));
      change(app, 'UPDATE item SET amount = amount + 1');
      await copy(app, join(mnt, 'copy.db'));
      await copy(app, join(mnt, 'copy.db'));
      change(app, 'DELETE FROM item WHERE id % 7 = 0');
    };
    await remountedBySshfs(folder, [step, step, (mnt) => copy(app, join(mnt, 'copy.db'))]);
    assertReplicaOf(app, join(folder, 'disk', 'copy.db'));
  });

  test('a mark without a lasting inode does not count for another database of the same name', async (t) => {
    const { folder, app } = scene(t);
    const other = join(folder, 'other.db');
    copyFileSync(app, other);
    change(other, 'UPDATE item SET amount = -1 WHERE id = 3');
    await remountedBySshfs(folder, [
      (mnt) => copy(app, join(mnt, 'copy.db')),
      async (mnt) => {
        const replica = join(mnt, 'copy.db');
        rmSync(replica);
        copyFileSync(other, replica);
        const before = readFileSync(replica);
        await assertRefused([app, replica], NOT_MARKED);
        assert.deepEqual(readFileSync(replica), before);
      },
      async (mnt) => {
        await assertRefused([app, join(mnt, 'copy.db')], NOT_MARKED);
        await assertRefused([app, join(mnt, 'copy.db'), '-n'], NOT_MARKED);
      },
    ]);
  });

  test('a mark without a lasting inode does not count for what a program made of the replica', async (t) => {
    const { folder, app } = scene(t);
    const replica = join(folder, 'disk', 'copy.db');
    await remountedBySshfs(folder, [(mnt) => copy(app, join(mnt, 'copy.db'))]);
    // It changes a few bytes of a row, late enough to be no rounding of the time.
    change(replica, 'UPDATE item SET amount = -1 WHERE id = 3');
    utimesSync(replica, new Date(), new Date(Date.now() + 60_000));
    await remountedBySshfs(folder, [(mnt) => assertRefused([app, join(mnt, 'copy.db')], NOT_MARKED)]);
  });

  test('a mark without a lasting inode goes with the replica to another name, as long as both go', async (t) => {
    const { folder, app } = scene(t);
    await remountedBySshfs(folder, [
      (mnt) => copy(app, join(mnt, 'copy.db')),
      async (mnt) => {
        renameSync(join(mnt, 'copy.db'), join(mnt, 'moved.db'));
        await assertRefused([app, join(mnt, 'moved.db')], NOT_MARKED);
        renameSync(join(mnt, '.copy.db.sqlsync'), join(mnt, '.moved.db.sqlsync'));
        await copy(app, join(mnt, 'moved.db'));
      },
    ]);
  });
});

test('a mark on a file system with lasting inodes notes no content', async (t) => {
  const { folder, app } = scene(t);
  await copy(app, join(folder, 'copy.db'));
  const mark = JSON.parse(readFileSync(join(folder, '.copy.db.sqlsync'), 'utf8')) as object;
  assert.ok(!('content' in mark));
});
