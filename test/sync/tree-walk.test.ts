import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Random } from '../../fixtures/random.ts';
import { CHILD_HASH_BYTES, MAX_HASHES_PER_MESSAGE, topLevel, TREE_FANOUT } from '../../protocol/limits.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { crc32 } from 'node:zlib';
import { TreeWalk } from '../../src/sync/agents/tree-walk.ts';
import type { ChildrenRequest, DifferingPage } from '../../src/sync/agents/tree-walk.ts';

const HASH_BYTES = 8;
const NO_LOCK_PAGE = 2 ** 30;

interface Case {
  readonly pageCount: number;
  readonly oldCount: number;
  /** Indexes of pages that differ, among those that both have. */
  readonly changed: readonly number[];
  readonly lockBytePage: number;
  /** Decides the order of everything: which side hashes first, and in which portions answers come. */
  readonly seed: number;
}

const caseArbitrary: fc.Arbitrary<Case> = fc
  .record({
    pageCount: fc.oneof(fc.nat({ max: 40 }), fc.nat({ max: 1500 }), fc.nat({ max: 12_000 })),
    growth: fc.oneof(fc.constant(0), fc.integer({ min: -1500, max: 1500 })),
    changed: fc.oneof(
      fc.uniqueArray(fc.nat({ max: 12_000 }), { maxLength: 30 }),
      fc.nat({ max: 11_000 }).map((first) => Array.from({ length: 900 }, (_, i) => first + i)),
    ),
    lock: fc.oneof(fc.constant(NO_LOCK_PAGE), fc.integer({ min: 2, max: 12_000 })),
    seed: fc.integer(),
  })
  .map(({ pageCount, growth, changed, lock, seed }) => ({
    pageCount,
    // As the replica agent does it: it cuts off pages beyond the origin's, and does not compare them.
    oldCount: Math.max(0, Math.min(pageCount, pageCount - growth)),
    changed,
    lockBytePage: lock,
    seed,
  }));

describe('a tree walk', () => {
  test('a tree walk finds exactly the pages that differ or do not exist, in any order and portions of answers', () => {
    fc.assert(
      fc.property(caseArbitrary, (given) => {
        const { walk, differing, absent } = walkThrough(given);
        const expected = expectation(given);
        assert.deepEqual(
          differing.map(({ pageNumber }) => pageNumber).sort((a, b) => a - b),
          expected.differing,
        );
        assert.deepEqual(
          absent.sort((a, b) => a - b),
          expected.absent,
        );
        assert.equal(walk.differing, expected.differing.length + expected.absent.length);
        assert.ok(walk.finished && walk.isCompared);
        assert.equal(
          walk.pagesCompared,
          Math.min(given.pageCount, Math.ceil(Math.min(given.pageCount, given.oldCount) / 256) * 256),
        );
      }),
      { numRuns: 150 },
    );
  });

  test('a tree walk wants the missing pages, even if the peer has the same hash for the present ones', () => {
    const alike = new Uint8Array(HASH_BYTES).fill(7);
    const walk = new TreeWalk({
      pageCount: 21,
      oldPageCount: 20,
      hashBytes: HASH_BYTES,
      lockBytePage: NO_LOCK_PAGE,
      ownHash: () => alike,
    });
    while (walk.hasOwnWork) walk.hashOwn();
    walk.onTopHashes(0, alike);
    for (let next = walk.takeChildrenRequest(); next !== undefined; next = walk.takeChildrenRequest()) {
      const children = next.level === 1 ? 2 : 5;
      walk.onChildren(next, new Uint8Array(children * CHILD_HASH_BYTES).fill(7));
    }
    assert.deepEqual(walk.takeAbsent(10), [21]);
    assert.ok(walk.finished);
  });

  test('a tree walk asks for nothing if nothing differs', () => {
    for (const pageCount of [1, 16, 256, 257, 5000]) {
      const { asked, walk } = walkThrough({ ...same(pageCount), seed: pageCount });
      assert.deepEqual({ asked, differs: walk.hasDifference }, { asked: [], differs: false });
    }
  });

  test('a tree walk needs no hashes if no page exists here, and wants all pages but the lock-byte page', () => {
    const given = { pageCount: 40, oldCount: 0, changed: [], lockBytePage: 7, seed: 1 };
    const { walk, absent, asked } = walkThrough(given);
    assert.ok(walk.needsNoHashes);
    assert.deepEqual(asked, []);
    assert.deepEqual(
      absent,
      Array.from({ length: 40 }, (_, i) => i + 1).filter((page) => page !== 7),
    );
  });

  test('a tree walk asks for no children of nodes that do not exist here', () => {
    const { asked } = walkThrough({
      pageCount: 4000,
      oldCount: 300,
      changed: [],
      lockBytePage: NO_LOCK_PAGE,
      seed: 1,
    });
    // Pages 257 to 300 are in node 1 of level 2 and nodes 16 to 18 of level 1; of them only node 18 is partly absent.
    assert.deepEqual(asked, [
      { level: 1, parents: [1] },
      { level: 0, parents: [18] },
    ]);
  });

  test('a tree walk wants a single changed page with three questions at the most, and gives the hash it must begin with', () => {
    const { asked, differing } = walkThrough({ ...same(10_000), changed: [7777], seed: 2 });
    assert.deepEqual(asked, [
      { level: 1, parents: [Math.floor(7777 / 256)] },
      { level: 0, parents: [Math.floor(7777 / 16)] },
    ]);
    const hash = nodeHash(makeDatabase(10_000, [7777], 0), 0, 7777).slice(0, CHILD_HASH_BYTES);
    assert.deepEqual(differing, [
      { pageNumber: 7778, hashPrefix: Number.parseInt(Buffer.from(hash).toString('hex'), 16) },
    ]);
  });

  test('a tree walk asks for no more children at once than a message may carry', () => {
    const all = Array.from({ length: 20_000 }, (_, i) => i);
    const { asked, differing } = walkThrough({ ...same(20_000), changed: all, seed: 3 });
    assert.equal(differing.length, 20_000);
    for (const { parents } of asked) {
      assert.ok(parents.length * TREE_FANOUT <= MAX_HASHES_PER_MESSAGE);
      assert.deepEqual(
        [...new Set(parents)].sort((a, b) => a - b),
        parents,
        'ascending, none twice',
      );
    }
  });

  test('a tree walk hands out the missing pages in ascending batches that may be limited, each page once', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 900 }), fc.integer({ min: 1, max: 300 }), (count, limit) => {
        const walk = newWalk({ pageCount: count, oldCount: 0, changed: [], lockBytePage: 5, seed: 0 }, []);
        const pages: number[] = [];
        for (let batch = walk.takeAbsent(limit); batch.length > 0; batch = walk.takeAbsent(limit)) {
          assert.ok(batch.length <= limit);
          pages.push(...batch);
        }
        const all = Array.from({ length: count }, (_, i) => i + 1);
        assert.deepEqual(
          pages,
          all.filter((page) => page !== 5),
        );
      }),
    );
  });
});

