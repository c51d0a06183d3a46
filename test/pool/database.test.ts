import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { openDatabase } from '../../src/pool/database.ts';
import type { DatabaseOptions } from '../../src/pool/types.ts';
import { tempDir } from '../support/compare.ts';
import { openTemporary } from './open.ts';

describe('opening a database', () => {
  test('opening a database sets everything that a connection needs, in one place', async (t) => {
    const db = await openTemporary(t, { walLimitBytes: 5_000_000 });
    for (const [pragma, value] of Object.entries({
      journal_mode: 'wal',
      synchronous: 1,
      foreign_keys: 1,
      journal_size_limit: 5_000_000,
    })) {
      assert.deepEqual(await db.write.get(`PRAGMA ${pragma}`), { [pragma]: value });
    }
    assert.deepEqual(await db.write.get('PRAGMA busy_timeout'), { timeout: 0 });
    assert.deepEqual(await db.read.get('PRAGMA query_only'), { query_only: 1 });
  });

  test('opening a database makes a missing file, unless told not to', async (t) => {
    const path = join(tempDir(t), 'ä b#?%41.db');
    await assert.rejects(openDatabase(path, { create: false }), { code: 'DATABASE_UNUSABLE' });
    assert.ok(!existsSync(path));
    const db = await openDatabase(path);
    await db.close();
    assert.ok(existsSync(path));
    await (await openDatabase(path, { create: false })).close();
  });

  test('a database leaves no WAL behind when it is closed, and can be used with `await using`', async (t) => {
    const path = join(tempDir(t), 'a.db');
    const db = await openDatabase(path);
    await db.write.run('CREATE TABLE t (x)');
    await db.read.all('SELECT * FROM t');
    assert.ok(existsSync(`${path}-wal`));
    await db[Symbol.asyncDispose]();
    assert.ok(!existsSync(`${path}-wal`));
  });

  test('a database leaves no WAL behind if nothing was written', async (t) => {
    const folder = tempDir(t);
    const db = await openDatabase(join(folder, 'a.db'));
    await db.read.all('SELECT * FROM sqlite_schema');
    await db.close();
    assert.deepEqual(readdirSync(folder), ['a.db']);
  });

  test('opening a database takes the URL of a file', async (t) => {
    const path = join(tempDir(t), 'ä b.db');
    const db = await openDatabase(pathToFileURL(path));
    assert.equal(db.path, path);
    await db.close();
  });

  test('opening a database says what is wrong with a file that cannot be opened', async (t) => {
    const folder = tempDir(t);
    writeFileSync(
      join(folder, 'text.db'),
      'This is not a database, and it is longer than a header. '.repeat(20),
    );
    mkdirSync(join(folder, 'folder.db'));
    for (const [name, message] of [
      ['text.db', /text\.db: .*SQLITE_NOTADB/],
      ['folder.db', /folder\.db: it is a folder/],
      ['missing/a.db', /the folder .*missing does not exist/],
      ['text.db/a.db', /the folder .*text\.db does not exist/],
    ] as const) {
      await assert.rejects(openDatabase(join(folder, name)), { code: 'DATABASE_UNUSABLE', message });
    }
    await assert.rejects(openDatabase(join(folder, 'b.db'), { create: false }), /`create` is false/);
  });

  test(
    'opening a database says so if the file may only be read',
    { skip: process.getuid?.() === 0 && 'root may write everywhere' },
    async (t) => {
      const path = join(tempDir(t), 'a.db');
      await (await openDatabase(path)).close();
      chmodSync(path, 0o444);
      await assert.rejects(openDatabase(path), { code: 'DATABASE_UNUSABLE', message: /may not write/ });
    },
  );

  test('opening a database refuses options and names that make no sense', async (t) => {
    const path = join(tempDir(t), 'a.db');
    for (const options of [
      { busyTimeoutMs: -1 },
      { busyTimeoutMs: Number.NaN },
      { readers: 0 },
      { threads: 0.5 },
      { admission: 'always' },
      { statementCacheSize: 0 },
      { bussyTimeoutMs: 5 },
      { create: 'no' },
      { readers: '4' },
      { toString: 1 },
      null,
      5,
    ]) {
      await assert.rejects(openDatabase(path, options as DatabaseOptions), { code: 'USAGE' });
    }
    await assert.rejects(openDatabase(path, { readers: '4' } as never), {
      message: 'openDatabase(): readers is "4"; expected a whole number from 1',
    });
    for (const name of ['', 'file:a.db', undefined, 5, new URL('http://a/b.db')]) {
      await assert.rejects(openDatabase(name as string), { name: 'SqlsyncError', code: 'USAGE' });
    }
    assert.ok(!existsSync(path));
  });
});
