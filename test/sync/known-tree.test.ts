import { aged, extend, flip, Kept, noQuickCheck, prepareQuickTests } from '../support/quick.ts';
import { KnownPair, keepAllTrees } from '../support/known-tree.ts';
import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';

import { after, describe, test } from 'node:test';
import type { SyncSummary } from '../../src/sync/runs/sync.ts';
import { generateDatabase } from '../../fixtures/generate.ts';
import { assertReplicaOf, assertSamePages } from '../support/compare.ts';

prepareQuickTests({ after });
keepAllTrees();
const { change, syncHere } = await import('../support/sync.ts');
const { runSync } = await import('../../src/sync/runs/sync.ts');

const skip = noQuickCheck() ?? false;

/** Bytes that this process has read so far, from files and pipes. */
const bytesRead = (): number => Number(/^rchar: (\d+)/.exec(readFileSync('/proc/self/io', 'utf8'))?.[1]);

describe('a sync of a database that has changed little', { skip }, () => {
  test('a sync reads neither side whole, run after run, whatever grows or shrinks', async (t) => {
    const pair = await new KnownPair(t, 8000).settle();
    const size = readFileSync(pair.replica).length;
    for (const sql of [
      'UPDATE item SET amount = 5 WHERE id % 2000 = 7',
      "INSERT INTO attachment (label, amount, payload) VALUES ('new', 1, zeroblob(30000))",
      "DELETE FROM attachment WHERE label = 'new'",
      'CREATE TABLE extra (id INTEGER PRIMARY KEY); INSERT INTO extra VALUES (1)',
      'DROP TABLE extra',
    ]) {
      await pair.exec(sql);
      const before = bytesRead();
      const { frames = 0, isReplicaKnown, pagesChanged, outcomeName } = await pair.sync();
      const read = bytesRead() - before;
      assert.deepEqual([isReplicaKnown, outcomeName], [true, 'committed'], sql);
      assert.ok(
        frames >= pagesChanged && pagesChanged > 0,
        `${frames} pages with frames, ${pagesChanged} changed`,
      );
      assert.ok(read < size / 2, `${sql}: ${read} bytes were read, ${size} is one side`);
      assertReplicaOf(pair.origin, pair.replica);
    }
  });

  test('a sync reads little too if a run in between found no difference', async (t) => {
    const pair = await new KnownPair(t).settle();
    assert.equal((await pair.sync()).outcomeName, 'unchanged');
    assert.equal((await pair.sync()).quick, true);
    await pair.exec('UPDATE item SET amount = 8 WHERE id = 8');
    const { frames, isReplicaKnown } = await pair.sync();
    assert.ok(frames !== undefined && isReplicaKnown);
    assertReplicaOf(pair.origin, pair.replica);
  });

  test('a sync reads little too while a reader has the replica open', async (t) => {
    const pair = await new KnownPair(t).settle();
    const reader = await pair.program.open(pair.replica, { readonly: true });
    await reader.rows('SELECT count(*) FROM item');
    for (let round = 1; round <= 3; round++) {
      await pair.exec(`UPDATE item SET amount = ${round + 50} WHERE id = ${round}`);
      const { frames, isReplicaKnown } = await pair.sync();
      assert.ok(frames !== undefined);
      assert.ok(isReplicaKnown || round === 1, `round ${round}`);
      assertReplicaOf(pair.origin, pair.replica);
    }
  });

  test('each of two replicas of an origin has hashes of its own', async (t) => {
    const pair = await new KnownPair(t).settle();
    const replica = `${pair.replica}-2`;
    for (let round = 1; round <= 4; round++) {
      await pair.exec(`UPDATE item SET amount = ${round + 20} WHERE id = ${round}`);
      const first = await pair.sync();
      const second = await pair.sync({ replica });
      await aged(replica);
      assert.ok(first.frames !== undefined && first.isReplicaKnown, `first replica, round ${round}`);
      assert.equal(
        second.frames !== undefined && second.isReplicaKnown,
        round > 2,
        `second replica, round ${round}`,
      );
      assertReplicaOf(pair.origin, pair.replica);
      assertReplicaOf(pair.origin, replica);
    }
  });

  test('the command uses the same hashes, with a process of its own for the origin', async (t) => {
    const pair = new KnownPair(t);
    process.env['SQLSYNC_AGENT_PROCESS'] = '1';
    t.after(() => delete process.env['SQLSYNC_AGENT_PROCESS']);
    const { origin, replica } = pair;
    let notes: string[] = [];
    for (let round = 1; round <= 4; round++) {
      await pair.exec(`UPDATE item SET amount = ${round} WHERE id = 1`);
      await aged(origin);
      notes = [];
      await runSync({ origin, replica, onNote: (note) => notes.push(note) });
      await aged(replica);
    }
    assert.match(notes.join(), /new frames in its WAL for \d+ pages/);
    assert.match(notes.join(), /as an earlier run left it/);
    assertReplicaOf(origin, replica);
  });
});

