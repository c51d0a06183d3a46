import assert from 'node:assert/strict';
import { mkdirSync, renameSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { openDatabase } from '../../src/pool/database.ts';
import type { Database } from '../../src/pool/types.ts';
import { tempDir } from '../support/compare.ts';

const LIMIT_BYTES = 256 * 1024;

/** Names that lead to `real/app.db` in a folder. */
const NAMES: Record<string, (folder: string) => string> = {
  'a link': (folder) => link(join(folder, 'real', 'app.db'), join(folder, 'app.db')),
  'a relative link': (folder) => link('real/app.db', join(folder, 'app.db')),
  'a link to a link': (folder) => {
    mkdirSync(join(folder, 'other'));
    link('../real/app.db', join(folder, 'other', 'inner.db'));
    return link('other/inner.db', join(folder, 'outer.db'));
  },
  'a link to its folder': (folder) => join(link('real', join(folder, 'current')), 'app.db'),
  'a folder and back': (folder) => `${folder}/real/../real/./app.db`,
};

function link(target: string, path: string): string {
  symlinkSync(target, path);
  return path;
}

function folderWithReal(t: TestContext): string {
  const folder = tempDir(t);
  mkdirSync(join(folder, 'real'));
  return folder;
}

async function fill(db: Database, rows = 6): Promise<void> {
  for (let row = 0; row < rows; row++) await db.write.run('INSERT INTO t VALUES (randomblob(100000))');
}

describe('a database that is opened by another name than its own', () => {
  for (const [what, nameOf] of Object.entries(NAMES)) {
    // SQLite follows a link that leads nowhere yet, and makes the file there.
    for (const isThere of [true, false]) {
      test(`a database opened by ${what} ${isThere ? 'to an existing file' : 'to a file that SQLite makes'} has its WAL counted and emptied`, async (t) => {
        const folder = folderWithReal(t);
        const real = join(folder, 'real', 'app.db');
        if (isThere) await (await openDatabase(real, { admission: 'none' })).close();
        const db = await openDatabase(nameOf(folder), { admission: 'none', walLimitBytes: LIMIT_BYTES });
        t.after(() => db.close());
        await db.write.run('CREATE TABLE t (x)');
        await db.read.snapshot(async (r) => {
          await r.get('SELECT count(*) FROM t');
          await fill(db);
        });
        const { bytes } = db.stats().wal;
        assert.ok(bytes > LIMIT_BYTES);
        assert.equal(bytes, statSync(`${real}-wal`).size);
        while (db.stats().wal.truncations === 0) {
          await db.write.run('INSERT INTO t VALUES (1)');
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      });
    }
  }

  for (const threads of [0, 1]) {
    test(`a database opened by a link has all its readers in the same file, though the link leads elsewhere by now${threads === 0 ? '' : ' (threads)'}`, async (t) => {
      const folder = folderWithReal(t);
      const path = link('real/app.db', join(folder, 'app.db'));
      const other = await openDatabase(join(folder, 'other.db'), { admission: 'none' });
      await other.write.exec(`CREATE TABLE t (x); INSERT INTO t VALUES ('of another')`);
      await other.close();
      const db = await openDatabase(path, { admission: 'none', threads });
      t.after(() => db.close());
      await db.write.exec(`CREATE TABLE t (x); INSERT INTO t VALUES ('mine')`);
      renameSync(link('other.db', join(folder, 'new')), path);
      await db.read.snapshot(async (r) => {
        const beside = db.read.all('SELECT x FROM t');
        assert.deepEqual([await r.all('SELECT x FROM t'), await beside], [[{ x: 'mine' }], [{ x: 'mine' }]]);
      });
      assert.equal(db.path, path);
    });
  }
});
