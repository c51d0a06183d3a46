import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Random } from '../../fixtures/random.ts';
import { DEFAULT_HASH } from '../../protocol/messages.ts';
import type { HashAlgorithm } from '../../protocol/messages.ts';
import { createPageHasher } from '../../src/pages/hash.ts';
import { RUN_BYTES } from '../../src/pages/file-pages.ts';
import { HashTree } from '../../src/pages/hash-tree.ts';
import { lockBytePage, pageCount, pageNumber, pageSize } from '../../src/pages/page-types.ts';
import type { PageNumber, PageSize } from '../../src/pages/page-types.ts';
import { NaiveKeyedHash } from '../protocol/keyed-hash.ts';
import { naiveXxh64 } from '../protocol/xxhash.ts';

const SIZE = pageSize(512) as PageSize;
const KEY = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 0xf8, 9, 10, 11, 12, 13, 14, 15, 0xf0);
const HASH_BYTES = { 'nh-siphash': 8, xxh64: 8, sha256: 16 } as const;
const ALGORITHMS = Object.keys(HASH_BYTES) as HashAlgorithm[];

/** Header bytes of page 1 that are zero in hashes, as SPEC.md lists them. */
const OWN_BYTES = [18, 19, 24, 25, 26, 27, 40, 41, 42, 43, 92, 93, 94, 95, 96, 97, 98, 99];

const treeArbitrary = fc.record({
  count: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 700 })),
  keptLevel: fc.integer({ min: 0, max: 3 }),
  algorithm: fc.constantFrom(...ALGORITHMS),
  seed: fc.integer(),
});

describe('a hash tree', () => {
  test('a hash tree has the hashes of SPEC.md, whichever level it keeps', () => {
    fc.assert(
      fc.property(treeArbitrary, ({ count, keptLevel, algorithm, seed }) => {
        const pages = makePages(count, seed);
        const tree = treeOf(pages, { keptLevel, algorithm });
        const naive = naiveLevels(pages, algorithm);
        for (const [level, hashes] of naive.entries())
          for (const [index, hash] of hashes.entries()) assertNode(tree, level, index, hash);
        assert.deepEqual(tree.root(), naive.at(-1)?.[0]);
      }),
      { numRuns: 25 },
    );
  });

  test('a hash tree keeps the lowest level that fits its budget, and never more bytes than that', () => {
    const pages = makePages(300, 1);
    for (const [budgetBytes, keptLevel] of [
      [300 * 8, 0],
      [300 * 8 - 1, 1],
      [19 * 8, 1],
      [19 * 8 - 1, 2],
      [2 * 8 - 1, 3],
    ] as const) {
      assert.equal(treeOf(pages, { budgetBytes }).keptLevel, keptLevel, `${budgetBytes} bytes`);
    }
  });

  test('a hash tree without pages has the hash of the empty string as its root', () => {
    for (const algorithm of ALGORITHMS)
      assert.deepEqual(treeOf([], { algorithm }).root(), naiveHash(new Uint8Array(0), algorithm));
  });

  test('a hash tree of one page has that page’s hash as its root', () => {
    const pages = makePages(1, 3);
    assert.deepEqual(treeOf(pages, {}).root(), naiveLevels(pages, DEFAULT_HASH)[0]?.[0]);
  });

  test('a hash tree does not see the header bytes that belong to the file, and sees every other byte of page 1', () => {
    const [page] = makePages(1, 4) as [Uint8Array];
    const root = treeOf([page], {}).root();
    for (let at = 0; at < SIZE; at++) {
      const changed = new Uint8Array(page);
      changed[at] = (changed[at] as number) ^ 1;
      const same = Buffer.compare(treeOf([changed], {}).root(), root) === 0;
      assert.equal(same, OWN_BYTES.includes(at), `byte ${at}`);
    }
  });

  test('a hash tree hashes the lock-byte page as zeros, not by its bytes', () => {
    const hasher = createPageHasher(DEFAULT_HASH, KEY, SIZE);
    const locked = lockBytePage(SIZE);
    const out = new Uint8Array(8);
    hasher.hashPage(locked, new Uint8Array(SIZE).fill(1), out, 0);
    assert.deepEqual(out, naiveHash(new Uint8Array(SIZE), DEFAULT_HASH));
    hasher.hashPage(pageNumber(locked - 1), new Uint8Array(SIZE).fill(1), out, 0);
    assert.deepEqual(out, naiveHash(new Uint8Array(SIZE).fill(1), DEFAULT_HASH));
  });

  test('a hash tree has other hashes under another key', () => {
    const pages = makePages(2, 5);
    for (const algorithm of ALGORITHMS) {
      const other = treeOf(pages, { algorithm, key: KEY.with(7, 0xf9) });
      assert.notDeepEqual(other.root(), treeOf(pages, { algorithm }).root());
    }
  });

  test('a hash tree reads no page twice for the level that it keeps', () => {
    const pages = makePages(300, 6);
    for (const keptLevel of [0, 1]) {
      const reads: number[] = [];
      const tree = treeOf(pages, { keptLevel, onRead: (page) => reads.push(page) });
      for (const node of [1, 0]) tree.hashNode(2, node, new Uint8Array(8), 0);
      tree.root();
      assert.deepEqual(
        reads.sort((a, b) => a - b),
        pages.map((_, i) => i + 1),
      );
    }
  });

  test('a hash tree does not read the pages whose hashes it learned', () => {
    const pages = makePages(20, 7);
    const reads: number[] = [];
    const tree = treeOf(pages, { onRead: (page) => reads.push(page) });
    for (const page of [3, 20, 1]) tree.learn(pageNumber(page), pages[page - 1] as Uint8Array);
    // A run that begins and ends with pages whose hashes are known.
    tree.learn(pageNumber(1), Buffer.concat(pages.slice(0, 5)));
    assert.deepEqual(tree.root(), naiveLevels(pages, DEFAULT_HASH).at(-1)?.[0]);
    assert.deepEqual(
      reads,
      Array.from({ length: 14 }, (_, i) => i + 6),
    );
  });
});

