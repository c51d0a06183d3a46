import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, closeSync, existsSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { copyPages } from '../../src/pages/copy-pages.ts';
import { ReadTransaction } from '../../src/pages/read-transaction.ts';
import { runSync } from '../../src/sync/runs/sync.ts';
import type { SyncOptions, SyncSummary } from '../../src/sync/runs/sync.ts';
import { summaryOf } from '../cli/command.ts';
import { change, column, largeDatabase, names, smallDatabase } from '../pages/databases.ts';
import { sqlsyncWith } from '../replica/kill.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';

interface Place {
  readonly folder: string;
  readonly origin: string;
  readonly replica: string;
  readonly part: string;
}

function place(t: TestContext, make: (path: string) => void = (path) => largeDatabase(path, 6e6)): Place {
  const origin = join(tempDir(t), 'origin.db');
  make(origin);
  const folder = tempDir(t);
  return { folder, origin, replica: join(folder, 'r.db'), part: join(folder, '.r.db.sqlsync-part') };
}

const AT_REST = ['.r.db.sqlsync', 'r.db'];

/** True if an agent sent the pages. */
function hadAgent({ bytesReceived }: SyncSummary): boolean {
  return bytesReceived > 0;
}

/** Runs `code` instead of the call of this number of `fs.write`; its arguments are `args`. */
function atWrite(number: number, code: string): string {
  return `const { write } = fs; let calls = 0;
    fs.write = (...args) => { if (++calls === ${number}) { ${code} } return write(...args); };`;
}

async function withAgent(options: SyncOptions): Promise<SyncSummary> {
  process.env['SQLSYNC_AGENT_PROCESS'] = '1';
  try {
    return await runSync(options);
  } finally {
    delete process.env['SQLSYNC_AGENT_PROCESS'];
  }
}

describe('a new local replica', () => {
  test('a new local replica is made without an agent, and its summary equals that of two agents', async (t) => {
    const { folder, origin, replica } = place(t);
    chmodSync(origin, 0o640);
    const other = join(folder, 'other.db');
    const heard: string[] = [];
    const onProgress: SyncOptions['onProgress'] = ({ phase, pagesReceived, pageCount }) =>
      heard.push(pagesReceived === pageCount ? phase : '');
    const alone = await runSync({ origin, replica, check: true, onProgress });
    const agents = await withAgent({ origin, replica: other, check: true });
    assert.deepEqual([hadAgent(alone), hadAgent(agents)], [false, true]);
    const own = { durationMs: 0, snapshotHeldMs: 0, bytesSent: 0, bytesReceived: 0, replica: '' };
    assert.deepEqual({ ...alone, ...own }, { ...agents, ...own });
    assert.equal(heard.at(-1), 'commit');
    for (const path of [replica, other]) {
      assertReplicaOf(origin, path);
      assert.equal(statSync(path).mode & 0o777, 0o640);
      assert.equal((await runSync({ origin, replica: path })).outcome, 'unchanged');
    }
  });

  for (const [what, make] of [
    ['an origin in rollback mode', (path: string) => smallDatabase(path, { journalMode: 'delete' })],
    ['an origin without pages', (path: string) => writeFileSync(path, '')],
    ['pages of 512 bytes', (path: string) => smallDatabase(path, { pageSize: 512 })],
    ['pages of 65536 bytes', (path: string) => smallDatabase(path, { pageSize: 65536 })],
  ] as const) {
    test(`a new local replica is made of ${what}`, async (t) => {
      const { folder, origin, replica } = place(t, make);
      for (const reader of ['file', 'dbpage'] as const) {
        const path = `${replica}-${reader}`;
        const { outcome, created, bytesReceived } = await runSync({ origin, replica: path, reader });
        assert.deepEqual([outcome, created, bytesReceived], ['committed', true, 0]);
        if (statSync(origin).size > 0) assertReplicaOf(origin, path);
        else assert.equal(statSync(path).size, 0);
      }
      assert.equal(names(folder).length, 4);
    });
  }

  test('a new local replica is made by two agents if the request needs them', async (t) => {
    const { origin, replica, part } = place(t);
    assert.equal(hadAgent(await runSync({ origin, replica, maxSnapshotMs: 600_000 })), true);
    assert.equal(hadAgent(await runSync({ origin, replica: `${replica}2`, bandwidthBytesPerS: 1e9 })), true);
    const dry = await runSync({ origin, replica: `${replica}3`, dryRun: true });
    assert.deepEqual([dry.outcome, existsSync(`${replica}3`)], ['dryRun', false]);
    writeFileSync(part.replace('r.db', 'r.db4'), readFileSync(origin).subarray(0, 3e6));
    const resumed = await runSync({ origin, replica: `${replica}4` });
    assert.deepEqual([hadAgent(resumed), resumed.resumed], [true, true]);
    for (const suffix of ['', '2', '4']) assertReplicaOf(origin, replica + suffix);
  });

  test('a new local replica is refused as two agents refuse it', async (t) => {
    const { folder, origin, replica } = place(t, smallDatabase);
    const attempts: SyncOptions[] = [
      { origin: join(folder, 'none.db'), replica },
      { origin: folder, replica },
      { origin, replica: join(folder, 'none', 'r.db') },
      { origin, replica: folder },
    ];
    const failure = (run: Promise<unknown>): Promise<unknown> =>
      run.then(
        () => assert.fail('it was not refused'),
        ({ code, message, hint }: { code: string; message: string; hint: string }) => [code, message, hint],
      );
    for (const attempt of attempts)
      assert.deepEqual(await failure(runSync(attempt)), await failure(withAgent(attempt)));
    await runSync({ origin, replica });
    const swapped = { origin: replica, replica: origin.replace('origin', 'moved') };
    assert.equal((await runSync(swapped)).outcome, 'committed');
    assert.deepEqual(names(folder), AT_REST);
  });
});