test(
  'a sync of a large database starts no process if the hashes seem to be known, and little changed',
  { skip },
  async (t) => {
    const pair = new KnownPair(t, 100);
    const { origin, replica } = pair;
    extend(origin, 163_840_000);
    const { execPath } = process;
    const syncAlone = (): Promise<SyncSummary> => {
      process.execPath = '/nonexistent/node';
      return runSync({ origin, replica }).finally(() => (process.execPath = execPath));
    };
    for (let round = 1; round <= 3; round++) {
      await pair.exec(commit(round));
      await aged(origin, ...(round > 1 ? [replica] : []));
      await runSync({ origin, replica });
    }
    await pair.exec(commit(4));
    await aged(replica);
    assert.equal((await syncAlone()).outcome, 'committed');
    assertSamePages(origin, replica);
    await pair.exec('PRAGMA wal_checkpoint(TRUNCATE)');
    await aged(origin, replica);
    await assert.rejects(syncAlone());
    assert.equal((await runSync({ origin, replica })).outcome, 'unchanged');
  },
);

/** What happens between two syncs, and whether the next sync may do without reading a side. */
interface History {
  readonly happens: (pair: KnownPair) => unknown;
  readonly origin?: 'whole' | 'frames' | 'either';
  readonly replica?: 'whole' | 'known';
}

/** Changes some rows that no other of these commits changes; single rows may be missing. */
const commit = (number: number): string =>
  `UPDATE item SET amount = amount + 1 WHERE id BETWEEN ${number * 20} AND ${number * 20 + 19}`;

const checkpoint =
  (mode: string): History['happens'] =>
  async (pair) => {
    await pair.exec(commit(3));
    await pair.exec(`PRAGMA wal_checkpoint(${mode})`);
    await pair.exec(commit(4));
  };

