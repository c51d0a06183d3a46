import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { SqlsyncError } from '../../src/errors.ts';
import { Restriction } from '../../src/sync/request/restriction.ts';
import { Rounds } from '../../src/sync/agents/rounds.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import type { OtherConnection } from '../support/other-process.ts';
import { runRelayed } from '../support/relay-near.ts';
import { REPLICA_KINDS, Scenario } from '../support/relay-scenario.ts';
import type { Frame, SyncHereResult } from '../support/sync.ts';
import { change, syncHere } from '../support/sync.ts';

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-rounds-'));
after(() => rmSync(folder, { recursive: true }));
const scenario = await Scenario.make(folder, { blobs: 2600, pageSize: 4096 });

/**
 * Several times the time of a comparison and a copy on a busy machine: a round comes to this limit only if a
 * test holds it up.
 */
const LIMIT_MS = 1500;
const LIMITS = { maxSnapshotMs: LIMIT_MS, maxWalGrowthBytes: 0 };

/** Files that rounds leave beside the replica. */
function leftovers(replica: string): string[] {
  return ['-spool', '-part', '-lock'].filter((suffix) =>
    existsSync(join(dirname(replica), `.replica.db.sqlsync${suffix}`)),
  );
}

/** Holds the connection at the second message with pages, until the snapshot has come to its limit, `rounds` times. */
function slowRounds(rounds: number): { onFrame: (frame: Frame) => Promise<void>; seen: string[] } {
  const seen: string[] = [];
  let pages = 0;
  return {
    seen,
    async onFrame({ name }) {
      seen.push(name);
      if (name === 'open') pages = 0;
      const over = seen.filter((passed) => passed === 'roundOver').length;
      if (name === 'pages' && ++pages === 2 && over < rounds) await delay(LIMIT_MS + 50);
    },
  };
}

/** One round that comes to its limit, after which the replica is gone. */
function deletedAfterRound(replica: string): {
  onFrame: (frame: Frame) => Promise<void>;
  isDeleted: () => boolean;
} {
  const { onFrame } = slowRounds(1);
  let deleted = false;
  return {
    isDeleted: () => deleted,
    async onFrame(frame) {
      await onFrame(frame);
      if (frame.name !== 'roundOver' || deleted) return;
      deleted = true;
      for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(replica + suffix, { force: true });
    },
  };
}

/** An origin in this mode, with a replica that lacks 10 MB, or without one. */
function pair(t: TestContext, mode: 'wal' | 'delete'): { origin: string; replica: string } {
  const origin = join(tempDir(t), 'origin.db');
  change(origin, (db) => {
    db.pragma(`journal_mode = ${mode}`);
    db.exec('CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB)');
    db.exec(
      'WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2600) INSERT INTO t (x) SELECT randomblob(3500) FROM n',
    );
  });
  return { origin, replica: join(tempDir(t), 'replica.db') };
}