describe('a local replica of another page size', () => {
  function otherPageSize(path: string): void {
    change(path, 'PRAGMA journal_mode = delete; PRAGMA page_size = 1024; VACUUM');
  }

  test('a local replica of another page size is replaced without an agent, and its summary equals that of two agents', async (t) => {
    const { folder, origin, replica } = place(t);
    const other = join(folder, 'other.db');
    for (const path of [replica, other]) await runSync({ origin, replica: path });
    otherPageSize(origin);
    const alone = await runSync({ origin, replica, replace: true });
    const agents = await withAgent({ origin, replica: other, replace: true });
    assert.deepEqual([hadAgent(alone), hadAgent(agents)], [false, true]);
    const own = { durationMs: 0, snapshotHeldMs: 0, bytesSent: 0, bytesReceived: 0, replica: '' };
    assert.deepEqual({ ...alone, ...own }, { ...agents, ...own });
    for (const path of [replica, other]) assertReplicaOf(origin, path);
  });

  test('a local replica of another page size is not replaced by an origin that lost more than --max-shrink', async (t) => {
    const { origin, replica } = place(t);
    await runSync({ origin, replica });
    change(origin, 'DELETE FROM t WHERE id > 8');
    otherPageSize(origin);
    const before = readFileSync(replica);
    const pair = { origin, replica, replace: true };
    await assert.rejects(runSync({ ...pair, maxShrinkPercent: 50 }), { code: 'ORIGIN_SHRUNK' });
    assert.ok(readFileSync(replica).equals(before));
    const shrunk = await runSync(pair);
    assert.equal(hadAgent(shrunk), false);
    assert.match(shrunk.warnings.join(), /--max-shrink would refuse/);
    assertReplicaOf(origin, replica);
  });
});

describe('a new local replica whose run is cut short', () => {
  test('a new local replica whose run is killed at a write goes on in the next run', async (t) => {
    for (const number of [1, 2, 4, 6]) {
      const { folder, origin, replica, part } = place(t);
      const { signal } = await sqlsyncWith(atWrite(number, 'kill();'), [origin, replica]);
      assert.equal(signal, 'SIGKILL');
      assert.ok(!existsSync(replica) && existsSync(part), `killed at write ${number}`);
      assert.equal((await summaryOf([origin, replica]))['outcome'], 'committed');
      assertReplicaOf(origin, replica);
      assert.deepEqual(names(folder), AT_REST);
    }
  });

  test('a new local replica whose run is killed before it is durable goes on in the next run', async (t) => {
    const { folder, origin, replica } = place(t);
    assert.equal((await sqlsyncWith('fs.fsyncSync = kill;', [origin, replica])).signal, 'SIGKILL');
    assert.ok(!existsSync(replica));
    assert.equal((await summaryOf([origin, replica]))['resumed'], true);
    assertReplicaOf(origin, replica);
    assert.deepEqual(names(folder), AT_REST);
  });

  test('a new local replica whose run is ended by a signal says so, and goes on in the next run', async (t) => {
    const { folder, origin, replica, part } = place(t);
    const code = atWrite(2, "process.kill(process.pid, 'SIGINT');");
    const { status, stderr } = await sqlsyncWith(code, [origin, replica]);
    assert.equal(status, 130, stderr);
    assert.match(stderr, /INTERRUPTED/);
    assert.ok(!existsSync(replica) && statSync(part).size > 0);
    assert.equal((await summaryOf([origin, replica]))['resumed'], true);
    assertReplicaOf(origin, replica);
    assert.deepEqual(names(folder), AT_REST);
  });

  test('a new local replica whose run exceeds --max-time fails with TIMEOUT and leaves none', async (t) => {
    const { origin, replica } = place(t);
    // The limit passes while a write hangs.
    const code = `const { write } = fs; fs.write = (...args) => void setTimeout(() => write(...args), 1500);`;
    const { stderr } = await sqlsyncWith(code, [origin, replica, '--max-time', '1']);
    assert.match(stderr, /TIMEOUT/);
    assert.ok(!existsSync(replica));
  });

  test('a new local replica whose disk is full says so, and goes on in the next run', async (t) => {
    const { origin, replica, part } = place(t);
    const code = atWrite(
      3,
      `return void process.nextTick(args.at(-1), Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' }));`,
    );
    const { status, stderr } = await sqlsyncWith(code, [origin, replica]);
    assert.equal(status, 4, stderr);
    assert.match(stderr, /ENOSPC.*REPLICA_UNWRITABLE/);
    assert.ok(!existsSync(replica) && statSync(part).size > 0);
    assert.equal((await summaryOf([origin, replica]))['resumed'], true);
    assertReplicaOf(origin, replica);
  });
});

