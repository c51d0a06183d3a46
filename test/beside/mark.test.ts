import assert from 'node:assert/strict';
import { copyFileSync, existsSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { currentFileId } from '../../src/pages/database-file.ts';
import { readMark } from '../../src/beside/mark.ts';
import { assertRefused, folderState, sqlsync, summaryOf } from '../cli/command.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { syncHere } from '../support/sync.ts';
import { change, names, smallDatabase } from '../pages/databases.ts';
import { sqlsyncWith } from '../replica/kill.ts';

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
  test('a database that sqlsync did not make is not overwritten: not a byte changes', async (t) => {
    const { folder, a, b } = twoDatabases(t);
    const before = folderState(folder);
    await assertRefused([a, b], NOT_MARKED as never);
    await assertRefused([a, b, '--replace'], NOT_MARKED as never);
    await assertRefused([a, b, '--dry-run'], NOT_MARKED as never);
    assert.deepEqual(folderState(folder), before);
  });

  test('a database that sqlsync did not make is not emptied by an origin without pages', async (t) => {
    const { folder, b } = twoDatabases(t);
    const empty = join(folder, 'empty.db');
    writeFileSync(empty, '');
    const before = folderState(folder);
    await assertRefused([empty, b], NOT_MARKED as never);
    assert.deepEqual(folderState(folder), before);
  });

  test('a database that sqlsync did not make is overwritten with --overwrite, which is needed once', async (t) => {
    const { folder, a, b } = twoDatabases(t);
    await syncHere({ origin: a, replica: b, overwrite: true });
    assertReplicaOf(a, b);
    assert.deepEqual(names(folder), ['.b.db.sqlsync', 'a.db', 'b.db']);
    change(a, 'UPDATE item SET amount = -1');
    await syncHere({ origin: a, replica: b });
    assertReplicaOf(a, b);
  });

  test('a database counts as unmarked if the mark beside it cannot be read', async (t) => {
    const { folder, a, b } = twoDatabases(t);
    for (const text of ['', '{', '{"format":2}', '[]', 'null', ' '.repeat(70_000), '{"format":1}']) {
      writeFileSync(join(folder, '.b.db.sqlsync'), text);
      assert.equal(readMark(b), undefined, text);
    }
    const before = folderState(folder);
    await assertRefused([a, b], NOT_MARKED as never);
    assert.deepEqual(folderState(folder), before);
  });

  test('a database counts as unmarked if its mark is a symbolic link', async (t) => {
    const { folder, a, b } = twoDatabases(t);
    await syncHere({ origin: a, replica: join(folder, 'c.db') });
    symlinkSync(join(folder, '.c.db.sqlsync'), join(folder, '.b.db.sqlsync'));
    await assertRefused([a, b], NOT_MARKED as never);
  });

  test('a replica that was renamed without its mark is refused as a database without one', async (t) => {
    const { folder, a } = twoDatabases(t);
    const replica = join(folder, 'c.db');
    await syncHere({ origin: a, replica });
    renameSync(replica, join(folder, 'd.db'));
    await assertRefused([a, join(folder, 'd.db')], NOT_MARKED as never);
  });
});

