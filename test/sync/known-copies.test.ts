import { aged, flip, noQuickCheck, prepareQuickTests } from '../support/quick.ts';
import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { generateDatabase } from '../../fixtures/generate.ts';
import { message } from '../../protocol/encode.ts';
import { DEFAULT_HASH, HASH_ALGORITHMS } from '../../protocol/messages.ts';
import { fromGaps } from '../../protocol/page-batch.ts';
import type { RestrictionOptions } from '../../src/sync/request/restriction.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';

prepareQuickTests({ after });
const { syncHere } = await import('../support/sync.ts');
const { besideReplica } = await import('../../src/beside/mark.ts');
const { Looker } = await import('../../src/sync/folder/look.ts');
const { lookAtKnownCopy } = await import('../../src/sync/folder/known-copies.ts');
const { packStamps } = await import('../../src/sync/folder/stamp-list.ts');
const { runFarAgent } = await import('../../src/sync/agents/far-agent.ts');
const { Connection } = await import('../../src/sync/link/connection.ts');
const { Restriction } = await import('../../src/sync/request/restriction.ts');
const { syncFolder } = await import('../../src/sync/runs/sync-folder.ts');
const { memoryTransportPair } = await import('../../src/transport/memory.ts');

type Mode = 'wal' | 'delete';

interface Copy {
  readonly origin: string;
  readonly replica: string;
}

const hash = DEFAULT_HASH;
const fullEveryMs = 1e9;

/** A pair that was compared when both were old enough for a stamp. */
async function comparedPair(t: TestContext, mode: Mode): Promise<Copy> {
  const folder = realpathSync(tempDir(t));
  const [origin, replica] = [join(folder, 'a/x.db'), join(folder, 'b/x.db')];
  for (const name of ['a', 'b']) mkdirSync(join(folder, name));
  generateDatabase(origin, { rows: 20, journalMode: mode });
  await syncHere({ origin, replica });
  await compareAgain({ origin, replica });
  return { origin, replica };
}

async function compareAgain({ origin, replica }: Copy): Promise<void> {
  await aged(origin, replica);
  await syncHere({ origin, replica });
}

function stampOf(path: string): Uint8Array | undefined {
  return new Looker().look(path)?.stamp;
}

function isKnown({ origin, replica }: Copy): boolean {
  const looker = new Looker();
  const originStamp = looker.look(origin)?.stamp;
  const copy = originStamp && { replica, originName: origin, originStamp };
  return copy !== undefined && lookAtKnownCopy(copy, { hash, fullEveryMs }, looker) !== undefined;
}

describe('a look at the databases of a folder', { skip: noQuickCheck() ?? false }, () => {
  for (const mode of ['wal', 'delete'] as const) {
    test(`a pair in mode ${mode} that nothing touched is known, and no file is made beside it`, async (t) => {
      const pair = await comparedPair(t, mode);
      const beside = Object.values(pair).flatMap((path) => ['-wal', '-shm'].map((suffix) => path + suffix));
      for (const path of beside) rmSync(path, { force: true });
      for (let i = 0; i < 2; i++) assert.ok(isKnown(pair));
      for (const path of beside) assert.equal(existsSync(path), false);
    });

    test(`a byte that another program changed in mode ${mode} makes the pair unknown, on either side`, async (t) => {
      for (const side of ['origin', 'replica'] as const) {
        const pair = await comparedPair(t, mode);
        flip(pair[side]);
        await aged(pair[side]);
        assert.equal(isKnown(pair), false, side);
      }
    });
  }

  test('an origin with a WAL in use is known until the next commit', async (t) => {
    const pair = await comparedPair(t, 'wal');
    const program = await new OtherProcess(t).open(pair.origin);
    await program.exec('UPDATE item SET amount = 1');
    assert.equal(isKnown(pair), false);
    await syncHere(pair);
    await compareAgain(pair);
    assert.ok(isKnown(pair));
    await program.exec('UPDATE item SET amount = 2');
    assert.equal(isKnown(pair), false);
  });

  test('a database whose -wal was removed under the program that writes it is not known', async (t) => {
    const pair = await comparedPair(t, 'wal');
    const program = await new OtherProcess(t).open(pair.origin);
    await program.rows('SELECT count(*) FROM item');
    assert.ok(isKnown(pair), 'the program has read only');
    for (const suffix of ['-wal', '-shm']) rmSync(pair.origin + suffix);
    await program.exec('UPDATE item SET amount = 3');
    assert.equal(isKnown(pair), false);
  });

  test('a journal that only SQLite can judge, a link, and another name leave the pair to a sync', async (t) => {
    const pair = await comparedPair(t, 'delete');
    const journal = `${pair.origin}-journal`;
    const header = Buffer.alloc(512);
    Buffer.from('d9d505f920a163d7', 'hex').copy(header);
    writeFileSync(journal, header);
    assert.equal(stampOf(pair.origin), undefined, 'journal');
    writeFileSync(journal, Buffer.alloc(512));
    assert.ok(isKnown(pair), 'a journal that its program has ended');
    linkSync(pair.origin, `${pair.origin}.link`);
    assert.equal(stampOf(pair.origin), undefined, 'hard link');
    const moved = `${pair.replica}.moved`;
    renameSync(pair.replica, moved);
    symlinkSync(moved, pair.replica);
    assert.equal(stampOf(pair.replica), undefined, 'symbolic link');
  });

  test('a replica without its mark, or with something to clean up beside it, is left to a sync', async (t) => {
    const pair = await comparedPair(t, 'delete');
    for (const suffix of ['-spool', '-part', '-lock'] as const) {
      writeFileSync(besideReplica(pair.replica, suffix), '');
      assert.equal(isKnown(pair), false, suffix);
      rmSync(besideReplica(pair.replica, suffix));
    }
    assert.ok(isKnown(pair));
    rmSync(besideReplica(pair.replica, ''));
    assert.equal(isKnown(pair), false);
  });

  test('a copy of a known replica in its place is not known', async (t) => {
    const pair = await comparedPair(t, 'delete');
    const copy = `${pair.replica}.new`;
    copyFileSync(pair.replica, copy);
    renameSync(copy, pair.replica);
    await aged(pair.replica);
    assert.equal(isKnown(pair), false);
  });

  test('another hash, and a comparison that is too old, do not count', async (t) => {
    const { origin, replica } = await comparedPair(t, 'delete');
    const looker = new Looker();
    const originStamp = stampOf(origin) as Uint8Array;
    const look = (how: Parameters<typeof lookAtKnownCopy>[1]): unknown =>
      lookAtKnownCopy({ replica, originName: origin, originStamp }, how, looker);
    assert.ok(look({ hash, fullEveryMs }));
    assert.equal(look({ hash: 'sha256', fullEveryMs }), undefined);
    assert.equal(look({ hash, fullEveryMs: 0 }), undefined);
  });
});

