import assert from 'node:assert/strict';
import { cpSync, existsSync, linkSync } from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { openDatabase } from '../../src/index.ts';
import { networkFileSystem } from '../../src/files/mounts.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { mountedBySshfs, NO_SSHFS } from '../support/sshfs.ts';

const LINUX = process.platform === 'linux' ? false : 'NOT TESTED: only Linux lists locks and mounts';

describe('the place of a database that openDatabase() opens', { skip: LINUX }, () => {
  test(
    'openDatabase() refuses a network file system, unless that is allowed',
    { skip: NO_SSHFS },
    async (t) => {
      const folder = tempDir(t);
      const [disk, mnt] = [join(folder), join(folder, 'mnt')];
      smallDatabase(join(folder, 'app.db'), { rows: 10, journalMode: 'delete' });
      await mountedBySshfs(disk, mnt, async () => {
        assert.equal(networkFileSystem(join(mnt, 'app.db')), 'fuse.sshfs');
        for (const name of ['app.db', 'new.db']) {
          await assert.rejects(openDatabase(join(mnt, name)), {
            code: 'DATABASE_UNUSABLE',
            message: /on a network file system \(fuse\.sshfs\)/,
            hint: /allowNetworkFileSystem/,
          });
        }
        assert.ok(!existsSync(join(folder, 'new.db')));
        assert.ok(!existsSync(join(folder, 'app.db-wal')));
        const db = await openDatabase(join(mnt, 'app.db'), {
          allowNetworkFileSystem: true,
          admission: 'none',
        });
        assert.deepEqual(await db.read.get('SELECT count(*) AS n FROM item'), { n: 10 });
        await db.close();
      });
    },
  );

  test('openDatabase() takes a local disk for no network file system', (t) => {
    assert.equal(networkFileSystem(tempDir(t)), undefined);
  });

  test('openDatabase() refuses a database that another program uses by another name', async (t) => {
    const folder = tempDir(t);
    const [app, alias] = [join(folder, 'app.db'), join(folder, 'alias.db')];
    smallDatabase(app, { rows: 10 });
    linkSync(app, alias);
    const application = await new OtherProcess(t).open(app);
    await application.exec('UPDATE item SET amount = 1');
    const refused = { code: 'DATABASE_UNUSABLE', hint: /Open it by/ };
    await assert.rejects(openDatabase(alias, { admission: 'none' }), refused);
    await (await openDatabase(app, { admission: 'none' })).close();
  });

  test('openDatabase() refuses a database that a killed program used by another name in its folder', async (t) => {
    const folder = tempDir(t);
    const [app, alias] = [join(folder, 'app.db'), join(folder, 'alias.db')];
    smallDatabase(app, { rows: 10 });
    linkSync(app, alias);
    const other = new OtherProcess(t);
    await (await other.open(app)).exec('UPDATE item SET amount = 1');
    await other.end();
    await assert.rejects(openDatabase(alias, { admission: 'none' }), {
      code: 'DATABASE_UNUSABLE',
      message: new RegExp(`${app}-wal holds changes`),
      hint: new RegExp(`Open it by ${app}`),
    });
  });

  test('openDatabase() refuses a database that killed programs used by this name and by another', async (t) => {
    const folder = tempDir(t);
    const [app, alias] = [join(folder, 'app.db'), join(folder, 'alias.db')];
    smallDatabase(app, { rows: 10 });
    linkSync(app, alias);
    const other = new OtherProcess(t);
    await (await other.open(app)).exec('UPDATE item SET amount = 1');
    await other.end();
    cpSync(`${app}-wal`, `${alias}-wal`);
    const refused = { code: 'DATABASE_UNUSABLE', message: new RegExp(`${app}-wal holds changes`) };
    await assert.rejects(openDatabase(alias, { admission: 'none' }), refused);
  });

  test('openDatabase() opens a database that has several names and is idle, with a warning', async (t) => {
    const folder = tempDir(t);
    const app = join(folder, 'app.db');
    smallDatabase(app, { rows: 10 });
    change(app, 'PRAGMA wal_checkpoint(TRUNCATE)');
    linkSync(app, join(folder, 'alias.db'));
    const warned = once(process, 'warning');
    const db = await openDatabase(app, { admission: 'none' });
    const [warning] = (await warned) as [Error & { code?: string }];
    await db.close();
    assert.equal(warning.code, 'SQLSYNC_SEVERAL_NAMES');
  });
});
