import { aged, Kept, noQuickCheck, prepareQuickTests } from '../support/quick.ts';
import { KnownPair, keepAllTrees, treeFiles, treesFolder } from '../support/known-tree.ts';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { after, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { assertReplicaOf } from '../support/compare.ts';

prepareQuickTests({ after });
keepAllTrees();
const { loadTree, loadTreeHead, saveTree } = await import('../../src/sync/quick/tree-file.ts');
type StoredTree = NonNullable<ReturnType<typeof loadTree>>;

const skip = noQuickCheck() ?? false;
const KILLER = fileURLToPath(new URL('../support/kill-at-rename.ts', import.meta.url));
const PROGRAM = fileURLToPath(new URL('../../bin/sqlsync.js', import.meta.url));

beforeEach(() => rmSync(treesFolder(), { recursive: true, force: true }));

const PLACE = { side: 'replica', path: '/srv/copy.db', other: 'db1:/srv/app.db' } as const;
const TREE: StoredTree = {
  key: 'ab'.repeat(16),
  hash: 'nh-siphash',
  hashedAt: 5,
  pageSize: 4096,
  pageCount: 3,
  level: 0,
  state: 'cd',
  hashes: Buffer.from('111111112222222233333333'),
};

describe('the file of a hash tree', () => {
  test('the file of a tree holds it for one place, and only its user can read it', () => {
    saveTree(PLACE, TREE);
    assert.deepEqual({ ...loadTree(PLACE, 8) }, TREE);
    const { hashes: _, ...head } = TREE;
    assert.deepEqual(loadTreeHead(PLACE), head);
    assert.equal(loadTree({ ...PLACE, side: 'origin' }, 8), undefined);
    assert.equal(loadTree({ ...PLACE, other: 'db2:/srv/app.db' }, 8), undefined);
    assert.equal(loadTree(PLACE, 16), undefined);
    for (const path of treeFiles('replica')) assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(statSync(treesFolder()).mode & 0o777, 0o700);
  });

  test('no bit of the file can change unnoticed, and none can be missing', () => {
    saveTree(PLACE, TREE);
    const [path] = treeFiles('replica') as [string];
    const bytes = readFileSync(path);
    for (let at = 0; at < bytes.length; at++) {
      const damaged = Buffer.from(bytes);
      damaged[at] = (damaged[at] as number) ^ (1 << (at % 8));
      writeFileSync(path, damaged);
      assert.equal(loadTree(PLACE, 8), undefined, `byte ${at} changed`);
      writeFileSync(path, bytes.subarray(0, at));
      assert.equal(loadTree(PLACE, 8), undefined, `only ${at} bytes`);
    }
    writeFileSync(path, bytes);
    assert.notEqual(loadTree(PLACE, 8), undefined);
  });

  test('only the newest eight trees of one database are kept', () => {
    saveTree(PLACE, TREE);
    rmSync(treeFiles('replica')[0] as string);
    for (let i = 1; i <= 12; i++) {
      for (const path of treeFiles('replica')) {
        const seconds = statSync(path).mtimeMs / 1000 - 10;
        utimesSync(path, seconds, seconds);
      }
      saveTree({ ...PLACE, other: `db${i}` }, TREE);
    }
    for (let i = 1; i <= 12; i++)
      assert.equal(loadTree({ ...PLACE, other: `db${i}` }, 8) !== undefined, i > 4, `tree ${i}`);
    assert.equal(treeFiles('replica').length, 8);
  });

  test('files that are too old, and more than fit the limits, are removed', () => {
    for (let i = 1; i <= 110; i++) saveTree({ ...PLACE, path: `/srv/${i}.db` }, TREE);
    assert.equal(readdirSync(treesFolder()).length, 100);
    const [first] = treeFiles('replica') as [string];
    const old = Date.now() / 1000 - 30 * 86_400;
    for (const path of [first, `${first}.0123456789ab.tmp`]) {
      writeFileSync(path, '');
      utimesSync(path, old, old);
    }
    const large = treeFiles('replica')[1] as string;
    truncateSync(large, 2 ** 28);
    saveTree(PLACE, TREE);
    assert.ok(!existsSync(first) && !existsSync(large));
    assert.deepEqual({ ...loadTree(PLACE, 8) }, TREE);
  });
});

const commit = (number: number): string =>
  `UPDATE item SET amount = amount + 1 WHERE id BETWEEN ${number * 20} AND ${number * 20 + 19}`;

describe('a sync with a tree file that is of no use', { skip }, () => {
  const FAULTS: Record<string, (path: string) => void> = {
    'is cut off': (path) => truncateSync(path, statSync(path).size - 1),
    'has one other bit in a hash': (path) => {
      const bytes = readFileSync(path);
      bytes.writeUInt8(bytes.readUInt8(bytes.length - 100) ^ 4, bytes.length - 100);
      writeFileSync(path, bytes);
    },
    'is empty': (path) => truncateSync(path, 0),
    'is gone': (path) => rmSync(path),
    'may be written by others': (path) => chmodSync(path, 0o622),
    'is a link': (path) => {
      renameSync(path, `${path}.elsewhere`);
      symlinkSync(`${path}.elsewhere`, path);
    },
    'is a folder': (path) => {
      rmSync(path);
      symlinkSync('.', path);
    },
  };
  for (const side of ['origin', 'replica'] as const) {
    for (const [name, harm] of Object.entries(FAULTS)) {
      test(`a sync hashes all pages of the ${side} if its tree file ${name}`, async (t) => {
        const pair = await new KnownPair(t).settle();
        await pair.exec(commit(2));
        for (const path of treeFiles(side)) harm(path);
        const { frames, isReplicaKnown } = await pair.sync();
        if (side === 'origin') assert.equal(frames, undefined);
        assert.equal(isReplicaKnown, side === 'origin');
        assertReplicaOf(pair.origin, pair.replica);
      });
    }
  }

  test("a sync hashes all pages if the files of two sides, or of two databases, are in each other's place", async (t) => {
    const pairs = [await new KnownPair(t).settle(), await new KnownPair(t, 1200).settle()] as const;
    for (const pair of pairs) await pair.exec(commit(2));
    for (const side of ['origin', 'replica'] as const) {
      const [a, b] = treeFiles(side) as [string, string];
      copyFileSync(a, `${a}.kept`);
      renameSync(b, a);
      renameSync(`${a}.kept`, b);
    }
    for (const pair of pairs) {
      assert.equal((await pair.sync()).isReplicaKnown, false);
      assertReplicaOf(pair.origin, pair.replica);
    }
  });

  test('files of earlier runs that were put back do no harm', async (t) => {
    const pair = await new KnownPair(t).settle();
    const kept: (() => void)[] = [];
    for (let round = 2; round <= 5; round++) {
      const files = [...treeFiles('origin'), ...treeFiles('replica')].map((path) => new Kept(path));
      kept.push(() => files.forEach((file) => file.putBack()));
      await pair.exec(commit(round));
      await pair.sync();
    }
    for (const [i, putBack] of kept.entries()) {
      putBack();
      await pair.exec(commit(10 + i));
      await pair.sync();
      assertReplicaOf(pair.origin, pair.replica);
    }
  });

  test('a sync says why it can keep no hashes, and is exact', async (t) => {
    const pair = await new KnownPair(t).settle();
    rmSync(treesFolder(), { recursive: true });
    writeFileSync(treesFolder(), 'in the way');
    await pair.exec(commit(2));
    await pair.sync();
    assertReplicaOf(pair.origin, pair.replica);
    rmSync(treesFolder());
  });
});

/** Gives a tree of one side a wrong hash, as if a change had been missed. The seal is right. */
function forge(pair: KnownPair, side: 'origin' | 'replica', page: number): void {
  const head = loadTreeHead({ side: 'replica', path: pair.replica, other: pair.origin });
  const place =
    side === 'replica'
      ? { side, path: pair.replica, other: pair.origin }
      : { side, path: pair.origin, other: head?.key ?? '' };
  const tree = loadTree(place, 8);
  assert.ok(tree !== undefined);
  tree.hashes[(page - 1) * 8] = (tree.hashes[(page - 1) * 8] as number) ^ 1;
  saveTree(place, tree);
}

describe('a sync with a hash that is wrong, in a file that is not damaged', { skip }, () => {
  test('a wrong hash of the replica costs a page, and the replica is exact', async (t) => {
    const pair = await new KnownPair(t).settle();
    forge(pair, 'replica', 20);
    await pair.exec(commit(2));
    assert.equal((await pair.sync()).isReplicaKnown, true);
    assertReplicaOf(pair.origin, pair.replica);
  });

  test('a wrong hash of the origin ends the run with an error, and the next one compares all pages', async (t) => {
    const pair = await new KnownPair(t).settle();
    forge(pair, 'origin', 20);
    await pair.exec(commit(2));
    await assert.rejects(pair.sync(), { code: 'ROOT_MISMATCH', message: /Pages of origin .* page 20\)/ });
    const { frames } = await pair.sync();
    assert.equal(frames, undefined);
    assertReplicaOf(pair.origin, pair.replica);
  });

  test('the same wrong hash on both sides hides a page, until all pages are compared', async (t) => {
    const pair = await new KnownPair(t).settle();
    for (const side of ['origin', 'replica'] as const) forge(pair, side, 20);
    await pair.exec(commit(2));
    const { frames, isReplicaKnown } = await pair.sync();
    assert.ok(frames !== undefined && isReplicaKnown);
    await pair.exec(commit(3));
    await assert.rejects(pair.sync({ full: true }), { code: 'ROOT_MISMATCH', message: /page 20\)/ });
    await pair.sync({ full: true });
    assertReplicaOf(pair.origin, pair.replica);
  });

  test('a comparison of all pages warns of a replica that changed without a write', async (t) => {
    const pair = await new KnownPair(t).settle();
    forge(pair, 'replica', 20);
    const { warnings } = await pair.sync({ full: true });
    assert.match(warnings.join(), /Pages of the replica .* first at page 20\).* Check the disk/);
    assert.deepEqual((await pair.sync({ full: true })).warnings, []);
    assertReplicaOf(pair.origin, pair.replica);
  });
});

