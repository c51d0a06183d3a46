import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { openDatabase } from '../../src/pool/database.ts';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { findingOf, LINUX } from '../doctor/holders.ts';

describe('db.inspect()', { skip: LINUX }, () => {
  test('db.inspect() names who holds and who waits by their labels, and keeps the locks of the pool', async (t) => {
    const path = join(tempDir(t), 'a.db');
    smallDatabase(path);
    const db = await openDatabase(path);
    t.after(() => db.close());
    await db.write.run('CREATE TABLE w (x)');
    const other = await new OtherProcess(t).open(path);
    await db.write.transaction(
      async (tx) => {
        await tx.run('INSERT INTO w VALUES (1)');
        const { writer, write, findings } = await db.inspect();
        assert.deepEqual([writer?.pid, writer?.label], [process.pid, 'import']);
        assert.match(writer?.command ?? '', /node/);
        assert.equal(write.holder?.label, 'import');
        assert.match(findingOf(findings, 'write-lock-held').title, new RegExp(`^PID ${process.pid} `));
        await assert.rejects(
          other.exec('BEGIN IMMEDIATE'),
          { code: 'SQLITE_BUSY' },
          'the lock is still held',
        );
      },
      { label: 'import' },
    );
    assert.equal((await db.inspect()).writer, undefined);
  });

  test('calls of db.inspect() at once share a report, and no label is that of a later transaction', async (t) => {
    const path = join(tempDir(t), 'a.db');
    smallDatabase(path);
    const db = await openDatabase(path);
    t.after(() => db.close());
    await db.write.run('CREATE TABLE w (x)');
    let isOver = false;
    const writing = (async () => {
      for (let i = 0; !isOver; i++)
        await db.write.transaction(
          async (tx) => {
            await tx.run('INSERT INTO w VALUES (1)');
            await delay(20);
          },
          { label: `write ${i}` },
        );
    })();
    const all = await Promise.all([db.inspect(), db.inspect(), db.inspect()]);
    isOver = true;
    await writing;
    for (const { facts, writer } of all) {
      assert.equal(facts, all[0]?.facts, 'one report');
      assert.equal(writer?.label, undefined, 'the transaction that doctor saw is over');
    }
  });

  test('db.inspect() names the process that holds the writer, and the label of the write that waits for it', async (t) => {
    const path = join(tempDir(t), 'a.db');
    smallDatabase(path);
    const db = await openDatabase(path, { busyTimeoutMs: 60_000 });
    t.after(() => db.close());
    const process = new OtherProcess(t);
    const holder = await process.open(path);
    await holder.exec('BEGIN IMMEDIATE');
    const waits = db.write.run('CREATE TABLE w (x)', [], { label: 'login' });
    const { writer, write } = await db.inspect();
    assert.deepEqual([writer?.pid, writer?.label], [process.pid, undefined]);
    assert.deepEqual(
      write.waiting.map(({ label }) => label),
      ['login'],
    );
    await holder.exec('ROLLBACK');
    await waits;
  });
});