interface Done {
  readonly outcome: string;
  readonly quick: boolean;
  /** True if bytes of its own crossed the wire. */
  readonly isAsked: boolean;
}

/** What a far agent answers about the replica `x.db` in the folder. */
async function recognized(
  { origin, replica }: Copy,
  folder: string,
  restriction: RestrictionOptions | undefined,
): Promise<number[]> {
  const [near, far] = memoryTransportPair();
  const limits = restriction && new Restriction(restriction);
  const ended = runFarAgent(far, { idleTimeoutMs: 0, restriction: limits });
  const connection = new Connection(near, 'recognizing', { idleTimeoutMs: 0 });
  const path = replica.slice(folder.length + 1);
  connection.send(
    message('recognize', {
      path: folder,
      originName: origin.slice(0, -path.length - 1),
      databases: [`../${path}`, path],
      stamps: packStamps([stampOf(origin), stampOf(origin)]),
      hash: HASH_ALGORITHMS[hash],
      fullEveryMs,
      idleTimeoutMs: 0,
      maxTimeMs: 0,
    }),
  );
  const { known } = await connection.receiveOnly('recognized');
  connection.send(message('close', {}));
  connection.end();
  await ended;
  return fromGaps(known, 2);
}

test('an agent recognizes only what it may write', { skip: noQuickCheck() ?? false }, async (t) => {
  const pair = await comparedPair(t, 'wal');
  const folder = join(pair.replica, '..');
  const may = (access: RestrictionOptions['access'], where = folder): RestrictionOptions => ({
    folder: where,
    access,
    create: false,
  });
  assert.deepEqual(await recognized(pair, folder, undefined), [1]);
  assert.deepEqual(await recognized(pair, folder, may('both')), [1]);
  assert.deepEqual(await recognized(pair, folder, may('write')), [1]);
  assert.deepEqual(await recognized(pair, folder, may('read')), []);
  assert.deepEqual(await recognized(pair, folder, may('write', join(pair.origin, '..'))), []);
});

for (const way of ['fetched', 'sent'] as const) {
  test(
    `a folder that is ${way} again is unchanged without a sync of each`,
    { skip: noQuickCheck() ?? false },
    async (t) => {
      const folder = realpathSync(tempDir(t));
      const [from, to] = [join(folder, 'from'), join(folder, 'to')];
      mkdirSync(join(from, 'sub'), { recursive: true });
      const names = ['a.db', 'sub/b.db'];
      for (const [seed, name] of names.entries())
        generateDatabase(join(from, name), { rows: 20, journalMode: 'wal', seed });
      const exe = join(folder, 'sqlsync');
      const command = join(import.meta.dirname, '../../bin/sqlsync.js');
      writeFileSync(exe, `#!/bin/sh\nexec '${process.execPath}' '${command}' "$@"\n`, { mode: 0o755 });
      // Takes the name of the host, and runs the command here.
      writeFileSync(join(folder, 'shell'), '#!/bin/sh\nshift\nexec sh -c "$*"\n', { mode: 0o755 });
      const done: Done[] = [];
      const run = async (): Promise<Done[]> => {
        done.length = 0;
        await syncFolder(
          {
            origin: way === 'fetched' ? `h:${from}` : from,
            replica: way === 'sent' ? `h:${to}` : to,
            rsh: join(folder, 'shell'),
            remoteExe: exe,
            // What `flip` puts beside the file.
            exclude: ['*.kept-*'],
          },
          {
            onListed: () => {},
            onOmitted: () => {},
            onDeleted: () => {},
            onRetry: () => {},
            onDone: (_, { outcome, quick, bytesSent }) =>
              done.push({ outcome, quick, isAsked: bytesSent > 0 }),
            onFailed: (_, failure) => assert.fail(failure),
          },
        );
        return done;
      };
      const all = [from, to].flatMap((place) => names.map((name) => join(place, name)));
      const twice = (one: Done): Done[] => [one, one];
      assert.deepEqual(await run(), twice({ outcome: 'committed', quick: false, isAsked: true }));
      await aged(...all);
      assert.deepEqual(await run(), twice({ outcome: 'unchanged', quick: false, isAsked: true }));
      assert.deepEqual(await run(), twice({ outcome: 'unchanged', quick: true, isAsked: false }));
      flip(join(from, 'a.db'));
      await aged(...all);
      assert.deepEqual(await run(), [
        { outcome: 'unchanged', quick: true, isAsked: false },
        { outcome: 'committed', quick: false, isAsked: true },
      ]);
    },
  );
}
