import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { Spool } from '../../src/replica/spool/spool.ts';
import { runSync } from '../../src/sync/runs/sync.ts';
import { assertReplicaOf, sha256File } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { Scenario } from '../support/relay-scenario.ts';
import type { Pair } from '../support/relay-near.ts';
import type { SyncHereResult } from '../support/sync.ts';
import { change, syncHere } from '../support/sync.ts';

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-resume-'));
after(() => rmSync(folder, { recursive: true }));
const scenario = await Scenario.make(folder, { blobs: 2600, pageSize: 4096 });

const KINDS = ['wal', 'rollback'] as const;
type Kind = (typeof KINDS)[number];

/** All kinds with SQLSYNC_SLOW_TESTS; else each test in one of them. */
function tenths(kind: Kind): number[] {
  const all = [1, 2, 3, 4, 5, 6, 7, 8, 9];
  if (process.env['SQLSYNC_SLOW_TESTS'] === '1') return all;
  return all.filter((tenth) => (tenth % 2 === 1) === (kind === 'wal'));
}

const staged = { staging: 'always', compression: 'none' } as const;

function spoolOf({ replica }: Pair): string {
  return join(dirname(replica), '.replica.db.sqlsync-spool');
}

/** A sync that ends after the first `batches` messages with pages have arrived. */
async function breakAfter(batches: number, pair: Pair): Promise<void> {
  let passed = 0;
  const onFrame = ({ name }: { name: string }): 'cut' | void => {
    if (name === 'pages' && ++passed > batches) return 'cut';
  };
  await assert.rejects(syncHere({ ...pair, ...staged, overwrite: true, onFrame }), {
    code: 'CONNECTION_LOST',
  });
}

/** A pair with some pages waiting in the spool. */
async function broken(kind: Kind, batches = 4): Promise<Pair> {
  const pair = scenario.pair(kind);
  await breakAfter(batches, pair);
  assert.ok(existsSync(spoolOf(pair)));
  return pair;
}

async function pagesIn(pair: Pair): Promise<number> {
  const spool = await Spool.resume(spoolOf(pair), String(statSync(pair.replica).ino));
  assert.ok(spool !== undefined);
  spool.close();
  return spool.held.count;
}

let whole: SyncHereResult | undefined;

/** The figures of an unbroken sync. */
async function wholeRun(): Promise<SyncHereResult> {
  return (whole ??= await syncHere({ ...scenario.pair('wal'), ...staged }));
}

function assertDone(kind: Kind, pair: Pair): void {
  assert.equal(scenario.state(kind, pair), 'new');
  assert.equal(existsSync(spoolOf(pair)), false, 'the spool is gone');
  assert.equal(existsSync(join(dirname(pair.replica), '.replica.db.sqlsync-lock')), false, 'and its lock');
}

test('a sync of a new replica that was broken reports all its pages', async () => {
  const pair = scenario.pair('new');
  await breakAfter(4, pair);
  assert.ok(existsSync(join(dirname(pair.replica), '.replica.db.sqlsync-part')));
  const dry = await syncHere({ ...pair, dryRun: true });
  const rest = await syncHere(pair);
  assert.deepEqual([dry.pagesChanged, rest.pagesChanged], [rest.pageCount, rest.pageCount]);
  assert.ok(rest.resumed && rest.pagesTransferred < rest.pageCount);
});