describe('a tree walk refuses', () => {
  const given = { ...same(1000), changed: [3, 900], seed: 0 };
  const theirs = makeDatabase(1000, given.changed, 0);
  const top = (first: number, count: number): Uint8Array =>
    concatenated(Array.from({ length: count }, (_, i) => nodeHash(theirs, 2, first + i)));

  const refused: Record<string, (walk: TreeWalk) => void> = {
    'hashes that skip a node': (walk) => walk.onTopHashes(1, top(1, 1)),
    'hashes that it has already': (walk) => {
      walk.onTopHashes(0, top(0, 2));
      walk.onTopHashes(1, top(1, 1));
    },
    'hashes of nodes that do not exist': (walk) => walk.onTopHashes(0, top(0, 5)),
    'part of a hash': (walk) => walk.onTopHashes(0, top(0, 1).subarray(1)),
    'an answer without a hash': (walk) => walk.onTopHashes(0, new Uint8Array(0)),
    'too few hashes of children': (walk) => walk.onChildren(...childrenOf(walk, -1)),
    'too many hashes of children': (walk) => walk.onChildren(...childrenOf(walk, 1)),
  };
  for (const [what, action] of Object.entries(refused)) {
    test(`a tree walk refuses ${what}`, () => {
      const walk = newWalk(given, makeDatabase(1000, [], 0));
      assert.throws(
        () => action(walk),
        (error: unknown) => error instanceof SqlsyncError && error.code === 'PROTOCOL',
      );
    });
  }

  /** The first question about children, and its answer with `more` bytes too many. */
  function childrenOf(walk: TreeWalk, more: number): [ChildrenRequest, Uint8Array] {
    while (walk.hasOwnWork) walk.hashOwn();
    walk.onTopHashes(0, top(0, 4));
    const request = walk.takeChildrenRequest();
    assert.ok(request);
    const right = answer(request, theirs);
    const wrong = new Uint8Array(right.length + more);
    wrong.set(right.subarray(0, wrong.length));
    return [request, wrong];
  }
});

/** The contents of pages: equal numbers are equal pages. */
type Database = readonly number[];

function same(pageCount: number): Omit<Case, 'seed'> {
  return { pageCount, oldCount: pageCount, changed: [], lockBytePage: NO_LOCK_PAGE };
}

