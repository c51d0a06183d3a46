import assert from 'node:assert/strict';
import { copyFileSync, existsSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { readMark } from '../../src/pages/mark.ts';
import { assertRefused, folderState, sqlsync, summaryOf } from '../cli/command.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { syncHere } from '../support/sync.ts';
import { change, names, smallDatabase } from './databases.ts';

const NOT_MARKED = {
  code: 'REPLICA_NOT_MARKED',
  status: 6,
  says: /not made by sqlsync/,
  hint: /--overwrite/,
};
const SWAPPED = { code: 'SWAPPED', status: 6, says: /look swapped/, hint: /origin comes first/ };

/** A folder with the databases a and b, which have nothing to do with each other. */
function twoDatabases(t: TestContext): { folder: string; a: string; b: string } {
  const folder = tempDir(t);
  const [a, b] = [join(folder, 'a.db'), join(folder, 'b.db')];
  smallDatabase(a, { seed: 1, journalMode: 'delete' });
  smallDatabase(b, { seed: 2, journalMode: 'delete' });
  return { folder, a, b };
}

describe('a database that sqlsync did not make', () => {
  test('is not overwritten: not a byte changes', async (t) => {
    const { folder, a, b } = twoDatabases(t);
    const before = folderState(folder);
    await assertRefused([a, b], NOT_MARKED as never);
    await assertRefused([a, b, '--replace'], NOT_MARKED as never);
    await assertRefused([a, b, '--dry-run'], NOT_MARKED as never);
    assert.deepEqual(folderState(folder), before);
  });

  test('is not emptied by an origin without pages', async (t) => {
    const { folder, b } = twoDatabases(t);
    const empty = join(folder, 'empty.db');
    writeFileSync(empty, '');
    const before = folderState(folder);
    await assertRefused([empty, b], NOT_MARKED as never);
    assert.deepEqual(folderState(folder), before);
  });

  test('is overwritten with --overwrite, which is needed once', async (t) => {
    const { folder, a, b } = twoDatabases(t);
    await syncHere({ origin: a, replica: b, overwrite: true });
    assertReplicaOf(a, b);
    assert.deepEqual(names(folder), ['.b.db.sqlsync', 'a.db', 'b.db']);
    change(a, 'UPDATE item SET amount = -1');
    await syncHere({ origin: a, replica: b });
    assertReplicaOf(a, b);
  });

  test('stays one where the mark beside it cannot be read as one', async (t) => {
    const { folder, a, b } = twoDatabases(t);
    for (const text of ['', '{', '{"format":2}', '[]', 'null', ' '.repeat(70_000), '{"format":1}']) {
      writeFileSync(join(folder, '.b.db.sqlsync'), text);
      assert.equal(readMark(b), undefined, text);
    }
    const before = folderState(folder);
    await assertRefused([a, b], NOT_MARKED as never);
    assert.deepEqual(folderState(folder), before);
  });

  test('stays one where its mark is a symbolic link', async (t) => {
    const { folder, a, b } = twoDatabases(t);
    await syncHere({ origin: a, replica: join(folder, 'c.db') });
    symlinkSync(join(folder, '.c.db.sqlsync'), join(folder, '.b.db.sqlsync'));
    await assertRefused([a, b], NOT_MARKED as never);
  });

  test('is named for what it is after a rename to where no mark is', async (t) => {
    const { folder, a } = twoDatabases(t);
    const replica = join(folder, 'c.db');
    await syncHere({ origin: a, replica });
    renameSync(replica, join(folder, 'd.db'));
    await assertRefused([a, join(folder, 'd.db')], NOT_MARKED as never);
  });
});

describe('a mark', () => {
  test('names the origin and its host, for people and for the check', async (t) => {
    const { folder, a } = twoDatabases(t);
    await syncHere({ origin: a, replica: join(folder, 'c.db') });
    const mark = JSON.parse(readFileSync(join(folder, '.c.db.sqlsync'), 'utf8')) as Record<string, unknown>;
    assert.equal(mark['format'], 1);
    assert.equal(mark['originHost'], hostname());
    assert.equal(mark['originPath'], a);
    assert.match(String(mark['originName']), /a\.db$/);
    assert.equal(new Date(String(mark['time'])).toISOString(), mark['time']);
  });

  test('is written where a database that happens to be equal becomes a replica', async (t) => {
    const { folder, a } = twoDatabases(t);
    const copy = join(folder, 'copy.db');
    copyFileSync(a, copy);
    assert.equal((await summaryOf([a, copy, '--overwrite']))['outcome'], 'unchanged');
    change(a, 'UPDATE item SET amount = -1');
    await syncHere({ origin: a, replica: copy });
    assertReplicaOf(a, copy);
  });

  test('is not written by a dry run', async (t) => {
    const { folder, a, b } = twoDatabases(t);
    const before = folderState(folder);
    const existing = await summaryOf([a, b, '--dry-run', '--overwrite']);
    assert.equal(existing['outcome'], 'dryRun');
    assert.ok((existing['pagesChanged'] as number) > 0);
    const missing = await summaryOf([a, join(folder, 'c.db'), '-n']);
    assert.equal(missing['pagesChanged'], missing['pageCount']);
    assert.deepEqual(folderState(folder), before);
  });
});

describe('swapped arguments', () => {
  test('are refused, and neither database changes', async (t) => {
    const { folder, a } = twoDatabases(t);
    const replica = join(folder, 'c.db');
    await syncHere({ origin: a, replica });
    change(a, 'UPDATE item SET amount = -1');
    const before = folderState(folder);
    await assertRefused([replica, a], SWAPPED as never);
    assert.deepEqual(folderState(folder), before);
  });

  test('are refused by another name of the origin and where the origin is marked as well', async (t) => {
    const { folder, a, b } = twoDatabases(t);
    await syncHere({ origin: b, replica: a, overwrite: true });
    const replica = join(folder, 'c.db');
    await syncHere({ origin: a, replica });
    const link = join(folder, 'link.db');
    symlinkSync(a, link);
    change(a, 'UPDATE item SET amount = -1');
    const before = folderState(folder);
    await assertRefused([replica, link], SWAPPED as never);
    await assertRefused([replica, a], SWAPPED as never);
    assert.deepEqual(folderState(folder), before);
  });

  test('with --overwrite are a restore, which leaves no mark on the restored origin', async (t) => {
    const { folder, a } = twoDatabases(t);
    const replica = join(folder, 'c.db');
    await syncHere({ origin: a, replica });
    change(a, 'DELETE FROM item');
    await syncHere({ origin: replica, replica: a, overwrite: true });
    assertReplicaOf(replica, a);
    assert.equal(existsSync(join(folder, '.a.db.sqlsync')), false);
    // Protected as before, and its replica can be synced as before.
    await assertRefused([replica, a], SWAPPED as never);
    change(a, 'UPDATE item SET amount = -2');
    await syncHere({ origin: a, replica });
    assertReplicaOf(a, replica);
  });

  test('of a lost origin are a restore too', async (t) => {
    const { folder, a } = twoDatabases(t);
    const replica = join(folder, 'c.db');
    await syncHere({ origin: a, replica });
    renameSync(a, join(folder, 'lost'));
    await assertRefused([replica, a], SWAPPED as never);
    await syncHere({ origin: replica, replica: a, overwrite: true });
    assertReplicaOf(replica, a);
    assert.equal(existsSync(join(folder, '.a.db.sqlsync')), false);
  });
});

test('a replica may be the origin of another one', async (t) => {
  const { folder, a } = twoDatabases(t);
  const [second, third] = [join(folder, 'second.db'), join(folder, 'third.db')];
  await syncHere({ origin: a, replica: second });
  await syncHere({ origin: second, replica: third });
  change(a, 'UPDATE item SET amount = -1');
  await syncHere({ origin: a, replica: second });
  await syncHere({ origin: second, replica: third });
  assertReplicaOf(a, third);
  const { status } = await sqlsync(['verify', a, third]);
  assert.equal(status, 0);
});
