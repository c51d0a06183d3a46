import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { openDatabase } from '../../../src/index.ts';
import type { Database } from '../../../src/index.ts';
import { tempDir } from '../../support/compare.ts';
import { OtherProcess } from '../../support/other-process.ts';

const SCHEMA = `
  CREATE TABLE author (id INTEGER PRIMARY KEY, name TEXT);
  CREATE TABLE book (id INTEGER PRIMARY KEY, author INTEGER REFERENCES author ON DELETE CASCADE);
  INSERT INTO author VALUES (1, 'Ada'), (2, 'Bo');
  INSERT INTO book VALUES (10, 1), (20, 2)`;

const REBUILD = `
  CREATE TABLE new_author (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
  INSERT INTO new_author SELECT * FROM author;
  DROP TABLE author;
  ALTER TABLE new_author RENAME TO author`;

async function opened(t: TestContext): Promise<{ db: Database; path: string }> {
  const path = join(tempDir(t), 'app.db');
  const db = await openDatabase(path);
  t.after(() => db.close());
  await db.write.exec(SCHEMA);
  return { db, path };
}

/** Foreign keys are enforced again, and act. */
async function assertEnforced(db: Database): Promise<void> {
  await assert.rejects(db.write.run('INSERT INTO book VALUES (99, 99)'), {
    code: 'SQLITE_CONSTRAINT_FOREIGNKEY',
  });
  await db.write.exec('INSERT INTO author VALUES (7, 7); INSERT INTO book VALUES (70, 7)');
  await db.write.run('DELETE FROM author WHERE id = 7');
  assert.deepEqual(await db.read.values('SELECT count(*) FROM book WHERE id = 70'), [[0]]);
}

test('changeSchema builds a table anew to which others refer, and returns what its function returns', async (t) => {
  const { db } = await opened(t);
  const result = await db.write.changeSchema(async (tx) => {
    await tx.exec(REBUILD);
    return tx.get<{ n: number }>('SELECT count(*) AS n FROM author');
  });
  assert.deepEqual(result, { n: 2 });
  assert.deepEqual(await db.read.values('SELECT id FROM book'), [[10], [20]]);
  await assertEnforced(db);
});

test('changeSchema commits nothing that leaves more rows without the row they refer to', async (t) => {
  const { db, path } = await opened(t);
  await assert.rejects(
    db.write.changeSchema((tx) => tx.run('DELETE FROM author WHERE id = 2')),
    {
      code: 'SQLITE_CONSTRAINT_FOREIGNKEY',
      message: /1 rows of book refer to rows that author does not have/,
    },
  );
  assert.deepEqual(await db.read.values('SELECT id FROM author'), [[1], [2]]);
  await assertEnforced(db);
  // Another program, which does not enforce them, has left one.
  await db.close();
  const other = await new OtherProcess(t).open(path);
  await other.exec('PRAGMA foreign_keys = OFF; INSERT INTO book VALUES (30, 9)');
  await other.call('close');
  await using again = await openDatabase(path);
  await again.write.changeSchema((tx) => tx.exec(REBUILD));
  await assert.rejects(
    again.write.changeSchema((tx) => tx.run('INSERT INTO book VALUES (40, 9)')),
    { code: 'SQLITE_CONSTRAINT_FOREIGNKEY' },
  );
  assert.deepEqual(await again.read.values('SELECT id FROM book ORDER BY id'), [[10], [20], [30]]);
});

test('foreign keys are enforced again whatever ends changeSchema', async (t) => {
  const { db } = await opened(t);
  await assert.rejects(
    db.write.changeSchema(() => {
      throw new Error('own');
    }),
    { message: 'own' },
  );
  await assertEnforced(db);
  const controller = new AbortController();
  await assert.rejects(
    db.write.changeSchema(
      async (tx) => {
        await tx.run('DROP TABLE book');
        controller.abort();
        await tx.run('DROP TABLE author');
      },
      { signal: controller.signal },
    ),
    { code: 'ABORTED' },
  );
  await assertEnforced(db);
  await assert.rejects(
    db.write.changeSchema(() => db.write.run('DELETE FROM author')),
    { code: 'NESTED_WRITE' },
  );
  await assertEnforced(db);
  await assert.rejects(
    db.write.changeSchema((tx) => tx.run('PRAGMA foreign_keys = OFF')),
    { code: 'USAGE' },
  );
  await assertEnforced(db);
  await assert.rejects(db.write.changeSchema('DROP TABLE book' as never), { code: 'USAGE' });
});

test('other writes wait for changeSchema, and see all of it or nothing', async (t) => {
  const { db } = await opened(t);
  const order: string[] = [];
  const changed = db.write.changeSchema(async (tx) => {
    await tx.exec(REBUILD);
    order.push('changed');
  });
  const written = db.write
    .run(`INSERT INTO author VALUES (3, NULL)`)
    .catch((error: { code: string }) => order.push(error.code));
  await Promise.all([changed, written]);
  assert.deepEqual(order, ['changed', 'SQLITE_CONSTRAINT_NOTNULL']);
});
