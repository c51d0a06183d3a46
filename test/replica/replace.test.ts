import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { PROGRAM, assertRefused, folderState, summaryOf } from '../cli/command.ts';
import { assertReplicaOf, sha256File, tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { syncHere } from '../support/sync.ts';
import { change, column, names, smallDatabase } from '../pages/databases.ts';

const MODES = ['wal', 'delete'] as const;

interface Pair {
  /** The folder of the replica. */
  readonly folder: string;
  readonly origin: string;
  readonly replica: string;
}

/** A replica of an origin that has taken another page size, and another schema, since the last sync. */
async function pair(t: TestContext, mode: (typeof MODES)[number]): Promise<Pair> {
  const folder = tempDir(t);
  const [origin, replica] = [join(tempDir(t), 'origin.db'), join(folder, 'r.db')];
  smallDatabase(origin, { pageSize: 4096 });
  await syncHere({ origin, replica });
  change(replica, `PRAGMA journal_mode = ${mode}`);
  change(origin, 'PRAGMA journal_mode = delete; PRAGMA page_size = 1024; VACUUM; PRAGMA journal_mode = wal');
  change(origin, "DROP TABLE attachment; CREATE TABLE fresh (x); INSERT INTO fresh VALUES ('fresh')");
  assert.deepEqual(column(origin, 'PRAGMA page_size'), [1024]);
  return { folder, origin, replica };
}

for (const mode of MODES) {
  describe(`a replica of another page size, in mode ${mode}`, () => {
    test('a replica of another page size is refused, unchanged, with --replace as the hint', async (t) => {
      const { folder, origin, replica } = await pair(t, mode);
      const before = folderState(folder);
      const says = /pages of 4096 bytes, the origin of 1024/;
      const expected = { code: 'REPLICA_PAGE_SIZE', status: 6, says, hint: /--replace/ } as const;
      await assertRefused([origin, replica], expected);
      await assertRefused([origin, replica, '--dry-run'], expected);
      assert.deepEqual(folderState(folder), before);
    });

    test('a replica of another page size is replaced with --replace, keeps its journal mode, and is synced as usual after that', async (t) => {
      const { folder, origin, replica } = await pair(t, mode);
      const summary = await summaryOf([origin, replica, '--replace']);
      assert.equal(summary['created'], false);
      assertReplicaOf(origin, replica);
      assert.deepEqual(column(replica, 'PRAGMA journal_mode'), [mode]);
      assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
      assert.equal((await syncHere({ origin, replica })).outcomeName, 'unchanged');
      change(origin, "INSERT INTO fresh VALUES ('fresher')");
      await syncHere({ origin, replica, replace: true });
      assertReplicaOf(origin, replica);
    });

    test('--replace --dry-run only compares a replica of another page size', async (t) => {
      const { folder, origin, replica } = await pair(t, mode);
      const before = folderState(folder);
      assert.equal((await summaryOf([origin, replica, '--replace', '-n']))['outcome'], 'dryRun');
      assert.deepEqual(folderState(folder), before);
    });

    test('--replace is BUSY and changes nothing while a reader is in the middle of a transaction', async (t) => {
      const { folder, origin, replica } = await pair(t, mode);
      const reader = await new OtherProcess(t).open(replica, { readonly: true });
      await reader.exec('BEGIN; SELECT count(*) FROM attachment');
      const before = sha256File(replica);
      const expected = { code: 'BUSY', status: 5, says: /locked/ } as const;
      await assertRefused([origin, replica, '--replace', '--busy-timeout', '0.3'], expected);
      assert.equal(sha256File(replica), before);
      const rows = await reader.rows('SELECT count(*) FROM attachment');
      assert.ok(Number(rows[0]?.[0]) > 0, 'the reader goes on');
      await reader.exec('COMMIT');
      await reader.call('close');
      assert.deepEqual(column(replica, 'PRAGMA journal_mode'), [mode]);
      assert.deepEqual(column(replica, 'PRAGMA integrity_check'), ['ok']);
      const summary = await summaryOf([origin, replica, '--replace']);
      assert.equal(summary['resumed'], true, 'the part file is still there');
      assertReplicaOf(origin, replica);
      assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
    });

    test('--replace is BUSY and changes nothing while a writer has the replica locked', async (t) => {
      const { folder, origin, replica } = await pair(t, mode);
      const writer = await new OtherProcess(t).open(replica);
      await writer.exec('BEGIN IMMEDIATE');
      const expected = { code: 'BUSY', status: 5, says: /locked/ } as const;
      await assertRefused([origin, replica, '--replace', '--busy-timeout', '0.3'], expected);
      await writer.exec("UPDATE item SET label = 'written' WHERE id = 1; COMMIT");
      await writer.call('close');
      assert.deepEqual(column(replica, "SELECT count(*) FROM item WHERE label = 'written'"), [1]);
      assert.ok(names(folder).includes('r.db'));
    });
  });
}

test('a reader that has a rollback-mode replica open survives --replace and sees the new schema', async (t) => {
  const { origin, replica } = await pair(t, 'delete');
  const reader = await new OtherProcess(t).open(replica, { readonly: true });
  assert.ok(Number((await reader.rows('SELECT count(*) FROM attachment'))[0]?.[0]) > 0);
  await syncHere({ origin, replica, replace: true });
  assert.deepEqual(await reader.rows('SELECT x FROM fresh'), [['fresh']]);
  await assert.rejects(reader.rows('SELECT count(*) FROM attachment'), /no such table/);
  assert.deepEqual(await reader.rows('PRAGMA integrity_check'), [['ok']]);
  await reader.call('close');
  assertReplicaOf(origin, replica);
});

test('a connection that has a WAL replica open makes --replace BUSY, and reads on as before', async (t) => {
  const { origin, replica } = await pair(t, 'wal');
  const reader = await new OtherProcess(t).open(replica);
  const rows = await reader.rows('SELECT count(*) FROM attachment');
  const expected = { code: 'BUSY', status: 5, says: /locked/ } as const;
  await assertRefused([origin, replica, '--replace', '--busy-timeout', '0.3'], expected);
  assert.deepEqual(await reader.rows('SELECT count(*) FROM attachment'), rows);
  assert.deepEqual(await reader.rows('PRAGMA integrity_check'), [['ok']]);
  await reader.call('close');
  await syncHere({ origin, replica, replace: true });
  assertReplicaOf(origin, replica);
});

test('--replace does not suffer from a leftover part file of another page size', async (t) => {
  const { folder, origin, replica } = await pair(t, 'wal');
  smallDatabase(join(folder, '.r.db.sqlsync-part'), { pageSize: 8192, journalMode: 'delete' });
  await syncHere({ origin, replica, replace: true });
  assertReplicaOf(origin, replica);
});

test('--replace does not take a complete part file of an interrupted run for a finished run', async (t) => {
  const { folder, origin, replica } = await pair(t, 'delete');
  const reader = await new OtherProcess(t).open(replica, { readonly: true });
  await reader.exec('BEGIN; SELECT count(*) FROM item');
  const expected = { code: 'BUSY', status: 5, says: /locked/ } as const;
  await assertRefused([origin, replica, '--replace', '--busy-timeout', '0'], expected);
  await reader.call('close');
  const summary = await summaryOf([origin, replica, '--replace']);
  assert.equal(summary['outcome'], 'committed');
  assertReplicaOf(origin, replica);
  assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
});

describe('--replace of a WAL replica that is killed between its two journal modes', () => {
  const HAS_STRACE = spawnSync('strace', ['-V']).status === 0;
  const skip = HAS_STRACE ? false : 'NOT TESTED: there is no strace';

  /** Kills a --replace at the `nth` write to the replica itself. */
  function killAtWrite(nth: number, { origin, replica }: Pair): void {
    const inject = `inject=pwrite64:signal=KILL:when=${nth}`;
    const trace = ['-f', '-qq', '-o', '/dev/null', '-e', 'trace=pwrite64', '-P', replica, '-e', inject];
    const command = [process.execPath, PROGRAM, '-q', origin, replica, '--replace'];
    const { status, signal } = spawnSync('strace', [...trace, ...command]);
    assert.ok(signal === 'SIGKILL' || status === 137, `it was killed at write ${nth}: ${status}`);
  }

  async function assertWalAgain({ folder, replica }: Pair): Promise<void> {
    assert.deepEqual(column(replica, 'PRAGMA journal_mode'), ['wal']);
    assert.deepEqual(column(replica, 'PRAGMA integrity_check'), ['ok']);
    assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
  }

  for (const nth of [1, 3, 6]) {
    test(`a replica killed at write ${nth} is in WAL mode after the next --replace`, { skip }, async (t) => {
      const here = await pair(t, 'wal');
      killAtWrite(nth, here);
      await summaryOf([here.origin, here.replica, '--replace']);
      assertReplicaOf(here.origin, here.replica);
      await assertWalAgain(here);
    });
  }

  test(
    'a replica killed between its modes is in WAL mode after a sync of its own page size',
    { skip },
    async (t) => {
      const here = await pair(t, 'wal');
      killAtWrite(3, here);
      const { origin, replica } = here;
      assert.ok(names(here.folder).includes('.r.db.sqlsync-mode'), 'its mode is recorded');
      change(
        origin,
        'PRAGMA journal_mode = delete; PRAGMA page_size = 4096; VACUUM; PRAGMA journal_mode = wal',
      );
      const summary = await summaryOf([origin, replica]);
      assert.equal(summary['outcome'], 'committed');
      assertReplicaOf(origin, replica);
      await assertWalAgain(here);
    },
  );

  test(
    'a replica killed between its modes is in WAL mode after a sync that finds no difference',
    { skip },
    async (t) => {
      const here = await pair(t, 'wal');
      const former = join(tempDir(t), 'former.db');
      copyFileSync(here.replica, former);
      killAtWrite(3, here);
      await summaryOf([former, here.replica, '--overwrite']);
      assertReplicaOf(former, here.replica);
      await assertWalAgain(here);
    },
  );

  test('a replica killed between its modes is in WAL mode after it is emptied', { skip }, async (t) => {
    const here = await pair(t, 'wal');
    killAtWrite(3, here);
    const empty = join(tempDir(t), 'empty.db');
    writeFileSync(empty, '');
    await summaryOf([empty, here.replica, '--overwrite']);
    await assertWalAgain(here);
  });

  test('a database that took the name of such a replica since keeps its own mode', { skip }, async (t) => {
    const here = await pair(t, 'wal');
    killAtWrite(3, here);
    const { origin, replica, folder } = here;
    for (const name of names(folder).filter((entry) => entry.startsWith('r.db')))
      renameSync(join(folder, name), join(folder, `old-${name}`));
    smallDatabase(replica, { pageSize: 1024, journalMode: 'delete' });
    await summaryOf([origin, replica, '--overwrite']);
    assertReplicaOf(origin, replica);
    assert.deepEqual(column(replica, 'PRAGMA journal_mode'), ['delete']);
  });
});