/** The lock-byte page is the same everywhere, as it is hashed as zeros. */
function makeDatabase(count: number, changed: readonly number[], lockBytePage: number): Database {
  const pages = Array.from({ length: count }, (_, i) => i + 1);
  for (const index of changed) if (index < count) pages[index] = -(index + 1);
  if (lockBytePage >= 1 && lockBytePage <= count) pages[lockBytePage - 1] = 0;
  return pages;
}

function expectation(given: Case): { differing: number[]; absent: number[] } {
  const { pageCount, oldCount, changed, lockBytePage } = given;
  const differing = changed
    .filter((index) => index < oldCount && index + 1 !== lockBytePage)
    .map((index) => index + 1);
  const absent = Array.from({ length: pageCount - oldCount }, (_, i) => oldCount + i + 1);
  return {
    differing: differing.sort((a, b) => a - b),
    absent: absent.filter((page) => page !== lockBytePage),
  };
}

/** A hash of all pages of the node: slower than a tree, and independent of it. */
function nodeHash(database: Database, level: number, index: number): Uint8Array {
  const pages = database.slice(index * TREE_FANOUT ** level, (index + 1) * TREE_FANOUT ** level);
  const bytes = new Uint8Array(Int32Array.from([level, ...pages]).buffer);
  const hash = new Uint8Array(HASH_BYTES);
  new DataView(hash.buffer).setUint32(0, crc32(bytes, 1));
  new DataView(hash.buffer).setUint32(4, crc32(bytes, 2));
  return hash;
}

function newWalk(given: Case, own: Database): TreeWalk {
  return new TreeWalk({
    pageCount: given.pageCount,
    oldPageCount: given.oldCount,
    hashBytes: HASH_BYTES,
    lockBytePage: given.lockBytePage,
    ownHash: (level, index) => {
      assert.ok(
        index * TREE_FANOUT ** level < own.length,
        `node ${index} of level ${level} has no page here`,
      );
      return nodeHash(own, level, index);
    },
  });
}

function answer(request: ChildrenRequest, theirs: Database): Uint8Array {
  const nodes = Math.ceil(theirs.length / TREE_FANOUT ** request.level);
  const hashes = request.parents.flatMap((parent) =>
    Array.from({ length: TREE_FANOUT }, (_, i) => parent * TREE_FANOUT + i)
      .filter((child) => child < nodes)
      .map((child) => nodeHash(theirs, request.level, child).subarray(0, CHILD_HASH_BYTES)),
  );
  return concatenated(hashes);
}

/** Lets a walk and a peer take turns by `seed`, until both are done. */
function walkThrough(given: Case): {
  walk: TreeWalk;
  differing: DifferingPage[];
  absent: number[];
  asked: ChildrenRequest[];
} {
  const { pageCount, oldCount, changed, lockBytePage, seed } = given;
  const random = new Random(seed);
  const theirs = makeDatabase(pageCount, changed, lockBytePage);
  const walk = newWalk(given, makeDatabase(oldCount, [], lockBytePage));
  const level = topLevel(pageCount);
  const topNodes = walk.needsNoHashes ? 0 : Math.ceil(pageCount / TREE_FANOUT ** level);
  const [differing, absent, asked, waiting]: [
    DifferingPage[],
    number[],
    ChildrenRequest[],
    ChildrenRequest[],
  ] = [[], [], [], []];
  let topSent = 0;
  const steps: (() => boolean)[] = [
    () => walk.hasOwnWork && walk.hashOwn() > 0,
    () => {
      const count = Math.min(random.integer(1, 9), topNodes - topSent);
      if (count === 0) return false;
      const hashes = Array.from({ length: count }, (_, i) => nodeHash(theirs, level, topSent + i));
      walk.onTopHashes(topSent, concatenated(hashes));
      topSent += count;
      return true;
    },
    () => {
      const request = walk.takeChildrenRequest();
      if (request === undefined) return false;
      asked.push({ level: request.level, parents: [...request.parents] });
      waiting.push(request);
      return true;
    },
    () => {
      const [request] = waiting.splice(random.integer(0, Math.max(0, waiting.length - 1)), 1);
      if (request === undefined) return false;
      assert.ok(!walk.isCompared && !walk.finished, 'finished while an answer is due');
      walk.onChildren(request, answer(request, theirs));
      return true;
    },
    () => differing.push(...walk.takeDiffering(random.integer(1, 50))) > 0 && walk.differingWaiting > 0,
    () => {
      const batch = walk.takeAbsent(random.integer(1, 50));
      for (const [i, page] of batch.entries())
        assert.ok(i === 0 || page > (batch[i - 1] as number), 'ascending');
      return absent.push(...batch) > 0 && batch.length > 0;
    },
  ];
  for (let idle = 0; idle < 200;) idle = random.pick(steps)() ? 0 : idle + 1;
  return { walk, differing, absent, asked };
}

function concatenated(hashes: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(hashes));
}