async function runCommand({ origin, replica }: KnownPair): Promise<void> {
  await aged(origin, ...(existsSync(replica) ? [replica] : []));
  const run = spawn(process.execPath, [PROGRAM, '-q', origin, replica], { stdio: 'ignore' });
  assert.deepEqual(await once(run, 'exit'), [0, null]);
}

async function commitAndRun(pair: KnownPair, number: number): Promise<void> {
  await pair.exec(commit(number));
  await runCommand(pair);
  assertReplicaOf(pair.origin, pair.replica);
}

describe('a run that is killed while it keeps its hashes', { skip }, () => {
  for (const when of ['before', 'after'] as const) {
    for (const side of ['o', 'r'] as const) {
      test(`the next sync is exact if the run was killed ${when} the file ${side} got its name`, async (t) => {
        const pair = new KnownPair(t);
        for (let round = 1; round <= 3; round++) await commitAndRun(pair, round);
        await pair.exec(commit(4));
        const env = { ...process.env, SQLSYNC_TEST_KILL_AT: `${when} ${side}` };
        const run = spawn(process.execPath, ['--import', KILLER, PROGRAM, pair.origin, pair.replica], {
          env,
          stdio: 'ignore',
        });
        assert.deepEqual(await once(run, 'exit'), [null, 'SIGKILL']);
        for (let round = 5; round <= 6; round++) await commitAndRun(pair, round);
      });
    }
  }

  test('two runs at once leave an exact replica, and files that the next one may use', async (t) => {
    const pair = await new KnownPair(t).settle();
    for (let round = 2; round <= 4; round++) {
      await pair.exec(commit(round));
      await Promise.all([runCommand(pair), runCommand(pair)]);
      assertReplicaOf(pair.origin, pair.replica);
      await commitAndRun(pair, round + 10);
    }
  });
});
