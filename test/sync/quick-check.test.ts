import { aged, extend, flip, Kept, noQuickCheck, prepareQuickTests } from '../support/quick.ts';
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { generateDatabase } from '../../fixtures/generate.ts';
import type { MessageName } from '../../protocol/messages.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import type { OtherConnection } from '../support/other-process.ts';
import { OtherProcess } from '../support/other-process.ts';

prepareQuickTests({ after });
const { change, syncHere } = await import('../support/sync.ts');
const { runSync } = await import('../../src/sync/runs/sync.ts');

type Mode = 'wal' | 'delete';

interface Pair {
  readonly t: TestContext;
  readonly origin: string;
  readonly replica: string;
}

/** A copy whose next sync is quick, as long as nothing touches it. */
async function quickPair(t: TestContext, mode: Mode, prepare?: (pair: Pair) => unknown): Promise<Pair> {
  const folder = tempDir(t);
  const pair = { t, origin: join(folder, 'origin.db'), replica: join(folder, 'replica.db') };
  generateDatabase(pair.origin, { rows: 100, journalMode: mode });
  await syncHere(pair);
  if (mode === 'delete') change(pair.replica, (db) => db.pragma('journal_mode = delete'));
  await prepare?.(pair);
  await settle(pair);
  return pair;
}

/** Syncs until a sync finds nothing to do and nothing to compare. */
async function settle(pair: Pair): Promise<void> {
  await aged(pair.origin, pair.replica);
  await syncHere(pair);
  await aged(pair.origin, pair.replica);
  const compared = await syncHere(pair);
  assert.equal(compared.outcomeName, 'unchanged');
  assert.equal((await syncHere(pair)).quick, true);
}

const counters = (path: string): string => {
  const header = readFileSync(path).subarray(0, 100);
  return [header.subarray(24, 40), header.subarray(92, 100)].map((bytes) => bytes.toString('hex')).join(' ');
};

/** A connection of a program that keeps its database open, and is killed with the test. */
function application(t: TestContext, path: string): Promise<OtherConnection> {
  return new OtherProcess(t).open(path);
}

describe('a sync of two databases that nothing has touched', { skip: noQuickCheck() ?? false }, () => {
  for (const mode of ['wal', 'delete'] as const) {
    test(`an unchanged pair costs no comparison, hash or page in mode ${mode}`, async (t) => {
      const pair = await quickPair(t, mode);
      const names: MessageName[] = [];
      const before = [pair.origin, pair.replica].map((path) => readFileSync(path));
      const result = await syncHere({ ...pair, onFrame: ({ name }) => void names.push(name) });
      assert.equal(result.outcomeName, 'unchanged');
      assert.deepEqual([result.quick, result.pagesCompared], [true, 0]);
      assert.deepEqual(
        names.filter((name) => name !== 'alive'),
        ['hello', 'hello', 'open', 'getHashes', 'snapshot', 'release', 'done', 'close'],
      );
      assert.deepEqual(
        [pair.origin, pair.replica].map((path) => readFileSync(path)),
        before,
      );
    });
  }

  test('a sync is quick too while an application has the origin open with frames in its WAL', async (t) => {
    await quickPair(t, 'wal', async ({ origin }) => {
      const writer = await application(t, origin);
      await writer.exec('UPDATE item SET amount = 3');
    });
  });

  test('a sync is quick too while a reader has the replica open with frames in its WAL', async (t) => {
    await quickPair(t, 'wal', async (pair) => {
      const reader = await new OtherProcess(t).open(pair.replica, { readonly: true });
      await reader.exec('BEGIN');
      await reader.rows('SELECT count(*) FROM item');
      change(pair.origin, (db) => db.exec('UPDATE item SET amount = 3'));
      await syncHere(pair);
      assert.ok(statSync(`${pair.replica}-wal`).size > 0);
    });
  });
});

type History = (pair: Pair) => unknown;