describe('copying in rounds', () => {
  for (const kind of REPLICA_KINDS) {
    test(`copying in rounds ends with the snapshot of the last round, and no page travels twice (${kind} replica)`, async () => {
      const { pagesTransferred: all } = await syncHere({ ...scenario.pair(kind), compression: 'none' });
      const made = scenario.pair(kind);
      const { onFrame, seen } = slowRounds(3);
      const result = await syncHere({ ...made, compression: 'none', limits: LIMITS, onFrame });
      assert.deepEqual([result.outcomeName, result.resumed], ['committed', false]);
      assert.ok(result.rounds >= 4, `${result.rounds} rounds`);
      assert.equal(seen.filter((name) => name === 'open').length, result.rounds);
      // Each round fetches page 1.
      assert.ok(result.pagesTransferred <= all + result.rounds, `${result.pagesTransferred} of ${all}`);
      assert.ok(result.snapshotHeldMs >= LIMIT_MS);
      assert.equal(scenario.state(kind, made), 'new');
      assert.deepEqual(leftovers(made.replica), []);
      assertReplicaOf(made.origin, made.replica);
    });
  }

  for (const kind of ['wal', 'rollback'] as const) {
    test(`copying in rounds makes a replica in ${kind} mode anew that was deleted between two rounds`, async () => {
      const made = scenario.pair(kind);
      const { onFrame } = deletedAfterRound(made.replica);
      const result = await syncHere({ ...made, compression: 'none', limits: LIMITS, onFrame });
      assert.deepEqual([result.outcomeName, result.created], ['committed', true]);
      assert.deepEqual(leftovers(made.replica), []);
      assertReplicaOf(made.origin, made.replica);
    });
  }

  test('copying in rounds asks in each round whether a restricted agent may make a replica', async () => {
    const made = scenario.pair('wal');
    const { onFrame, isDeleted } = deletedAfterRound(made.replica);
    const options = { folder: dirname(made.replica), access: 'write', create: false } as const;
    const access = new Restriction(options).replica;
    const run = syncHere({ ...made, compression: 'none', limits: LIMITS, access, onFrame });
    await assert.rejects(run, { code: 'RESTRICTED' });
    assert.ok(isDeleted());
    assert.equal(existsSync(made.replica), false);
    assert.ok(!leftovers(made.replica).includes('-part'));
  });

  test('copying in rounds keeps the WAL of an origin with a busy writer within the limit', async (t) => {
    const { origin, replica } = pair(t, 'wal');
    const limit = 400_000;
    const writer = await new OtherProcess(t).open(origin);
    await writer.exec('PRAGMA journal_size_limit = 0');
    let written = 0;
    let largest = 0;
    // A commit of some 40 KB, and time for the origin agent to look at the WAL, before each message with
    // pages.
    const onFrame = async ({ name }: Frame): Promise<void> => {
      if (name === 'roundOver') await writer.exec('PRAGMA wal_checkpoint(TRUNCATE)');
      if (name !== 'pages' || written >= 4 * limit) return;
      await writer.exec(
        `UPDATE t SET x = randomblob(3500) WHERE id BETWEEN ${written} / 4000 AND ${written} / 4000 + 9`,
      );
      written += 40_000;
      largest = Math.max(largest, statSync(`${origin}-wal`).size);
      await delay(70);
    };
    const limits = { maxSnapshotMs: 0, maxWalGrowthBytes: limit };
    const result = await syncHere({ origin, replica, limits, onFrame });
    assert.ok(result.rounds > 1, `${written} bytes written, WAL of ${largest}, ${result.rounds} rounds`);
    // The commits between two looks at the WAL come on top.
    assert.ok(result.walGrowthBytes < limit + 300_000, `${result.walGrowthBytes}`);
    assert.ok(largest < limit + 600_000, `WAL of ${largest}`);
    await writer.call('close');
    // Writes after the last snapshot belong to the next sync.
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
  });

  test('copying in rounds lets writers of an origin in rollback mode in between two rounds', async (t) => {
    const { origin, replica } = pair(t, 'delete');
    const writer: OtherConnection = await new OtherProcess(t).open(origin, { timeoutMs: 60_000 });
    let pages = 0;
    let rounds = 0;
    let commit: Promise<unknown> | undefined;
    let committed = false;
    // Each round comes to its limit until the writer, who polls for a lock that no reader yields to, has had
    // its turn.
    const onFrame = async ({ name }: Frame): Promise<void> => {
      if (name === 'open') pages = 0;
      if (name === 'roundOver') rounds++;
      if (name !== 'pages' || ++pages !== 2 || committed || rounds >= 3) return;
      commit ??= writer
        .exec('BEGIN EXCLUSIVE; UPDATE t SET x = randomblob(3500) WHERE id < 5; COMMIT')
        .then(() => (committed = true));
      await delay(LIMIT_MS + 50);
    };
    let committedBeforeEnd = false;
    const result = await syncHere({
      origin,
      replica,
      limits: LIMITS,
      onFrame: async (frame) => {
        await onFrame(frame);
        if (frame.name === 'root') committedBeforeEnd = committed;
      },
    });
    await commit;
    assert.ok(result.rounds >= 2);
    assert.equal(committedBeforeEnd, true, `not within ${result.rounds} rounds`);
    await writer.call('close');
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
  });

  test('copying in rounds ends with the origin’s error if its -wal becomes unreadable', async (t) => {
    const { origin, replica } = pair(t, 'wal');
    const writer = await new OtherProcess(t).open(origin);
    await writer.exec('UPDATE t SET x = randomblob(3500) WHERE id < 5');
    const wal = `${origin}-wal`;
    let pages = 0;
    const onFrame = async ({ name }: Frame): Promise<void> => {
      if (name !== 'pages' || ++pages !== 2) return;
      renameSync(wal, `${wal}.away`);
      symlinkSync(wal, wal);
      await delay(120); // More than one look at it.
    };
    const limits = { maxSnapshotMs: 0, maxWalGrowthBytes: 1e9 };
    await assert.rejects(syncHere({ origin, replica, limits, onFrame }), {
      code: 'ORIGIN_UNREADABLE',
      message: /ELOOP/,
    });
    renameSync(`${wal}.away`, wal);
    await writer.call('close');
  });

  for (const role of ['pull', 'push'] as const) {
    test(`a peer that ends a round without a limit is refused (${role})`, async () => {
      const made = scenario.pair('wal');
      const over = { type: 'roundOver', snapshotHeldMs: 1, walGrowthBytes: 0 } as const;
      const { near, far } = await runRelayed(role, made, ({ message }) => [
        message.type === 'root' ? over : message,
      ]);
      const [replicaSide, originSide] = role === 'pull' ? [near, far] : [far, near];
      assert.equal(replicaSide?.code, 'PROTOCOL');
      assert.equal(originSide?.code, 'PROTOCOL');
      assert.equal(scenario.state('wal', made), 'old');
    });
  }
});