/** Each of them deceives some simpler rule. Without a word of it, both sides are known. */
const HISTORIES: Record<string, History> = {
  'a transaction spilled into the WAL and was rolled back, and a smaller one took its place': {
    happens: async (pair) => {
      await pair.exec(
        'PRAGMA cache_size = 1; BEGIN; UPDATE item SET payload = randomblob(2000) WHERE id < 60; ROLLBACK',
      );
      await pair.exec(commit(5));
    },
  },
  'a savepoint was rolled back within a transaction that spilled': {
    happens: (pair) =>
      pair.exec(
        `PRAGMA cache_size = 1; BEGIN; ${commit(2)}; SAVEPOINT s; UPDATE item SET payload = randomblob(900) WHERE id < 9; ROLLBACK TO s; ${commit(3)}; COMMIT`,
      ),
  },
  'the program was killed in a transaction, and another one recovered the WAL': {
    happens: async (pair) => {
      await pair.exec(
        'PRAGMA cache_size = 1; BEGIN; UPDATE item SET payload = randomblob(900) WHERE id < 60',
      );
      await pair.kill();
      await pair.exec(commit(5));
    },
  },
  'a passive checkpoint': { happens: checkpoint('PASSIVE'), origin: 'whole' },
  'a full checkpoint': { happens: checkpoint('FULL'), origin: 'whole' },
  'a restart of the WAL': { happens: checkpoint('RESTART'), origin: 'whole' },
  'the WAL was cut off': { happens: checkpoint('TRUNCATE'), origin: 'whole' },
  'a checkpoint, and no commit after it': {
    happens: async (pair) => {
      await pair.exec(commit(3));
      await pair.exec('PRAGMA wal_checkpoint(PASSIVE)');
    },
    origin: 'whole',
  },
  'the last program closed the database': {
    happens: async (pair) => {
      await pair.exec(commit(3));
      await pair.close();
    },
    origin: 'whole',
  },
  'a VACUUM after a great deletion': {
    happens: async (pair) => {
      await pair.exec('DELETE FROM attachment WHERE id % 3 > 0');
      await pair.exec('VACUUM');
    },
    origin: 'either',
  },
  'the database shrank and grew again, without a checkpoint': {
    happens: async (pair) => {
      await pair.exec('CREATE TABLE grown AS SELECT randomblob(3000) AS payload FROM item LIMIT 10');
      await pair.sync();
      await pair.exec('DROP TABLE grown; VACUUM');
      await pair.sync();
      await pair.exec('CREATE TABLE grown AS SELECT randomblob(3000) AS payload FROM item LIMIT 5');
    },
    origin: 'either',
  },
  'a change of the journal mode and back, with a commit in it': {
    happens: async (pair) => {
      await pair.close();
      change(pair.origin, (db) => {
        db.pragma('journal_mode = delete');
        db.exec(commit(3));
        db.pragma('journal_mode = wal');
      });
      await pair.exec(commit(4));
    },
    origin: 'whole',
  },
  'an older -wal was put back, and another transaction of the same size committed': {
    happens: async (pair) => {
      await pair.kill();
      const older = new Kept(`${pair.origin}-wal`);
      await pair.exec(commit(6));
      await pair.sync();
      await pair.kill();
      older.putBack();
      rmSync(`${pair.origin}-shm`);
      // The origin has lost a commit, and another one stands in its place.
      await pair.exec(commit(7));
    },
    origin: 'whole',
  },
  'an older -wal was put back, and more was committed than before': {
    happens: async (pair) => {
      await pair.kill();
      const older = new Kept(`${pair.origin}-wal`);
      await pair.exec(commit(6));
      await pair.sync();
      await pair.kill();
      older.putBack();
      rmSync(`${pair.origin}-shm`);
      for (const id of [7, 8, 9]) await pair.exec(commit(id));
    },
    origin: 'whole',
  },
  'an older database was copied under a -wal that was left': {
    happens: async (pair) => {
      await pair.kill();
      flip(pair.origin);
      await pair.exec(commit(3));
    },
    origin: 'whole',
  },
  'an older database was copied under a -wal that was left, and a checkpoint followed': {
    happens: async (pair) => {
      await pair.kill();
      flip(pair.origin);
      await pair.exec(commit(3));
      await pair.exec('PRAGMA wal_checkpoint(PASSIVE)');
    },
    origin: 'whole',
  },
  'another file with the same counters, size and times was renamed to the origin': {
    happens: async (pair) => {
      await pair.kill();
      const kept = new Kept(pair.origin);
      copyFileSync(pair.origin, `${pair.origin}.new`);
      flip(`${pair.origin}.new`);
      renameSync(`${pair.origin}.new`, pair.origin);
      kept.touchBack();
      await pair.exec(commit(3));
    },
    origin: 'whole',
  },
  'the -wal was cut off in the middle of a frame, and its last commit was lost': {
    happens: async (pair) => {
      await pair.exec(commit(3));
      await pair.sync();
      await pair.kill();
      const wal = readFileSync(`${pair.origin}-wal`);
      writeFileSync(`${pair.origin}-wal`, wal.subarray(0, wal.length - 100));
      rmSync(`${pair.origin}-shm`);
    },
    origin: 'whole',
  },
  'the replica was changed by SQLite': {
    happens: (pair) => change(pair.replica, (db) => db.exec(commit(3))),
    replica: 'whole',
  },
  'the replica was changed by a program that keeps it open': {
    happens: async (pair) => (await pair.program.open(pair.replica)).exec(commit(3)),
    replica: 'whole',
  },
  'a byte of the replica was written, and its time of change set back': {
    happens: (pair) => flip(pair.replica),
    replica: 'whole',
  },
  'an older replica was put back': {
    happens: async (pair) => {
      const older = new Kept(pair.replica);
      await pair.exec(commit(3));
      await pair.sync();
      older.putBack();
      for (const suffix of ['-wal', '-shm']) rmSync(pair.replica + suffix, { force: true });
    },
    replica: 'whole',
  },
  'another sync made the replica a copy of another origin': {
    happens: async (pair) => {
      const other = `${pair.origin}.other`;
      generateDatabase(other, { rows: 900, seed: 2 });
      await syncHere({ origin: other, replica: pair.replica, overwrite: true });
    },
    replica: 'whole',
  },
};