for (const kind of KINDS) {
  describe(`a sync of a replica in ${kind} mode`, () => {
    test('a sync that breaks at any tenth is resumed with only the rest travelling', async () => {
      const { pagesTransferred: all } = await wholeRun();
      const batches = Math.ceil(all / 256);
      assert.ok(batches >= 10, `${batches} batches`);
      let last = 0;
      for (const tenth of tenths(kind)) {
        const pair = await broken(kind, Math.floor((batches * tenth) / 10));
        const arrived = await pagesIn(pair);
        assert.ok(arrived > last, `${arrived} pages after ${tenth} tenths, ${last} before`);
        last = arrived;
        assert.equal(scenario.state(kind, pair), 'old');
        const rest = await syncHere({ ...pair, compression: 'none' });
        assert.equal(rest.resumed, true);
        // Page 1 does not wait in the spool.
        assert.ok(rest.pagesTransferred <= all - arrived + 1, `tenth ${tenth}: ${rest.pagesTransferred}`);
        assertDone(kind, pair);
      }
      assert.ok(last > all / 2);
    });

    test('a broken sync tells of all pages that its commit changed', async () => {
      const { pagesChanged } = await wholeRun();
      const pair = await broken(kind);
      const dry = await syncHere({ ...pair, dryRun: true });
      assert.equal(dry.pagesChanged, pagesChanged, 'a dry run tells the same');
      const rest = await syncHere({ ...pair, compression: 'none' });
      assert.equal(rest.pagesChanged, pagesChanged);
      assert.ok(rest.pagesTransferred < pagesChanged, 'some were there already');
      assert.equal((await syncHere(pair)).pagesChanged, 0);
    });

    test('a sync that breaks again and again ends all the same', async () => {
      const { pagesTransferred: all } = await wholeRun();
      const pair = scenario.pair(kind);
      for (let i = 0; i < 3; i++) await breakAfter(3, pair);
      const arrived = await pagesIn(pair);
      const rest = await syncHere({ ...pair, compression: 'none' });
      assert.ok(
        arrived > all / 4 && rest.pagesTransferred <= all - arrived + 1,
        String(rest.pagesTransferred),
      );
      assertDone(kind, pair);
      assertReplicaOf(pair.origin, pair.replica);
    });

    test('a resumed sync takes the new pages of an origin that changed since, also of one that has shrunk or grown', async () => {
      const changes = [
        'UPDATE bulk SET payload = randomblob(3000) WHERE id % 100 = 0',
        'DELETE FROM bulk WHERE id > 300; VACUUM',
        'INSERT INTO bulk (payload) SELECT randomblob(3000) FROM bulk',
      ];
      for (const sql of kind === 'wal' ? changes : changes.slice(1, 2)) {
        const pair = await broken(kind);
        const origin = join(dirname(pair.replica), 'changed.db');
        copyFileSync(pair.origin, origin);
        change(origin, (db) => db.exec(sql));
        // The spool may lack pages in its middle, too.
        const changed = { origin, replica: pair.replica };
        const result = await syncHere({ ...changed, overwrite: true });
        assert.deepEqual([result.outcomeName, result.resumed], ['committed', true], sql);
        assertReplicaOf(origin, pair.replica);
        assert.equal(existsSync(spoolOf(pair)), false);
      }
    });

    test('a sync that broke while the replica grew is resumed with the new pages that have arrived', async () => {
      const pair = scenario.pair(kind);
      const origin = join(dirname(pair.replica), 'grown.db');
      copyFileSync(pair.origin, origin);
      change(origin, (db) =>
        db.exec('INSERT INTO bulk (payload) VALUES (zeroblob(9000000)), (randomblob(3000000))'),
      );
      await breakAfter(11, { origin, replica: pair.replica });
      await syncHere({ origin, replica: pair.replica, overwrite: true });
      assertReplicaOf(origin, pair.replica);
    });

    test('a resumed sync writes no page of the spool that is the replica’s already, and removes the spool', async (t) => {
      const pair = await broken(kind);
      const origin = join(dirname(pair.replica), 'as-before.db');
      copyFileSync(pair.replica, origin);
      const other = await new OtherProcess(t).open(pair.replica); // So that the WAL stays.
      await other.rows('SELECT count(*) FROM bulk');
      const result = await syncHere({ origin, replica: pair.replica, overwrite: true });
      // The pages differed from the origin's when they were compared.
      assert.ok(result.pagesTransferred > 500, String(result.pagesTransferred));
      if (kind === 'wal') assert.ok(statSync(`${pair.replica}-wal`).size < 100_000);
      await other.call('close');
      assert.equal(existsSync(spoolOf(pair)), false);
      assertReplicaOf(origin, pair.replica);
    });

    test('a sync that was killed between its commit and the removal of the spool finds nothing changed', async () => {
      const pair = await broken(kind, 6);
      const kept = readFileSync(spoolOf(pair));
      await syncHere(pair);
      writeFileSync(spoolOf(pair), kept, { mode: 0o600 });
      const before = sha256File(pair.replica);
      const again = await syncHere(pair);
      assert.deepEqual([again.outcomeName, again.pagesTransferred], ['unchanged', 0]);
      assert.equal(sha256File(pair.replica), before);
      assertDone(kind, pair);
    });

    test('a resumed sync survives damage of the spool: damaged pages travel again', async () => {
      const pair = await broken(kind, 6);
      const bytes = readFileSync(spoolOf(pair));
      // Data of a page in the first group, and a hash.
      for (const at of [4096 + 4096 + 100 * 4096 + 7, 4096 + 8 * 150]) bytes[at] = (bytes[at] ?? 0) ^ 1;
      writeFileSync(spoolOf(pair), bytes);
      const rest = await syncHere(pair);
      assert.equal(rest.resumed, true);
      assertDone(kind, pair);
    });

    test('a resumed sync goes on beside another writer of the replica, who need not wait while pages arrive', async (t) => {
      const pair = scenario.pair(kind);
      const writer = await new OtherProcess(t).open(pair.replica, { timeoutMs: 0 });
      let locked = 0;
      const onFrame = async ({ name }: { name: string }): Promise<void> => {
        if (name !== 'pages' || locked >= 3) return;
        await writer.exec('BEGIN IMMEDIATE');
        await writer.exec('ROLLBACK');
        locked++;
      };
      await syncHere({ ...pair, ...staged, onFrame });
      assert.equal(locked, 3);
      assertDone(kind, pair);
    });

    test('a sync compares again if another writer changed the replica while pages arrived', async (t) => {
      const { pagesTransferred: all } = await wholeRun();
      const pair = scenario.pair('wal');
      const writer = await new OtherProcess(t).open(pair.replica);
      let opened = 0;
      let changed = false;
      const onFrame = async ({ name }: { name: string }): Promise<void> => {
        if (name === 'open') opened++;
        if (name !== 'pages' || changed) return;
        changed = true;
        await writer.exec('CREATE TABLE stray (x); INSERT INTO stray VALUES (randomblob(100000))');
      };
      const result = await syncHere({ ...pair, ...staged, onFrame });
      assert.deepEqual([opened, result.outcomeName], [2, 'committed']);
      // Pages that came for the first comparison count too.
      assert.ok(result.pagesTransferred >= all && result.pagesChanged >= all, JSON.stringify(result));
      await writer.call('close');
      assertDone('wal', pair);
    });
  });
}