describe('a hash tree with only its first pages in existence', () => {
  test('an incomplete hash tree hashes nodes over the pages that exist, and knows which nodes have none', () => {
    const pages = makePages(700, 8);
    for (const present of [0, 1, 16, 17, 255, 256, 300, 700]) {
      for (const keptLevel of [0, 1, 2]) {
        const tree = treeOf(pages, { keptLevel, present });
        const naive = naiveLevels(pages.slice(0, present), DEFAULT_HASH, 2);
        for (const level of [0, 1, 2]) {
          const nodes = Math.ceil(present / 16 ** level);
          for (let index = 0; index < tree.nodeCount(level); index++)
            assert.equal(tree.isAbsent(level, index), index >= nodes);
          for (const [index, hash] of (naive[level] ?? []).entries()) assertNode(tree, level, index, hash);
        }
      }
    }
  });

  test('an incomplete hash tree reads a page that came into being without a hash, as the lock-byte page does', () => {
    const pages = makePages(18, 9);
    for (const keptLevel of [0, 1, 2]) {
      const tree = treeOf(pages, { keptLevel, present: 17 });
      tree.hashNode(2, 0, new Uint8Array(8), 0);
      tree.complete((first, number) => run(first, number, (page) => pages[page - 1] as Uint8Array));
      assert.deepEqual(tree.root(), naiveLevels(pages, DEFAULT_HASH).at(-1)?.[0], `kept level ${keptLevel}`);
    }
  });

  test('an incomplete hash tree has the root of the new pages once they were set, whichever level it keeps', () => {
    const change = fc.record({
      tree: treeArbitrary,
      present: fc.double({ min: 0, max: 1, noNaN: true }),
      changed: fc.array(fc.nat({ max: 699 }), { maxLength: 30 }),
      asked: fc.array(fc.nat({ max: 50 }), { maxLength: 10 }),
    });
    fc.assert(
      fc.property(change, ({ tree: { count, keptLevel, algorithm, seed }, present, changed, asked }) => {
        const old = makePages(count, seed).slice(0, Math.floor(present * (count + 1)));
        const now = makePages(count, seed);
        for (const index of changed) if (index < count) now[index] = makePages(1, index + 1)[0] as Uint8Array;
        const tree = treeOf(old, { keptLevel, algorithm, count, present: old.length });
        // The hashes of the comparison before pages come: all of the kept level and above, and some below.
        for (let level = 3; level >= 0; level--)
          for (const index of level >= tree.keptLevel ? Array(tree.nodeCount(level)).keys() : asked)
            if (index < tree.nodeCount(level) && !tree.isAbsent(level, index))
              tree.hashNode(level, index, new Uint8Array(16), 0);
        for (const [index, page] of now.entries()) {
          if (old[index] !== undefined && Buffer.compare(old[index], page) === 0) continue;
          const number = pageNumber(index + 1);
          tree.setPageHash(number, tree.hashOf(number, page));
        }
        tree.complete((first, number) => run(first, number, (page) => now[page - 1] as Uint8Array));
        assert.deepEqual(tree.root(), naiveLevels(now, algorithm).at(-1)?.[0]);
        for (let index = 0; index < tree.nodeCount(1); index++) assert.equal(tree.isAbsent(1, index), false);
      }),
      { numRuns: 40 },
    );
  });
});

