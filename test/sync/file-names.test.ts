import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, linkSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { change, column, smallDatabase } from '../pages/databases.ts';
import { assertReplicaOf, sha256File, tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { syncHere } from '../support/sync.ts';
import { assertRefused, NEEDS_ROOT, sqlsync } from '../cli/command.ts';

const LINUX = process.platform === 'linux' ? false : 'NOT TESTED: only Linux lists locks and mounts';

interface Scene {
  readonly folder: string;
  /** The name by which the application uses its database, and another name of that file. */
  readonly app: string;
  readonly alias: string;
  readonly replica: string;
}

function scene(t: TestContext, journalMode: 'wal' | 'delete' = 'wal'): Scene {
  const folder = tempDir(t);
  const app = join(folder, 'app.db');
  smallDatabase(app, { rows: 20, journalMode });
  change(app, 'CREATE TABLE news (x)');
  const alias = join(folder, 'alias.db');
  linkSync(app, alias);
  return { folder, app, alias, replica: join(folder, 'copy.db') };
}

const COMMIT = `INSERT INTO news VALUES ('committed')`;

/** A file over which another is mounted, so that the folder shows only the latter. */
async function mountedAlone(file: string, point: string, work: () => Promise<void>): Promise<void> {
  writeFileSync(point, '');
  execFileSync('mount', ['--bind', file, point]);
  try {
    await work();
  } finally {
    execFileSync('umount', [point]);
  }
}

describe('an origin whose file has another name', { skip: LINUX }, () => {
  for (const leftover of [false, true]) {
    const where = leftover ? ', also beside files that a reader left' : '';
    test(`an origin is refused while a program uses another name of its file${where}`, async (t) => {
      const { app, alias, replica, folder } = scene(t);
      if (leftover) await syncHere({ origin: alias, replica });
      const other = new OtherProcess(t);
      const application = await other.open(app);
      await application.exec(COMMIT);
      for (const args of [
        [alias, join(folder, 'new.db')],
        ['-n', alias, replica],
        ['verify', alias, app],
        ['backup', alias, join(folder, 'store')],
      ]) {
        if (args[0] === 'backup') await sqlsync(['init', join(folder, 'store')]);
        // In a comparison the agent of the other side uses the other name as well.
        const says = new RegExp(`process (\\d+, )*${other.pid}(, \\d+)* by another name`);
        await assertRefused(args, { code: 'ORIGIN_ALIAS', status: 3, says });
      }
      // By the application's own name the commit is visible.
      const done = await syncHere({ origin: app, replica, overwrite: true });
      assert.equal(done.outcomeName, 'committed');
      assert.deepEqual(column(replica, 'SELECT x FROM news'), ['committed']);
    });
  }

  for (const [journal, mode] of [
    ['-wal', 'wal'],
    ['-journal', 'delete'],
  ] as const) {
    test(`an origin is refused if a killed program left its ${journal} beside another name of the file`, async (t) => {
      const { app, alias, replica } = scene(t, mode);
      await leaveJournal(t, app, mode === 'delete');
      await assert.rejects(syncHere({ origin: alias, replica }), {
        code: 'ORIGIN_ALIAS',
        message: new RegExp(`${app}${journal} holds changes`),
        hint: new RegExp(`Name ${app} instead`),
      });
    });
  }

  /** A program that writes by `name`, and is killed before its changes are in the file. */
  async function leaveJournal(t: TestContext, name: string, isRollback: boolean): Promise<void> {
    const process = new OtherProcess(t);
    const application = await process.open(name);
    if (isRollback) await application.exec('PRAGMA cache_size = 1; BEGIN');
    await application.exec(`INSERT INTO news SELECT randomblob(100000) FROM (VALUES (1), (2), (3))`);
    await process.end();
  }

  test('an origin is refused if both names of its file have a -wal of their own', async (t) => {
    const { app, alias, replica } = scene(t);
    await leaveJournal(t, app, false);
    cpSync(`${app}-wal`, `${alias}-wal`);
    for (const [origin, other] of [
      [app, alias],
      [alias, app],
    ] as const) {
      await assert.rejects(syncHere({ origin, replica }), {
        code: 'ORIGIN_ALIAS',
        message: new RegExp(`${other}-wal holds changes`),
        hint: /Both names have changes of their own/,
      });
    }
  });

  describe('and a journal with all but its header kept by journal_mode PERSIST', () => {
    /** A journal beside `name`; the file itself is in rollback mode. */
    async function keepJournal(t: TestContext, name: string): Promise<void> {
      const process = new OtherProcess(t);
      const application = await process.open(name);
      await application.exec(`PRAGMA journal_mode = PERSIST; ${COMMIT}`);
      await process.end();
      assert.ok(statSync(`${name}-journal`).size > 0);
    }

    test('a kept journal beside this name hides no hot journal beside the other', async (t) => {
      const { app, alias, replica } = scene(t, 'delete');
      await keepJournal(t, alias);
      await leaveJournal(t, app, true);
      await assert.rejects(syncHere({ origin: alias, replica }), {
        code: 'ORIGIN_ALIAS',
        message: new RegExp(`${app}-journal holds changes`),
        hint: new RegExp(`Name ${app} instead`),
      });
    });

    test('a kept journal beside this name hides no name in another folder', async (t) => {
      const { app, folder, replica } = scene(t, 'delete');
      linkSync(app, join(tempDir(t), 'x.db'));
      rmSync(join(folder, 'alias.db'));
      await keepJournal(t, app);
      const warnings: string[] = [];
      await syncHere({ origin: app, replica, onWarning: (text) => warnings.push(text) });
      assert.match(warnings.join('\n'), /has 2 names/);
    });

    test('a kept journal beside the other name holds no changes', async (t) => {
      const { app, alias, replica } = scene(t, 'delete');
      await keepJournal(t, app);
      await syncHere({ origin: alias, replica });
      assert.deepEqual(column(replica, 'SELECT x FROM news'), ['committed']);
    });
  });

  test('an origin with another name in another folder brings a warning, and is copied', async (t) => {
    const { app, folder, replica } = scene(t);
    const elsewhere = join(tempDir(t), 'x.db');
    linkSync(app, elsewhere);
    rmSync(join(folder, 'alias.db'));
    const warnings: string[] = [];
    await syncHere({ origin: elsewhere, replica, onWarning: (text) => warnings.push(text) });
    assert.match(warnings.join('\n'), /has 2 names \(hard links\)\. Changes .* may be missing/);
    assertReplicaOf(app, replica);
  });

  test('an origin is copied without a warning by the name that a program uses', async (t) => {
    const { app, replica } = scene(t);
    const application = await new OtherProcess(t).open(app);
    await application.exec(COMMIT);
    const warnings: string[] = [];
    await syncHere({ origin: app, replica, onWarning: (text) => warnings.push(text) });
    assert.deepEqual(warnings, []);
    assert.deepEqual(column(replica, 'SELECT x FROM news'), ['committed']);
  });

  test('an origin is no snapshot once a program checkpoints by another name of the file meanwhile', async (t) => {
    const { app, alias, replica } = scene(t);
    const application = new OtherProcess(t);
    let written = false;
    const run = syncHere({
      origin: alias,
      replica,
      async onFrame({ name }) {
        if (name !== 'snapshot' || written) return;
        written = true;
        const db = await application.open(app);
        await db.exec(`${COMMIT}; PRAGMA wal_checkpoint(TRUNCATE)`);
      },
    });
    await assert.rejects(run, { code: 'ORIGIN_CHANGED', message: /through another name of the file/ });
  });

  test('an origin is refused if its -wal was removed while a program has it open', async (t) => {
    const { app, alias, replica } = scene(t);
    rmSync(alias);
    const application = await new OtherProcess(t).open(app);
    await application.exec(COMMIT);
    rmSync(`${app}-wal`);
    rmSync(`${app}-shm`);
    await assert.rejects(syncHere({ origin: app, replica }), { code: 'ORIGIN_ALIAS' });
  });

  test(
    'an origin mounted as a single file is refused in WAL mode, and brings a warning in other modes',
    { skip: NEEDS_ROOT },
    async (t) => {
      const { app, alias, folder, replica } = scene(t);
      rmSync(alias);
      const point = join(tempDir(t), 'in a container.db');
      const warnings: string[] = [];
      await mountedAlone(app, point, async () => {
        await assert.rejects(syncHere({ origin: point, replica }), {
          code: 'ORIGIN_ALIAS',
          message: /mounted as a single file/,
          hint: /Mount the folder/,
        });
        change(app, 'PRAGMA journal_mode = DELETE');
        await syncHere({ origin: point, replica, onWarning: (text) => warnings.push(text) });
      });
      assert.match(warnings.join('\n'), /is mounted as a single file/);
      assertReplicaOf(join(folder, 'app.db'), replica);
    },
  );
});

describe('a replica whose file has another name', () => {
  test('a replica whose file has another name is refused, and the other name keeps its content', async (t) => {
    const { app, replica, folder } = scene(t);
    await syncHere({ origin: app, replica });
    const kept = join(folder, 'kept.db');
    linkSync(replica, kept);
    const before = sha256File(kept);
    change(app, COMMIT);
    await sqlsync(['init', join(folder, 'store')]);
    await sqlsync(['backup', app, join(folder, 'store')]);
    for (const args of [
      [app, replica],
      ['-n', app, replica],
      ['--overwrite', app, replica],
      ['restore', `${join(folder, 'store')}#latest`, replica, '--overwrite'],
    ]) {
      await assertRefused(args, {
        code: 'REPLICA_LINK',
        status: 6,
        says: /has 2 names/,
        hint: /--follow-links/,
      });
    }
    assert.equal(sha256File(kept), before);
  });

  test('a replica with two names of another page size is not replaced, and an empty origin does not empty it', async (t) => {
    const { app, replica, folder } = scene(t);
    await syncHere({ origin: app, replica });
    linkSync(replica, join(folder, 'kept.db'));
    const other = join(folder, 'other.db');
    smallDatabase(other, { rows: 20, pageSize: 8192 });
    const empty = join(folder, 'empty.db');
    writeFileSync(empty, '');
    for (const origin of [other, empty]) {
      await assert.rejects(syncHere({ origin, replica, replace: true, overwrite: true }), {
        code: 'REPLICA_LINK',
      });
    }
    assert.deepEqual(column(join(folder, 'kept.db'), 'SELECT count(*) FROM news'), [0]);
  });

  test('--follow-links changes a replica under all its names', async (t) => {
    const { app, replica, folder } = scene(t);
    await syncHere({ origin: app, replica });
    linkSync(replica, join(folder, 'kept.db'));
    change(app, COMMIT);
    await syncHere({ origin: app, replica, followLinks: true });
    assertReplicaOf(app, join(folder, 'kept.db'));
  });

  test('a replica that got another name during the sync is not committed', async (t) => {
    const { app, replica, folder } = scene(t);
    await syncHere({ origin: app, replica });
    const before = sha256File(replica);
    change(app, COMMIT);
    const run = syncHere({
      origin: app,
      replica,
      onFrame({ name }) {
        if (name === 'root') linkSync(replica, join(folder, 'kept.db'));
      },
    });
    await assert.rejects(run, { code: 'REPLICA_LINK' });
    assert.equal(sha256File(join(folder, 'kept.db')), before);
  });

  test("a part file that a killed run left as the replica's other name does not count as one", async (t) => {
    const { app, replica, folder } = scene(t);
    await syncHere({ origin: app, replica });
    linkSync(replica, join(folder, '.copy.db.sqlsync-part'));
    change(app, COMMIT);
    await syncHere({ origin: app, replica });
    assertReplicaOf(app, replica);
  });

  test('a replica with two names can get a file of its own, as the hint says, and is a replica still', async (t) => {
    const { app, replica, folder } = scene(t);
    await syncHere({ origin: app, replica });
    mkdirSync(join(folder, 'kept'));
    linkSync(replica, join(folder, 'kept', 'monday.db'));
    execFileSync('sh', ['-c', 'cp -p copy.db new.db && mv new.db copy.db'], { cwd: folder });
    change(app, COMMIT);
    await syncHere({ origin: app, replica, overwrite: true });
    assertReplicaOf(app, replica);
    assert.deepEqual(column(join(folder, 'kept', 'monday.db'), 'SELECT count(*) FROM news'), [0]);
  });

  test(
    'a replica is refused because it is mounted as a single file',
    { skip: LINUX || NEEDS_ROOT },
    async (t) => {
      const { app, alias, replica, folder } = scene(t);
      rmSync(alias);
      await syncHere({ origin: app, replica });
      const point = join(folder, 'mounted.db');
      cpSync(join(folder, '.copy.db.sqlsync'), join(folder, '.mounted.db.sqlsync'));
      change(app, COMMIT);
      await mountedAlone(replica, point, () =>
        assert.rejects(syncHere({ origin: app, replica: point }), {
          code: 'REPLICA_LINK',
          message: /mounted as a single file/,
        }),
      );
    },
  );
});