/** Changes of a pair of databases, each of which deceives some simpler stamp. */
const HISTORIES: Record<Mode, Record<string, History>> = {
  wal: {
    'an application commits': async ({ t, origin }) => {
      await (await application(t, origin)).exec('UPDATE item SET amount = 1');
    },
    'a program commits and closes the database': ({ origin }) =>
      change(origin, (db) => db.exec('UPDATE item SET amount = 1')),
    'a program commits, and empties the WAL': async ({ t, origin }) => {
      const writer = await application(t, origin);
      await writer.exec('UPDATE item SET amount = 1; PRAGMA wal_checkpoint(TRUNCATE)');
    },
    'the journal mode is changed, with a commit in it, and changed back': ({ origin }) =>
      change(origin, (db) => {
        db.pragma('journal_mode = delete');
        db.exec('UPDATE item SET amount = 1');
        db.pragma('journal_mode = wal');
      }),
    'the replica is changed by SQLite': ({ replica }) =>
      change(replica, (db) => db.exec('UPDATE item SET amount = 2')),
    'the replica is changed by a program that keeps it open': async ({ t, replica }) => {
      await (await application(t, replica)).exec('UPDATE item SET amount = 2');
    },
  },
  delete: {
    'a program commits': ({ origin }) => change(origin, (db) => db.exec('UPDATE item SET amount = 1')),
    'a program commits, and sets the time of change back': ({ origin }) => {
      const kept = new Kept(origin);
      change(origin, (db) => db.exec('UPDATE item SET amount = 1'));
      kept.touchBack();
    },
    'a program switches to WAL and commits there': async ({ t, origin }) => {
      const writer = await application(t, origin);
      await writer.rows('PRAGMA journal_mode = wal');
      await writer.exec('UPDATE item SET amount = 1');
    },
    'a transaction is rolled back that has spilled into free pages': ({ origin }) => {
      const [before, bytes] = [counters(origin), readFileSync(origin)];
      change(origin, (db) => {
        db.pragma('cache_size = 1');
        db.exec('BEGIN');
        const insert = db.prepare('INSERT INTO attachment (label, amount, payload) VALUES (?, 1, ?)');
        for (let i = 0; i < 40; i++) insert.run(`spilled ${i}`, Buffer.alloc(3000, i));
        db.exec('ROLLBACK');
      });
      assert.equal(counters(origin), before, 'no counter moved');
      assert.ok(!readFileSync(origin).equals(bytes), 'free pages changed');
    },
    'the replica is changed by SQLite': ({ replica }) =>
      change(replica, (db) => db.exec('UPDATE item SET amount = 2')),
  },
};

/** The same for both modes: changes by programs that know nothing of SQLite. */
const FOREIGN_HISTORIES: Record<string, History> = {
  'a byte of the origin is written, and its time of change set back': ({ origin }) => flip(origin),
  'a byte of the replica is written, and its time of change set back': ({ replica }) => flip(replica),
  'another file with the same counters, size and times is renamed to the origin': ({ origin }) => {
    const kept = new Kept(origin);
    copyFileSync(origin, `${origin}.new`);
    flip(`${origin}.new`);
    renameSync(`${origin}.new`, origin);
    kept.touchBack();
  },
  'another file with the same counters, size and times is renamed to the replica': ({ replica }) => {
    const kept = new Kept(replica);
    copyFileSync(replica, `${replica}.new`);
    flip(`${replica}.new`);
    renameSync(`${replica}.new`, replica);
    kept.touchBack();
  },
  'another sync makes the replica a copy of another origin': async (pair) => {
    const other = `${pair.origin}.other`;
    generateDatabase(other, { rows: 90, seed: 2 });
    await syncHere({ ...pair, origin: other, overwrite: true });
  },
  'a program restores the origin from a copy, and commits as often as before': ({ origin }) => {
    const old = new Kept(origin);
    const commit = (amount: number): unknown =>
      change(origin, (db) => db.prepare('UPDATE item SET amount = ?').run(amount));
    commit(4);
    const [before, kept] = [counters(origin), new Kept(origin)];
    old.putBack();
    commit(5);
    assert.equal(counters(origin), before, 'the counters are as before');
    kept.touchBack();
  },
};

/** Syncs once, and expects that it looks at the pages. */
async function assertCompared(pair: Pair): Promise<void> {
  const result = await syncHere({ ...pair, overwrite: true });
  assert.equal(result.quick, false);
  assert.ok(result.pagesCompared > 0);
  assertReplicaOf(pair.origin, pair.replica);
}