describe('a mark', () => {
  test('a mark names the origin and its host, for people and for the check', async (t) => {
    const { folder, a } = twoDatabases(t);
    await syncHere({ origin: a, replica: join(folder, 'c.db') });
    const mark = JSON.parse(readFileSync(join(folder, '.c.db.sqlsync'), 'utf8')) as Record<string, unknown>;
    assert.equal(mark['format'], 1);
    assert.equal(mark['originHost'], hostname());
    assert.equal(mark['originPath'], a);
    assert.match(String(mark['originName']), /a\.db$/);
    assert.equal(new Date(String(mark['time'])).toISOString(), mark['time']);
  });

  test('a mark is written if a database that happens to be equal becomes a replica', async (t) => {
    const { folder, a } = twoDatabases(t);
    const copy = join(folder, 'copy.db');
    copyFileSync(a, copy);
    assert.equal((await summaryOf([a, copy, '--overwrite']))['outcome'], 'unchanged');
    change(a, 'UPDATE item SET amount = -1');
    await syncHere({ origin: a, replica: copy });
    assertReplicaOf(a, copy);
  });

  test('the mark of a file is not that of another file that takes its name', async (t) => {
    const { folder, a, b } = twoDatabases(t);
    const replica = join(folder, 'c.db');
    await syncHere({ origin: a, replica });
    renameSync(replica, join(folder, 'kept.db'));
    copyFileSync(b, replica);
    assert.equal(readMark(replica), undefined);
    const before = folderState(folder);
    await assertRefused([a, replica], NOT_MARKED as never);
    assert.deepEqual(folderState(folder), before);
    renameSync(join(folder, 'kept.db'), replica);
    assert.equal(readMark(replica)?.originPath, a);
  });

  test('the mark of a file is not that of a later one with the same inode', async (t) => {
    const { folder, a } = twoDatabases(t);
    const replica = join(folder, 'c.db');
    await syncHere({ origin: a, replica });
    const path = join(folder, '.c.db.sqlsync');
    const mark = JSON.parse(readFileSync(path, 'utf8')) as { fileBornMs: number };
    if (mark.fileBornMs === 0)
      return t.skip('NOT TESTED: this file system does not say when a file was made');
    writeFileSync(path, JSON.stringify({ ...mark, fileBornMs: mark.fileBornMs - 1 }));
    assert.equal(readMark(replica), undefined);
    writeFileSync(path, JSON.stringify({ ...mark, fileBornMs: 0 }));
    assert.equal(readMark(replica)?.originPath, a, 'it was made on a host that could not tell');
  });

  test('the mark stays the replica’s under another device number, which a file system may have after each mount', async (t) => {
    const { folder, a } = twoDatabases(t);
    const replica = join(folder, 'c.db');
    await syncHere({ origin: a, replica });
    const path = join(folder, '.c.db.sqlsync');
    const mark = JSON.parse(readFileSync(path, 'utf8')) as { fileId: string };
    assert.equal(mark.fileId, currentFileId(replica));
    writeFileSync(path, JSON.stringify({ ...mark, fileId: mark.fileId.replace(/^\d+/, '1') }));
    assert.equal(readMark(replica)?.originPath, a);
  });

  test('the mark of another origin has to be overwritten once, by name', async (t) => {
    const { folder, a, b } = twoDatabases(t);
    const replica = join(folder, 'c.db');
    await syncHere({ origin: a, replica });
    const before = folderState(folder);
    const says = /c\.db is a copy of .*:.*a\.db, not of .*b\.db/;
    await assertRefused([b, replica], { ...NOT_MARKED, says } as never);
    await assertRefused([b, replica, '-n'], { ...NOT_MARKED, says } as never);
    assert.deepEqual(folderState(folder), before);
    await syncHere({ origin: b, replica, overwrite: true });
    assert.equal(readMark(replica)?.originPath, b);
    await syncHere({ origin: b, replica });
    assertReplicaOf(b, replica);
  });

  test('a mark of the same path on a host of another name is no obstacle, and then names the new host', async (t) => {
    const { folder, a } = twoDatabases(t);
    const replica = join(folder, 'c.db');
    await syncHere({ origin: a, replica });
    const path = join(folder, '.c.db.sqlsync');
    const mark = JSON.parse(readFileSync(path, 'utf8')) as object;
    writeFileSync(path, JSON.stringify({ ...mark, originHost: 'container-1' }));
    assert.equal((await syncHere({ origin: a, replica })).outcomeName, 'unchanged');
    assert.equal(readMark(replica)?.originHost, hostname());
  });

  test('a run that writes a mark removes what killed runs left of theirs, and of no other file', async (t) => {
    const { folder, a, b } = twoDatabases(t);
    const unfinished = join(folder, '.b.db.sqlsync.123-0123abcd');
    const others = ['.a.db.sqlsync.123-0123abcd', '.b.db.sqlsync.old'].map((name) => join(folder, name));
    for (const path of [unfinished, ...others]) writeFileSync(path, '{}');
    await syncHere({ origin: a, replica: b, overwrite: true });
    assert.equal(existsSync(unfinished), false);
    for (const path of others) assert.ok(existsSync(path), path);
  });

  test('a mark is written once more if another run removed its temporary file as a leftover', async (t) => {
    const [origin, folder] = [join(tempDir(t), 'origin.db'), tempDir(t)];
    smallDatabase(origin);
    const code = `
      const { renameSync, rmSync } = fs;
      let taken = false;
      fs.renameSync = (from, to) => {
        if (!taken) rmSync(from);
        taken = true;
        renameSync(from, to);
      };`;
    const { status, stderr } = await sqlsyncWith(code, [origin, join(folder, 'r.db')]);
    assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
    assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
  });

  test('a mark that cannot be written is a warning, and the sync succeeds', async (t) => {
    const { folder, a, b } = twoDatabases(t);
    const rename = `const rename = fs.renameSync;
      fs.renameSync = (from, to) => {
        if (to.endsWith('.sqlsync')) throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' });
        return rename(from, to);
      };`;
    const { status, stdout, stderr } = await sqlsyncWith(rename, [a, b, '--overwrite']);
    assert.equal(status, 0, stderr);
    assert.match(stdout + stderr, /mark of .*b\.db could not be written.*--overwrite/);
    assertReplicaOf(a, b);
    assert.deepEqual(names(folder), ['a.db', 'b.db']);
  });

  test('a mark is as it was if the commit fails', async (t) => {
    const { folder, a, b } = twoDatabases(t);
    await syncHere({ origin: b, replica: join(folder, 'c.db') });
    const before = folderState(folder);
    const reader = await new OtherProcess(t).open(join(folder, 'c.db'), { readonly: true });
    await reader.exec('BEGIN; SELECT count(*) FROM item');
    change(a, 'PRAGMA page_size = 1024; VACUUM');
    const args = [a, join(folder, 'c.db'), '--overwrite', '--replace', '--busy-timeout', '0'];
    await assertRefused(args, { code: 'BUSY', status: 5, says: /locked/ });
    await reader.call('close');
    assert.equal(folderState(folder)['.c.db.sqlsync']?.split(' ')[0], before['.c.db.sqlsync']?.split(' ')[0]);
  });

  test("a replica has no mark if the mark's name would be too long", (t) => {
    const long = join(tempDir(t), `${'n'.repeat(250)}.db`);
    writeFileSync(long, '');
    assert.equal(readMark(long), undefined);
  });

  test('a dry run writes no mark', async (t) => {
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
  test('swapped arguments are refused, and neither database changes', async (t) => {
    const { folder, a } = twoDatabases(t);
    const replica = join(folder, 'c.db');
    await syncHere({ origin: a, replica });
    change(a, 'UPDATE item SET amount = -1');
    const before = folderState(folder);
    await assertRefused([replica, a], SWAPPED as never);
    assert.deepEqual(folderState(folder), before);
  });

  test('swapped arguments are refused also by another name of the origin and if the origin has a mark too', async (t) => {
    const { folder, a, b } = twoDatabases(t);
    await syncHere({ origin: b, replica: a, overwrite: true });
    const replica = join(folder, 'c.db');
    await syncHere({ origin: a, replica });
    const link = join(folder, 'link.db');
    symlinkSync(a, link);
    change(a, 'UPDATE item SET amount = -1');
    const before = folderState(folder);
    await assertRefused([replica, link, '--follow-links'], SWAPPED as never);
    await assertRefused([replica, a], SWAPPED as never);
    assert.deepEqual(folderState(folder), before);
  });

  test('swapped arguments with --overwrite are a restore, which leaves no mark on the restored origin', async (t) => {
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

  test('swapped arguments after the loss of the origin are a restore too', async (t) => {
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
