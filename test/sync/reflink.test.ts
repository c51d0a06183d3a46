import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync, statSync, statfsSync, writeFileSync } from 'node:fs';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { runSync } from '../../src/sync/runs/sync.ts';
import type { SyncOptions } from '../../src/sync/runs/sync.ts';
import { assertRefused, summaryOf } from '../cli/command.ts';
import { change, column, largeDatabase, names, smallDatabase } from '../pages/databases.ts';
import { sqlsyncWith } from '../replica/kill.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { REFLINK_DISKS, reflinkDisk, usedBytes } from '../support/reflink-disk.ts';

const BYTES = 12e6;
const AT_REST = ['.r.db.sqlsync', 'r.db'];

interface Place {
  readonly disk: string;
  readonly folder: string;
  readonly origin: string;
  readonly replica: string;
}

function place(t: TestContext, kind: keyof typeof REFLINK_DISKS): Place | undefined {
  const disk = reflinkDisk(t, kind);
  if (disk === undefined) return undefined;
  const [origin, folder] = [join(disk, 'origin.db'), mkdtempSync(join(disk, 'r-'))];
  largeDatabase(origin, BYTES);
  return { disk, folder, origin, replica: join(folder, 'r.db') };
}

for (const kind of Object.keys(REFLINK_DISKS) as (keyof typeof REFLINK_DISKS)[]) {
  describe(`--reflink on ${kind}`, () => {
    test(`a reflinked replica on ${kind} is an exact copy, WAL included, shares its blocks, and is synced as usual after that`, async (t) => {
      const here = place(t, kind);
      if (here === undefined) return;
      const { disk, folder, origin, replica } = here;
      const writer = await new OtherProcess(t).open(origin);
      await writer.exec(
        'UPDATE t SET x = randomblob(7000) WHERE id % 100 = 1; DELETE FROM t WHERE id % 100 = 2',
      );
      assert.ok(statSync(`${origin}-wal`).size > 0);
      const before = usedBytes(disk);
      const summary = await runSync({ origin, replica, reflink: true, check: true });
      assert.deepEqual([summary.outcome, summary.created, summary.findings], ['committed', true, []]);
      assert.ok(usedBytes(disk) - before < BYTES / 4, 'the blocks are shared');
      assertReplicaOf(origin, replica);
      await writer.exec(
        'UPDATE t SET x = randomblob(8000) WHERE id % 100 = 3; PRAGMA wal_checkpoint(TRUNCATE)',
      );
      assert.equal((await runSync({ origin, replica, reflink: true })).created, false);
      assertReplicaOf(origin, replica);
      assert.deepEqual(names(folder), AT_REST);
    });

    test(`a reflinked replica on ${kind} of a small and of an empty origin is an exact copy`, async (t) => {
      const here = place(t, kind);
      if (here === undefined) return;
      const { disk, replica } = here;
      for (const pageSize of [512, 65536]) {
        const [origin, copy] = [join(disk, `small-${pageSize}.db`), `${replica}-${pageSize}`];
        smallDatabase(origin, { pageSize });
        await runSync({ origin, replica: copy, reflink: true });
        assertReplicaOf(origin, copy);
      }
      const empty = join(disk, 'empty.db');
      writeFileSync(empty, '');
      await runSync({ origin: empty, replica, reflink: true });
      assert.equal(statSync(replica).size, 0);
    });

    test(`a reflinked replica on ${kind} whose run is killed is made by the next run`, async (t) => {
      const here = place(t, kind);
      if (here === undefined) return;
      const { folder, origin, replica } = here;
      const part = join(folder, '.r.db.sqlsync-part');
      for (const code of ['fs.read = kill;', 'fs.fsyncSync = kill;']) {
        const { signal } = await sqlsyncWith(code, [origin, replica, '--reflink']);
        assert.equal(signal, 'SIGKILL');
        assert.ok(!existsSync(replica) && statSync(part).size >= statSync(origin).size);
        // Before it is complete, nobody can take it for a database.
        if (code.includes('fs.read'))
          assert.ok(readFileSync(part).subarray(0, 4096).equals(Buffer.alloc(4096)));
        change(origin, 'UPDATE t SET x = randomblob(8000) WHERE id % 100 = 1');
      }
      assert.equal((await summaryOf([origin, replica, '--reflink']))['outcome'], 'committed');
      assertReplicaOf(origin, replica);
      assert.deepEqual(names(folder), AT_REST);
    });

    test(`a reflink on ${kind} wants room for one more copy`, async (t) => {
      const here = place(t, kind);
      if (here === undefined) return;
      const { disk, folder, origin, replica } = here;
      fill(disk, BYTES / 2);
      const says = /needs 1\S+ MB more/;
      await assertRefused([origin, replica, '--reflink'], { code: 'REPLICA_UNWRITABLE', status: 4, says });
      assert.deepEqual(names(folder), []);
    });

    test(`reflinks on ${kind} under writers, checkpoints and VACUUM are sound`, async (t) => {
      const here = place(t, kind);
      if (here === undefined) return;
      const { disk, replica } = here;
      const origin = join(disk, 'busy.db');
      smallDatabase(origin);
      change(origin, BUSY_TABLE);
      const writer = fork(join(import.meta.dirname, '..', 'pages', 'busy-writer.ts'), [origin, '1']);
      try {
        await once(writer, 'message');
        for (let round = 1; round <= 8; round++) {
          const path = `${replica}-${round}`;
          await runSync({ origin, replica: path, reflink: true, busyTimeoutMs: 60_000 });
          assert.deepEqual(column(path, 'PRAGMA integrity_check'), ['ok']);
        }
      } finally {
        const exited = once(writer, 'exit');
        writer.send('stop');
        await exited;
      }
    });
  });
}