describe('a spool beside the replica', () => {
  test('--dry-run leaves a spool as it is', async () => {
    const pair = await broken('wal');
    const before = sha256File(spoolOf(pair));
    await syncHere({ ...pair, dryRun: true });
    assert.equal(sha256File(spoolOf(pair)), before);
  });

  test('a sync between local files uses a spool too', async () => {
    const pair = await broken('wal', 8);
    const { pagesTransferred: all } = await wholeRun();
    const arrived = await pagesIn(pair);
    const summary = await runSync(pair);
    assert.deepEqual([summary.resumed, summary.attempts, summary.rounds], [true, 1, 1]);
    assert.ok(summary.pagesTransferred <= all - arrived + 1);
    assertDone('wal', pair);
  });

  test("a spool that is a symbolic link is refused, and the link's target stays as it is", async () => {
    const pair = scenario.pair('rollback');
    const target = join(dirname(pair.replica), 'target');
    writeFileSync(target, 'precious');
    symlinkSync(target, spoolOf(pair));
    await assert.rejects(syncHere(pair), { code: 'REPLICA_LINK' });
    assert.equal(readFileSync(target, 'utf8'), 'precious');
    assert.equal(scenario.state('rollback', pair), 'old');
  });

  test('a spool that has a second name is not written through it', async () => {
    const pair = await broken('rollback');
    const second = join(dirname(pair.replica), 'second');
    linkSync(spoolOf(pair), second);
    const before = sha256File(second);
    const result = await syncHere(pair);
    assert.equal(result.resumed, false);
    assert.equal(sha256File(second), before);
    assertDone('rollback', pair);
  });

  test('a spool of another page size is removed, with --replace too', async () => {
    const pair = await broken('rollback');
    const origin = join(dirname(pair.replica), 'small-pages.db');
    copyFileSync(pair.origin, origin);
    change(origin, (db) => db.exec('PRAGMA journal_mode = delete; PRAGMA page_size = 1024; VACUUM'));
    const result = await syncHere({ origin, replica: pair.replica, overwrite: true, replace: true });
    assert.equal(result.outcomeName, 'committed');
    assert.equal(existsSync(spoolOf(pair)), false);
    assertReplicaOf(origin, pair.replica);
  });

  test('a spool is no wider than its owner, and no larger than the new database', async () => {
    const pair = await broken('wal');
    const stats = statSync(spoolOf(pair));
    assert.equal(stats.mode & 0o777, 0o600);
    assert.ok(stats.size <= statSync(pair.origin).size * 1.002 + 8192);
  });

  test('a spool belongs to one sync at a time: a second one waits for it, and both leave the replica right', async () => {
    const pair = await broken('wal');
    const results = await Promise.all([runSync(pair), runSync(pair)]);
    assert.ok(results.some(({ outcome }) => outcome === 'committed'));
    assertDone('wal', pair);
  });
});
