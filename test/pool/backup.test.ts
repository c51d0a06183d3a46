import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, test } from 'node:test';
import { openDatabase } from '../../src/pool/database.ts';
import { verify } from '../../src/index.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { openTemporary } from './open.ts';

describe('db.backup()', () => {
  test('db.backup() makes an exact copy of an open database and brings it up to date, and the pool keeps its locks', async (t) => {
    const db = await openTemporary(t);
    const copy = join(tempDir(t), 'a:b copy.db');
    await db.write.exec('INSERT INTO t (x) VALUES (1)');
    const first = await db.backup(copy);
    assert.equal(first.outcome, 'committed');
    assert.equal(first.pagesChanged, first.pageCount);
    assert.ok((await verify({ a: db.path, b: copy })).same);
    const other = await new OtherProcess(t).open(db.path);
    await db.write.transaction(async (tx) => {
      await tx.run('INSERT INTO t (x) VALUES (2)');
      assert.equal((await db.backup(copy)).outcome, 'unchanged');
      await assert.rejects(other.exec('BEGIN IMMEDIATE'), { code: 'SQLITE_BUSY' });
    });
    assert.equal((await db.backup(copy)).outcome, 'committed');
    assert.ok((await verify({ a: db.path, b: copy })).same);
  });

  test('db.backup() takes a database in memory and outlives its close(), and refuses a file that is no copy with the error of a sync', async (t) => {
    const db = await openDatabase(':memory:');
    t.after(() => db.close());
    await db.write.exec('CREATE TABLE t (x)');
    const file = join(tempDir(t), 'text');
    writeFileSync(file, 'not a database');
    await assert.rejects(db.backup(file), {
      name: 'SqlsyncError',
      code: 'REPLICA_NOT_A_DATABASE',
      hint: /another file/,
    });
    for (const place of ['', 'me@vault:app.db', 'vault:/app.db', 'ssh://vault/app.db', 'file:///app.db'])
      await assert.rejects(db.backup(place), { code: 'USAGE' });
    const copied = db.backup(pathToFileURL(`${file}.db`));
    // close() removes the database, after the copy.
    await db.close();
    assert.equal((await copied).outcome, 'committed');
    await assert.rejects(db.backup(file), { code: 'CLOSED' });
  });
});