test('a local copy finds a page that does not come out as it was written, and sends it again', async (t) => {
  const { folder, origin, replica } = place(t);
  const damage = `args[1] = Buffer.from(args[1]); args[1][5000] ^= 1;`;
  const { status, stdout, stderr } = await sqlsyncWith(atWrite(3, damage), [origin, replica, '--json']);
  assert.equal(status, 0, stderr);
  assert.match(stdout, /"resumed":true/);
  assertReplicaOf(origin, replica);
  assert.deepEqual(names(folder), AT_REST);
});

test('a local copy finds a first page that does not come out as it was written', async (t) => {
  const { origin, replica } = place(t);
  const damage = `const { write } = fs;
    fs.write = (...args) => {
      if (args[4] === 0) { args[1] = Buffer.from(args[1]); args[1][200] ^= 1; }
      return write(...args);
    };`;
  const { status, stderr } = await sqlsyncWith(damage, [origin, replica]);
  assert.notEqual(status, 0);
  assert.match(stderr, /ROOT_MISMATCH/);
  assert.ok(!existsSync(replica));
});

/** The rows that busy-writer.ts writes, with an index in which torn pages would show. */
const BUSY_TABLE = `CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB);
  CREATE INDEX t_body ON t (substr(body, 1, 20));
  WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
  INSERT INTO t (body) SELECT randomblob(1000) FROM n`;

describe('a copy of an origin that others write, checkpoint and VACUUM meanwhile', () => {
  async function withWriters(
    t: TestContext,
    work: (here: Place, round: number) => Promise<void>,
  ): Promise<void> {
    const here = place(t, (path) => {
      smallDatabase(path);
      change(path, BUSY_TABLE);
    });
    const writers: ChildProcess[] = [];
    try {
      for (const seed of ['1', '2']) {
        const writer = fork(join(import.meta.dirname, '..', 'pages', 'busy-writer.ts'), [here.origin, seed]);
        writers.push(writer);
        await once(writer, 'message');
      }
      for (let round = 1; round <= 8; round++) await work(here, round);
    } finally {
      await Promise.all(
        writers.map(async (writer) => {
          const exited = once(writer, 'exit');
          writer.send('stop');
          await exited;
        }),
      );
    }
  }

  test('a copy under writers has the pages that SQLite reads of its snapshot', async (t) => {
    await withWriters(t, async ({ origin, replica }, round) => {
      const database = {
        path: origin,
        name: 'the origin',
        guard: <T>(read: () => T): T => read(),
        replaced: () => new Error('it was replaced'),
      };
      const pages = await ReadTransaction.open(database, { busyTimeoutMs: 60_000 });
      const descriptor = openSync(`${replica}-${round}`, 'wx+');
      try {
        await copyPages(pages, descriptor);
        const copy = readFileSync(`${replica}-${round}`);
        assert.equal(copy.length, pages.pageCount * pages.pageSize);
        for (let page = 1; page <= pages.pageCount; page++) {
          const expected = pages.reader.readPage(page);
          assert.equal(expected.compare(copy, (page - 1) * pages.pageSize, page * pages.pageSize), 0);
        }
      } finally {
        closeSync(descriptor);
        pages.close();
        pages.closeFile();
      }
    });
  });

  test('a copy under writers is sound', async (t) => {
    await withWriters(t, async ({ origin, replica }, round) => {
      const path = `${replica}-${round}`;
      const summary = await runSync({ origin, replica: path, busyTimeoutMs: 60_000 });
      assert.equal(hadAgent(summary), false);
      assert.deepEqual(column(path, 'PRAGMA integrity_check'), ['ok']);
    });
  });
});