interface TreeMaking {
  keptLevel?: number;
  budgetBytes?: number;
  algorithm?: HashAlgorithm;
  key?: Uint8Array;
  /** Pages of the finished tree. */
  count?: number;
  present?: number;
  onRead?: (page: PageNumber) => void;
}

function treeOf(pages: readonly Uint8Array[], making: TreeMaking): HashTree {
  const { algorithm = DEFAULT_HASH, key = KEY, count = pages.length, keptLevel = 0 } = making;
  // The smallest budget with room for this level.
  const kept = Math.max(1, Math.ceil(count / 16 ** keptLevel)) * HASH_BYTES[algorithm];
  return new HashTree({
    pageCount: pageCount(count),
    presentCount: pageCount(making.present ?? count),
    hasher: createPageHasher(algorithm, key, SIZE),
    budgetBytes: making.budgetBytes ?? kept,
    readPages: (first, number) =>
      run(first, number, (page) => {
        making.onRead?.(page);
        const bytes = pages[page - 1];
        if (bytes === undefined || page > (making.present ?? count))
          throw new Error(`page ${page} is absent`);
        return bytes;
      }),
  });
}

/** Pages one after another, in memory that the next run overwrites, as a source may do. */
function run(first: PageNumber, count: number, read: (page: PageNumber) => Uint8Array): Uint8Array {
  assert.ok(count === 1 || count * SIZE <= RUN_BYTES, `${count} pages at once`);
  shared.fill(0xee);
  for (let i = 0; i < count; i++) shared.set(read(pageNumber(first + i)), i * SIZE);
  return shared.subarray(0, count * SIZE);
}

const shared = new Uint8Array(RUN_BYTES);

function assertNode(tree: HashTree, level: number, index: number, hash: Uint8Array): void {
  const out = new Uint8Array(hash.length + 2);
  tree.hashNode(level, index, out, 1);
  assert.deepEqual(
    out,
    Uint8Array.of(0, ...hash, 0),
    `node ${index} of level ${level}, kept ${tree.keptLevel}`,
  );
}

/** All levels up to the root, and at least up to level `top`, from SPEC.md. */
function naiveLevels(pages: readonly Uint8Array[], algorithm: HashAlgorithm, top = 0): Uint8Array[][] {
  if (pages.length === 0) return [];
  let nodes = pages.map((page, index) => {
    const masked = new Uint8Array(page);
    if (index === 0) for (const at of OWN_BYTES) masked[at] = 0;
    return naiveHash(masked, algorithm);
  });
  const levels = [nodes];
  while (nodes.length > 1 || levels.length <= top) {
    const below = nodes;
    nodes = Array.from({ length: Math.ceil(below.length / 16) }, (_, node) =>
      naiveHash(Buffer.concat(below.slice(node * 16, node * 16 + 16)), algorithm),
    );
    levels.push(nodes);
  }
  return levels;
}

const known = new Map<string, Uint8Array>();

const keyed = new NaiveKeyedHash(KEY);

/** H of SPEC.md under KEY. Remembered, since the slow hashes meet the same pages again. */
function naiveHash(bytes: Uint8Array, algorithm: HashAlgorithm): Uint8Array {
  const key = `${algorithm} ${Buffer.from(bytes).toString('latin1')}`;
  let hash = known.get(key);
  if (hash === undefined) {
    hash = new Uint8Array(HASH_BYTES[algorithm]);
    const view = new DataView(hash.buffer);
    if (algorithm === 'sha256')
      hash.set(createHash('sha256').update(KEY).update(bytes).digest().subarray(0, 16));
    else if (algorithm === 'xxh64') view.setBigUint64(0, naiveXxh64(bytes, 0xf807060504030201n), true);
    else view.setBigUint64(0, keyed.hash(bytes), true);
    known.set(key, hash);
  }
  return hash;
}

/** Pages that are the same for every seed but for a few, so that the slow hash seldom has to run. */
function makePages(count: number, seed: number): Uint8Array[] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => new Uint8Array(SIZE).fill(random.integer(0, 40)));
}