describe(
  'the next sync compares all pages, and makes the replica exact',
  {
    skip: noQuickCheck() ?? false,
  },
  () => {
    for (const mode of ['wal', 'delete'] as const) {
      for (const [name, history] of Object.entries({ ...HISTORIES[mode], ...FOREIGN_HISTORIES })) {
        test(`a sync compares all pages after this, in mode ${mode}: ${name}`, async (t) => {
          const pair = await quickPair(t, mode);
          await history(pair);
          await assertCompared(pair);
        });
      }
    }

    test('a sync compares all pages after an older -wal was put back, and another transaction of the same size committed', async (t) => {
      let older: Kept | undefined;
      const pair = await quickPair(t, 'wal', async ({ origin }) => {
        const program = new OtherProcess(t);
        const writer = await program.open(origin);
        await writer.exec('UPDATE item SET amount = 1 WHERE id = 1');
        older = new Kept(`${origin}-wal`);
        await writer.exec('UPDATE item SET amount = 2 WHERE id = 1');
        await program.end();
      });
      const newer = new Kept(`${pair.origin}-wal`);
      const walBefore = readFileSync(`${pair.origin}-wal`);
      older?.putBack();
      rmSync(`${pair.origin}-shm`);
      const program = new OtherProcess(t);
      await (await program.open(pair.origin)).exec('UPDATE item SET amount = 3 WHERE id = 1');
      await program.end();
      newer.touchBack();
      const wal = readFileSync(`${pair.origin}-wal`);
      assert.equal(wal.length, walBefore.length);
      assert.deepEqual(wal.subarray(0, 32), walBefore.subarray(0, 32), 'the salts are the same');
      assert.notDeepEqual(wal, walBefore);
      await assertCompared(pair);
    });

    test('a sync compares all pages after an older database with the same counters was copied under a -wal that was left', async (t) => {
      const pair = await quickPair(t, 'wal', async ({ origin }) => {
        const program = new OtherProcess(t);
        await (await program.open(origin)).exec('PRAGMA user_version = 7');
        await program.end();
      });
      assert.ok(statSync(`${pair.origin}-wal`).size > 0);
      flip(pair.origin);
      await assertCompared(pair);
    });

    test('a sync compares all pages after a program wrote through a memory map that it had written through before', async (t) => {
      if (spawnSync('python3', ['-c', 'import mmap']).status !== 0) return t.skip('python3 is not installed');
      const lines = [
        'import mmap, sys',
        'file = open(sys.argv[1], "r+b")',
        'map = mmap.mmap(file.fileno(), 0)',
        'for line in sys.stdin:',
        '    map[-1] ^= 1',
        '    print("written", flush=True)',
      ];
      let write = async (): Promise<unknown> => undefined;
      const pair = await quickPair(t, 'delete', async ({ origin }) => {
        const python = spawn('python3', ['-c', lines.join('\n'), origin], {
          stdio: ['pipe', 'pipe', 'inherit'],
        });
        const { stdin, stdout } = python;
        t.after(() => python.kill());
        write = () => {
          stdin.write('\n');
          return Promise.race([
            once(stdout, 'data'),
            once(python, 'exit').then(() => assert.fail('it ended')),
          ]);
        };
        await write();
      });
      await write();
      await assertCompared(pair);
    });

    test('a sync compares all pages after a checkpoint, which changes no content', async (t) => {
      let writer: OtherConnection | undefined;
      const pair = await quickPair(t, 'wal', async ({ origin }) => {
        writer = await application(t, origin);
        await writer.exec('UPDATE item SET amount = 1');
      });
      await writer?.exec('PRAGMA wal_checkpoint(PASSIVE)');
      await assertCompared(pair);
      await settle(pair);
    });
  },
);

