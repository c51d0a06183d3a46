import assert from 'node:assert/strict';
import { closeSync, existsSync, openSync, readFileSync, renameSync, statSync } from 'node:fs';
import { truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { generateDatabase } from '../../fixtures/generate.ts';
import type { PageNumber } from '../../src/pages/page-types.ts';
import { DatabaseSnapshot } from '../../src/origin/snapshot.ts';
import { assertReplicaOf, pageImage, tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import type { FrameHook } from '../support/sync.ts';
import { change, syncHere } from '../support/sync.ts';

const ROOT = join(import.meta.dirname, '..', '..');

/**
 * Defects of sqlite3_rsync that no other test here shows to be absent from sqlsync; docs/reliability.md lists
 * them all.
 */
describe('unlike sqlite3_rsync,', () => {
  for (const mode of ['wal', 'delete'] as const) {
    test(`a replica that is locked for a moment is waited for (mode ${mode})`, async (t) => {
      const folder = tempDir(t);
      const [origin, replica] = [join(folder, 'origin.db'), join(folder, 'replica.db')];
      generateDatabase(origin, { rows: 200 });
      await syncHere({ origin, replica });
      change(replica, (database) => database.pragma(`journal_mode = ${mode}`));
      change(origin, (database) => database.pragma('user_version = 5'));
      const holder = await new OtherProcess(t).open(replica);
      await holder.exec('BEGIN IMMEDIATE');
      // Long enough for the first attempts to be refused; the lock is released only once the sync asks for
      // it.
      const synced = syncHere({
        origin,
        replica,
        busyTimeoutMs: 60_000,
        onFrame: ({ name }) =>
          void (name === 'snapshot' && setTimeout(() => void holder.exec('ROLLBACK'), 200)),
      });
      assert.equal((await synced).outcomeName, 'committed');
      assertReplicaOf(origin, replica);
    });
  }

  for (const [earlier, at] of [
    ['no replica', 'getPages'],
    ['a replica', 'snapshot'],
    ['a replica', 'getPages'],
  ] as const) {
    test(`an origin that cannot be read to its end never ends in a commit (${earlier}, cut off at ${at})`, async (t) => {
      const folder = tempDir(t);
      const [origin, replica] = [join(folder, 'origin.db'), join(folder, 'replica.db')];
      generateDatabase(origin, { rows: 400 });
      if (earlier === 'a replica') await syncHere({ origin, replica });
      change(origin, (database) => database.exec('UPDATE item SET amount = amount + 1'));
      const before = earlier === 'a replica' ? pageImage(replica) : undefined;
      // Neither SQLite nor sqlsync does this: the file becomes shorter under the snapshot. SQLite then reads
      // zeros.
      const onFrame: FrameHook = ({ name }) => void (name === at && truncateSync(origin, 4096));
      await assert.rejects(syncHere({ origin, replica, onFrame }), { code: 'ORIGIN_UNREADABLE' });
      if (before === undefined) assert.equal(existsSync(replica), false);
      else assert.ok(pageImage(replica).equals(before));
    });
  }

  test('an origin that is cut off and replaced under the snapshot is ORIGIN_REPLACED, also before its end is checked', async (t) => {
    const folder = tempDir(t);
    const [origin, replica] = [join(folder, 'origin.db'), join(folder, 'replica.db')];
    generateDatabase(origin, { rows: 400 });
    const onFrame: FrameHook = ({ name }) => {
      if (name !== 'getPages') return;
      truncateSync(origin, 4096);
      renameSync(origin, `${origin}.old`);
      writeFileSync(origin, '');
    };
    await assert.rejects(syncHere({ origin, replica, onFrame }), { code: 'ORIGIN_REPLACED' });
    assert.equal(existsSync(replica), false);
  });

  test('the WAL of the origin, which grows under the snapshot, can be emptied as soon as the sync is done', async (t) => {
    const folder = tempDir(t);
    const [origin, replica] = [join(folder, 'origin.db'), join(folder, 'replica.db')];
    generateDatabase(origin, { rows: 400, journalMode: 'wal' });
    const writer = await new OtherProcess(t).open(origin);
    await writer.exec('PRAGMA wal_autocheckpoint = 0');
    await syncHere({ origin, replica, onFrame: () => writer.exec('UPDATE item SET amount = amount + 1') });
    assert.ok(statSync(`${origin}-wal`).size > 100_000);
    assert.deepEqual(await writer.rows('PRAGMA wal_checkpoint(TRUNCATE)'), [[0, 0, 0]]);
    assert.equal(statSync(`${origin}-wal`).size, 0);
  });

  test('pages beyond 4 GiB are where they are: no offset is counted in 32 bits', async (t) => {
    const origin = join(tempDir(t), 'origin.db');
    const pageSize = 65_536;
    generateDatabase(origin, { rows: 1, pageSize, journalMode: 'delete' });
    const last = 5 * 2 ** 30 + pageSize;
    const pages = last / pageSize;
    const marker = Buffer.alloc(pageSize, 'beyond');
    const file = openSync(origin, 'r+');
    const count = Buffer.alloc(4);
    count.writeUInt32BE(pages);
    writeSync(file, count, 0, 4, 28);
    writeSync(file, marker, 0, pageSize, last - pageSize); // sparse
    closeSync(file);
    for (const reader of ['file', 'dbpage'] as const) {
      const snapshot = await DatabaseSnapshot.open(origin, { reader, busyTimeoutMs: 0 });
      try {
        assert.equal(snapshot.pageCount, pages);
        assert.ok(marker.equals(snapshot.readPage(pages as PageNumber)), reader);
        assert.ok(!marker.equals(snapshot.readPage((pages % 65_536) as PageNumber)), reader);
      } finally {
        snapshot.close();
      }
    }
  });
});

test('every test that docs/reliability.md names exists', () => {
  const rows = [
    ...readFileSync(join(ROOT, 'docs/reliability.md'), 'utf8').matchAll(
      /^\| .* \| `(?<file>test\/[^`]+)` +\| +(?<name>.+?) +\|$/gm,
    ),
  ];
  assert.ok(rows.length >= 15, `only ${rows.length} rows`);
  for (const { groups } of rows) {
    const source = readFileSync(join(ROOT, groups?.['file'] ?? ''), 'utf8');
    assert.ok(source.includes(groups?.['name'] ?? ''), `${groups?.['file']} has no “${groups?.['name']}”`);
  }
});