/** Fills a disk until at most so many bytes seem to be left. */
function fill(disk: string, leftBytes: number): void {
  for (let number = 0; ; number++) {
    usedBytes(disk); // what is not on the disk yet does not count
    const { bavail, bsize } = statfsSync(disk);
    const more = bavail * bsize - leftBytes;
    if (more < 0) return;
    writeFileSync(join(disk, `filler-${number}`), Buffer.alloc(Math.max(Math.ceil(more / 2), 1_000_000), 1));
  }
}

/** The rows that busy-writer.ts writes, with an index in which torn pages would show. */
const BUSY_TABLE = `CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB);
  CREATE INDEX t_body ON t (substr(body, 1, 20));
  WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
  INSERT INTO t (body) SELECT randomblob(1000) FROM n`;

test('--reflink says where there is none, and leaves nothing', async (t) => {
  const origin = join(tempDir(t), 'origin.db');
  smallDatabase(origin);
  const folder = mkdtempSync('/dev/shm/sqlsync-reflink-');
  t.after(() => rmSync(folder, { recursive: true }));
  const says = /no file can share the blocks of .*origin\.db there \(EXDEV\)/;
  const refusal = { code: 'USAGE', status: 2, says, hint: /btrfs or XFS/ } as const;
  await assertRefused([origin, join(folder, 'r.db'), '--reflink'], refusal);
  assert.deepEqual(readdirSync(folder), []);
});

test('--reflink is refused for what needs two agents', async (t) => {
  const origin = join(tempDir(t), 'origin.db');
  smallDatabase(origin);
  const options: (Partial<SyncOptions> & { readonly says: RegExp })[] = [
    { says: /two files of this host/, replica: 'db1.invalid:r.db' },
    { says: /two files of this host/, origin: 'db1.invalid:r.db' },
    { says: /--reflink and --bwlimit/, bandwidthBytesPerS: 1e6 },
    { says: /--reflink and --max-snapshot/, maxSnapshotMs: 1000 },
    { says: /--reflink and --max-wal-growth/, maxWalGrowthBytes: 1000 },
    { says: /--reflink and --reader dbpage/, reader: 'dbpage' },
  ];
  for (const { says, ...given } of options) {
    const request = { origin, replica: `${origin}-copy`, reflink: true, ...given };
    await assert.rejects(runSync(request), { code: 'USAGE', message: says });
  }
});
