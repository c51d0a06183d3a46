import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import Database from 'better-sqlite3';
import { change, smallDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { NEEDS_ROOT, NOBODY, sqlsync } from './command.ts';
import type { Run } from './command.ts';

const OTHER = { uid: 65533, gid: 65533 } as const;

interface Owner {
  readonly uid: number;
  readonly gid: number;
}

interface Place {
  /** The application's folder, of NOBODY. */
  readonly app: string;
  readonly root: string;
  readonly run: (...args: string[]) => Promise<Run>;
}

function place(t: TestContext): Place {
  const root = tempDir(t);
  chmodSync(root, 0o755);
  const app = join(root, 'app');
  mkdirSync(app, { mode: 0o755 });
  chownSync(app, NOBODY.uid, NOBODY.gid);
  return {
    app,
    root,
    async run(...args) {
      const run = await sqlsync(args, { cwd: root });
      assert.equal(run.status, 0, `${args.join(' ')}: ${run.stdout}${run.stderr}`);
      return run;
    },
  };
}

function database(path: string, { uid, gid }: Owner, mode: number, pageSize = 4096): string {
  smallDatabase(path);
  if (pageSize !== 4096) {
    const opened = new Database(path);
    opened.pragma('journal_mode = DELETE');
    opened.pragma(`page_size = ${pageSize}`);
    opened.exec('VACUUM');
    opened.close();
  }
  chownSync(path, uid, gid);
  chmodSync(path, mode);
  return path;
}

function ownerAndMode(path: string): string {
  const { uid, gid, mode } = statSync(path);
  return `${uid}:${gid} ${(mode & 0o7777).toString(8)}`;
}

const NOBODYS_640 = `${NOBODY.uid}:${NOBODY.gid} 640`;

describe('the owner of a new file that root makes', { skip: NEEDS_ROOT }, () => {
  test("a restore by root to a database's old place gives the file back to its owner", async (t) => {
    const { app, run } = place(t);
    const path = database(join(app, 'app.db'), NOBODY, 0o640);
    await run('init', 'store');
    await run('backup', path, 'store', '--host', 'elsewhere');
    rmSync(path);
    const { stderr } = await run('restore', 'store', path);
    assert.doesNotMatch(stderr, /chown/);
    assert.equal(ownerAndMode(path), NOBODYS_640);
  });

  test("root's new replica in the folder of the origin’s owner is that user’s", async (t) => {
    const { app, run } = place(t);
    const path = database(join(app, 'app.db'), NOBODY, 0o640);
    await run(path, join(app, 'copy.db'));
    assert.equal(ownerAndMode(join(app, 'copy.db')), NOBODYS_640);
    assertReplicaOf(path, join(app, 'copy.db'));
    change(path, 'CREATE TABLE more AS SELECT randomblob(9000)');
    await run(path, join(app, 'copy.db'));
    assertReplicaOf(path, join(app, 'copy.db'));
    assert.equal(ownerAndMode(join(app, 'copy.db')), NOBODYS_640);
  });

  test('a file that root makes in a folder that the application’s group may write to is the application’s', async (t) => {
    const { app, run } = place(t);
    chownSync(app, 0, NOBODY.gid);
    chmodSync(app, 0o770);
    const path = database(join(app, 'app.db'), NOBODY, 0o660);
    await run('init', 'store');
    await run('backup', path, 'store');
    rmSync(path);
    await run('restore', 'store', path);
    const { uid, gid } = statSync(path);
    assert.deepEqual([uid, gid], [NOBODY.uid, NOBODY.gid]);
    // Others of that group could have prepared a replica there, so such a replica has to stay root's for the
    // next run.
    await run(path, join(app, 'copy.db'));
    change(path, 'CREATE TABLE more AS SELECT randomblob(9000)');
    await run(path, join(app, 'copy.db'));
    assertReplicaOf(path, join(app, 'copy.db'));
    assert.equal(statSync(join(app, 'copy.db')).gid, NOBODY.gid);
  });

  test('a file of root’s for a group keeps the group', async (t) => {
    const { app, run } = place(t);
    chownSync(app, 0, NOBODY.gid);
    const path = database(join(app, 'app.db'), { uid: 0, gid: NOBODY.gid }, 0o640);
    await run(path, join(app, 'copy.db'));
    assert.equal(ownerAndMode(join(app, 'copy.db')), `0:${NOBODY.gid} 640`);
  });

  for (const [title, owner] of [
    ['root', { uid: 0, gid: 0 }],
    ['a third user', OTHER],
  ] as const) {
    test(`root gives the content of ${title}’s database to nobody else, and says the command that would`, async (t) => {
      const { app, root, run } = place(t);
      const path = database(join(root, 'secret.db'), owner, 0o600);
      await run('init', 'store');
      await run('backup', path, 'store');
      const restored = await run('restore', 'store', join(app, 'restored.db'));
      const copied = await run(path, join(app, 'copied.db'));
      for (const [name, { stderr }] of [
        ['restored.db', restored],
        ['copied.db', copied],
      ] as const) {
        const file = join(app, name);
        assert.equal(ownerAndMode(file), '0:0 600');
        assert.ok(stderr.includes(`${file} belongs to the user 0 (mode 600)`), stderr);
        assert.ok(stderr.includes(`\`chown ${NOBODY.uid}:${NOBODY.gid} '${file}'\``), stderr);
      }
    });
  }

  test('root never sets bits that change whom a program runs as', async (t) => {
    const { app, run } = place(t);
    const path = database(join(app, 'app.db'), NOBODY, 0o6755);
    await run('init', 'store');
    await run('backup', path, 'store');
    await run('restore', 'store', join(app, 'restored.db'));
    await run(path, join(app, 'copied.db'));
    for (const name of ['restored.db', 'copied.db'])
      assert.equal(ownerAndMode(join(app, name)), `${NOBODY.uid}:${NOBODY.gid} 644`);
  });

  test('an existing database keeps its owner and mode, also if --replace replaces it whole', async (t) => {
    const { app, root, run } = place(t);
    const origin = database(join(root, 'origin.db'), { uid: 0, gid: 0 }, 0o600);
    const path = database(join(app, 'app.db'), NOBODY, 0o640, 1024);
    await run(origin, path, '--overwrite', '--replace');
    assertReplicaOf(origin, path);
    assert.equal(ownerAndMode(path), NOBODYS_640);
    await run('init', 'store');
    await run('backup', origin, 'store');
    const other = database(join(app, 'other.db'), NOBODY, 0o640, 1024);
    await run('restore', 'store', other, '--overwrite', '--replace');
    assert.equal(ownerAndMode(other), NOBODYS_640);
  });
});