describe('rounds that come no nearer to their end', () => {
  const limits = { maxSnapshotMs: LIMIT_MS, maxWalGrowthBytes: 0 };

  test('rounds end with SNAPSHOT_LIMIT if writers write as much as arrives, and keep the pages that have arrived', async (t) => {
    const { origin, replica } = pair(t, 'wal');
    await syncHere({ origin, replica });
    const writer = await new OtherProcess(t).open(origin);
    // The comparison has to fit in, on a busy machine as well: the test is about the pages.
    const maxSnapshotMs = 2 * LIMIT_MS;
    const onFrame = async ({ name }: Frame): Promise<void> => {
      if (name === 'open') await writer.exec('UPDATE t SET x = randomblob(3500)');
      if (name === 'pages') await delay(maxSnapshotMs / 2);
    };
    const failure = await failed(
      syncHere({ origin, replica, limits: { ...limits, maxSnapshotMs }, onFrame }),
    );
    assert.equal(failure.code, 'SNAPSHOT_LIMIT');
    assert.match(failure.message, /limit 3 s.* pages missing, and the best one before with/);
    assert.match(failure.hint ?? '', /--max-snapshot/);
    assert.deepEqual(leftovers(replica), ['-spool']);
    await writer.call('close');
    const rest: SyncHereResult = await syncHere({ origin, replica });
    assert.equal(rest.resumed, true);
    assertReplicaOf(origin, replica);
  });

  test('rounds end with SNAPSHOT_LIMIT if the comparison alone takes longer', async () => {
    const made = scenario.pair('wal');
    const onFrame = async ({ name }: Frame): Promise<void> => {
      if (name === 'hashes') await delay(LIMIT_MS + 50);
    };
    const failure = await failed(syncHere({ ...made, limits, onFrame }));
    assert.equal(failure.code, 'SNAPSHOT_LIMIT');
    assert.match(failure.message, /A round is too short: .*limit 1\.5 s/);
    assert.equal(scenario.state('wal', made), 'old');
  });

  test('rounds come no nearer to their end if three in a row leave no fewer pages missing than the best', () => {
    const rounds = new Rounds({ maxSnapshotMs: 1000, maxWalGrowthBytes: 0 });
    const figures = { snapshotHeldMs: 1, walGrowthBytes: 1, pagesTransferred: 5, pagesDelta: 0 };
    for (const pagesMissing of [100, 100, 120, 99, 99, 99]) rounds.add({ ...figures, pagesMissing });
    assert.throws(() => rounds.add({ ...figures, pagesMissing: 99 }), { code: 'SNAPSHOT_LIMIT' });
    assert.equal(rounds.pagesTransferred, 35);
  });
});

async function failed(run: Promise<unknown>): Promise<SqlsyncError> {
  try {
    await run;
  } catch (error) {
    assert.ok(error instanceof SqlsyncError);
    return error;
  }
  return assert.fail('it succeeded');
}