describe('a sync after any history makes the replica exact', { skip }, () => {
  for (const [name, { happens, origin = 'frames', replica = 'known' }] of Object.entries(HISTORIES)) {
    test(`a sync makes the replica exact, and reads what it has to, after this: ${name}`, async (t) => {
      const pair = await new KnownPair(t).settle();
      await happens(pair);
      const { frames, isReplicaKnown } = await pair.sync({ overwrite: true });
      assertSamePages(pair.origin, pair.replica);
      if (origin !== 'either') assert.equal(frames === undefined ? 'whole' : 'frames', origin, 'the origin');
      assert.equal(isReplicaKnown ? 'known' : 'whole', replica, 'the replica');
      await pair.exec(commit(11)).catch(() => {}); // some histories leave a damaged database
      await pair.sync({ overwrite: true });
      assertSamePages(pair.origin, pair.replica);
    });
  }

  test('a sync makes the replica exact after a change of the page size', async (t) => {
    const pair = await new KnownPair(t).settle();
    await pair.close();
    change(pair.origin, (db) => {
      db.pragma('journal_mode = delete');
      db.pragma('page_size = 1024');
      db.exec('VACUUM');
      db.pragma('journal_mode = wal');
    });
    await pair.sync({ replace: true });
    assertReplicaOf(pair.origin, pair.replica);
    await pair.exec(commit(3));
    await pair.sync();
    assertReplicaOf(pair.origin, pair.replica);
  });
});

describe('a sync that is to compare all pages', { skip }, () => {
  for (const options of [
    { full: true },
    { fullEveryMs: 0 },
    { check: true },
    { dryRun: true },
    { hash: 'sha256' },
    { reader: 'dbpage' },
  ] as const) {
    test(`a sync hashes all pages of both sides with ${JSON.stringify(options)}`, async (t) => {
      const pair = await new KnownPair(t).settle();
      await pair.exec(commit(2));
      const { frames, isReplicaKnown } = await pair.sync(options);
      assert.deepEqual([frames, isReplicaKnown], [undefined, false]);
    });
  }

  test('all pages are compared once the first comparison under a key is too old, however often runs followed', async (t) => {
    const pair = await new KnownPair(t).settle();
    const everyMs = 60_000;
    await pair.exec(commit(2));
    assert.notEqual((await pair.sync({ fullEveryMs: everyMs })).frames, undefined);
    t.mock.timers.enable({ apis: ['Date'], now: Date.now() + everyMs });
    await pair.exec(commit(3));
    const { frames, isReplicaKnown } = await pair.sync({ fullEveryMs: everyMs });
    assert.deepEqual([frames, isReplicaKnown], [undefined, false]);
    await pair.exec(commit(4));
    assert.notEqual((await pair.sync({ fullEveryMs: everyMs })).frames, undefined);
  });
});