describe(
  'a sync of two databases that nothing has touched compares all pages nevertheless',
  {
    skip: noQuickCheck() ?? false,
  },
  () => {
    for (const options of [
      { full: true },
      { fullEveryMs: 0 },
      { fullEveryMs: 1 },
      { check: true },
      { dryRun: true },
      { hash: 'sha256' },
      { reader: 'dbpage' },
    ] as const) {
      test(`a sync of an unchanged pair compares all pages with ${JSON.stringify(options)}`, async (t) => {
        const pair = await quickPair(t, 'wal');
        const result = await syncHere({ ...pair, ...options });
        assert.equal(result.quick, false);
        assert.ok(result.pagesCompared > 0);
      });
    }

    const FAULTS: Record<string, (path: string) => void> = {
      'is damaged': (path) =>
        writeFileSync(path, readFileSync(path, 'utf8').replace('"comparedAt":1', '"comparedAt":2')),
      'is cut off': (path) => writeFileSync(path, readFileSync(path).subarray(0, 40)),
      'is gone': (path) => rmSync(path),
      'may be written by others': (path) => chmodSync(path, 0o622),
      'is a link': (path) => {
        renameSync(path, `${path}.elsewhere`);
        spawnSync('ln', ['-s', `${path}.elsewhere`, path]);
      },
    };
    for (const [name, harm] of Object.entries(FAULTS)) {
      test(`a sync of an unchanged pair compares all pages if the record ${name}`, async (t) => {
        const pair = await quickPair(t, 'wal');
        const folder = join(process.env['XDG_CACHE_HOME'] as string, 'sqlsync', 'quick');
        for (const record of readdirSync(folder)) harm(join(folder, record));
        assert.equal((await syncHere(pair)).quick, false);
        for (const record of readdirSync(folder)) rmSync(join(folder, record));
      });
    }

    test('a sync compares all pages if it cannot keep a record, and a note says so', async (t) => {
      const cache = process.env['XDG_CACHE_HOME'];
      t.after(() => (process.env['XDG_CACHE_HOME'] = cache));
      const pair = await quickPair(t, 'wal');
      process.env['XDG_CACHE_HOME'] = pair.origin;
      const notes: string[] = [];
      for (let run = 1; run <= 2; run++) {
        const { quick, warnings } = await runSync({ ...pairPaths(pair), onNote: (note) => notes.push(note) });
        assert.deepEqual([quick, warnings], [false, []]);
      }
      assert.match(notes.join(), /next run will compare all pages.*(?:ENOTDIR|EEXIST)/);
    });
  },
);

const pairPaths = ({ origin, replica }: Pair): { origin: string; replica: string } => ({ origin, replica });

describe('a quick sync', { skip: noQuickCheck() ?? false }, () => {
  test('a quick sync still refuses a replica that has lost its mark, or got another name', async (t) => {
    const pair = await quickPair(t, 'wal');
    const mark = join(pair.replica, '..', '.replica.db.sqlsync');
    renameSync(mark, `${mark}.kept`);
    await assert.rejects(syncHere(pair), { code: 'REPLICA_NOT_MARKED' });
    renameSync(`${mark}.kept`, mark);
    linkSync(pair.replica, `${pair.replica}.link`);
    await assert.rejects(syncHere(pair), { code: 'REPLICA_LINK' });
  });

  test('a quick sync still warns of a rollback-mode origin, and removes leftovers of a killed run', async (t) => {
    const pair = await quickPair(t, 'delete');
    const part = join(pair.replica, '..', '.replica.db.sqlsync-part');
    writeFileSync(part, 'left');
    const warnings: string[] = [];
    const { quick } = await syncHere({ ...pair, onWarning: (warning) => warnings.push(warning) });
    assert.equal(quick, true);
    assert.match(warnings.join(), /is in rollback mode/);
    assert.equal(existsSync(part), false);
  });

  test('the summary reports a quick sync, also of a run with a process of its own for the origin', async (t) => {
    const pair = await quickPair(t, 'wal');
    const first = await runSync(pairPaths(pair));
    // The origin has another name for its agent: that of its host.
    assert.deepEqual([first.outcome, first.quick], ['unchanged', false]);
    process.env['SQLSYNC_AGENT_PROCESS'] = '1';
    t.after(() => delete process.env['SQLSYNC_AGENT_PROCESS']);
    const { outcome, quick, pagesCompared, pageCount } = await runSync(pairPaths(pair));
    assert.deepEqual([outcome, quick, pagesCompared], ['unchanged', true, 0]);
    assert.equal(pageCount, first.pageCount);
  });

  test('a quick sync of a large database starts no process, and one that has pages to compare does', async (t) => {
    const [origin, replica] = ['origin', 'replica'].map((name) => join(tempDir(t), `${name}.db`)) as [
      string,
      string,
    ];
    generateDatabase(origin, { rows: 100 });
    extend(origin, 163_840_000);
    const { execPath } = process;
    t.after(() => (process.execPath = execPath));
    await runSync({ origin, replica });
    await aged(origin, replica);
    await runSync({ origin, replica });
    process.execPath = '/nonexistent/node';
    const { quick, pageCount } = await runSync({ origin, replica });
    assert.deepEqual([quick, pageCount], [true, 163_840_000 / 4096]);
    await assert.rejects(runSync({ origin, replica, full: true }));
    change(origin, (db) => db.exec('UPDATE item SET amount = 9'));
    await assert.rejects(runSync({ origin, replica }));
    process.execPath = execPath;
    assert.equal((await runSync({ origin, replica })).outcome, 'committed');
  });
});
