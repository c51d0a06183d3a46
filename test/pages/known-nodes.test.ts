import '../support/environment.ts';
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Random } from '../../fixtures/random.ts';
import { HashAudit } from '../../src/pages/hash-audit.ts';
import { createPageHasher } from '../../src/pages/hash.ts';
import { HashTree } from '../../src/pages/hash-tree.ts';
import type { KnownNodes } from '../../src/pages/hash-tree.ts';
import { pageCount, pageNumber, pageSize } from '../../src/pages/page-types.ts';
import type { PageSize } from '../../src/pages/page-types.ts';

const SIZE = pageSize(512) as PageSize;
const hasher = createPageHasher('nh-siphash', Buffer.alloc(16, 9), SIZE);

type Pages = readonly Uint8Array[];

interface Making {
  readonly level: number;
  /** Pages of the finished tree, if some do not exist yet. */
  readonly count?: number;
  readonly known?: KnownNodes | undefined;
  readonly read?: Set<number>;
}

/** A tree over these pages that keeps hashes from this level on. */
function treeOf(pages: Pages, { level, count = pages.length, known, read }: Making): HashTree {
  return new HashTree({
    pageCount: pageCount(count),
    presentCount: pageCount(pages.length),
    hasher,
    budgetBytes: Math.max(1, Math.ceil(count / 16 ** level)) * hasher.hashBytes,
    known,
    readPages(first, number) {
      for (let page = first as number; page < first + number; page++) read?.add(page);
      return Buffer.concat(pages.slice(first - 1, first - 1 + number));
    },
  });
}

function knownOf(pages: Pages, level: number): KnownNodes {
  const tree = treeOf(pages, { level });
  tree.root();
  return tree.knownNodes() as KnownNodes;
}

const makePage = (seed: number): Uint8Array => new Random(seed).bytes(SIZE);

/** Two states of a database, the level that a tree of it keeps, and pages that are called changed. */
const statesArbitrary = fc
  .record({
    before: fc.integer({ min: 1, max: 600 }),
    after: fc.integer({ min: 1, max: 600 }),
    isSameSize: fc.boolean(),
    level: fc.integer({ min: 0, max: 2 }),
    differing: fc.array(fc.nat({ max: 599 }), { maxLength: 12 }),
    mistaken: fc.array(fc.nat({ max: 599 }), { maxLength: 4 }),
  })
  .map(({ before, after, isSameSize, level, differing, mistaken }) => {
    const old = Array.from({ length: before }, (_, i) => makePage(i + 1));
    const now = Array.from({ length: isSameSize ? before : after }, (_, i) => makePage(i + 1));
    for (const i of differing) if (i < now.length) now[i] = makePage(i + 10_000);
    return { old, now, level, changed: [...differing, ...mistaken].map((i) => i + 1) };
  });

describe('hashes of an earlier state', () => {
  test('a tree has the right root, and reads no node of which nothing changed', () => {
    fc.assert(
      fc.property(statesArbitrary, ({ old, now, level, changed }) => {
        const fresh = treeOf(now, { level });
        const known = knownOf(old, level);
        const read = new Set<number>();
        const tree = treeOf(now, { level, known: { ...known, changed }, read });
        assert.deepEqual(tree.root(), fresh.root());
        if (known.level !== tree.keptLevel) return;
        const width = 16 ** level;
        const nodeOf = (page: number): number => Math.floor((page - 1) / width);
        const mayRead = new Set(changed.map(nodeOf));
        const shared = Math.min(old.length, now.length);
        const firstNew = old.length === now.length ? Infinity : Math.floor(shared / width) * width;
        for (const page of read) assert.ok(mayRead.has(nodeOf(page)) || page > firstNew, `page ${page}`);
        assert.deepEqual(tree.knownNodes()?.hashes, fresh.knownNodes()?.hashes);
      }),
      { numRuns: 60 },
    );
  });

  test('a tree of which some pages do not exist yet has the right nodes, and the right root when they do', () => {
    fc.assert(
      fc.property(statesArbitrary, ({ old, now, level }) => {
        const present = old.slice(0, now.length);
        const making = { level, count: now.length };
        const tree = treeOf(present, { ...making, known: knownOf(old, level) });
        const fresh = treeOf(present, making);
        const hashOf = (of: HashTree, index: number): Uint8Array => {
          const hash = new Uint8Array(8);
          of.hashNode(level, index, hash, 0);
          return hash;
        };
        for (let index = 0; index < tree.nodeCount(level) && !tree.isAbsent(level, index); index++)
          assert.deepEqual(hashOf(tree, index), hashOf(fresh, index), `node ${index}`);
        for (const [i, page] of now.entries())
          if (present[i] === undefined || Buffer.compare(present[i], page) !== 0)
            tree.setPageHash(pageNumber(i + 1), tree.hashOf(pageNumber(i + 1), page));
        tree.complete((first, count) => Buffer.concat(now.slice(first - 1, first - 1 + count)));
        assert.deepEqual(tree.root(), treeOf(now, { level }).root());
        assert.deepEqual(tree.knownNodes()?.hashes, knownOf(now, level).hashes);
      }),
      { numRuns: 60 },
    );
  });

  test('a tree has no nodes to keep before its root is made', () => {
    const tree = treeOf([makePage(1), makePage(2)], { level: 0 });
    assert.equal(tree.knownNodes(), undefined);
    tree.root();
    assert.notEqual(tree.knownNodes(), undefined);
  });
});

describe('an audit', () => {
  for (const level of [0, 1]) {
    test(`an audit finds each whole node of level ${level} that changed and is not called so`, () => {
      fc.assert(
        fc.property(statesArbitrary, fc.integer({ min: 1, max: 4 }), ({ old, now, changed }, runs) => {
          const known = knownOf(old, level);
          // A tree of one page has no level 1 to keep.
          const width = 16 ** known.level;
          const called = changed.filter((page) => page % 2 === 0);
          const audit = new HashAudit({ ...known, changed: called }, hasher);
          const step = runs * 16;
          for (let at = 0; at < now.length; at += step)
            audit.check(pageNumber(at + 1), Buffer.concat(now.slice(at, at + step)));
          const expected = new Set<number>();
          for (let at = 0; at + width <= Math.min(old.length, now.length); at += width) {
            const isSame = Buffer.concat(old.slice(at, at + width)).equals(
              Buffer.concat(now.slice(at, at + width)),
            );
            const isCalled = called.some((page) => page > at && page <= at + width);
            if (!isSame && !isCalled) expected.add(at + 1);
          }
          assert.deepEqual(audit.wrong, expected);
        }),
        { numRuns: 60 },
      );
    });
  }
});
