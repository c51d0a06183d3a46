import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createPageHasher } from '../../src/pages/hash.ts';
import type { KnownNodes } from '../../src/pages/hash-tree.ts';
import { pageNumber } from '../../src/pages/page-types.ts';
import type { PageSize } from '../../src/pages/page-types.ts';
import { KeptTree } from '../../src/sync/quick/kept-tree.ts';
import type { HashChoice, NextSnapshot } from '../../src/sync/quick/kept-tree.ts';

const SIZE = 512 as PageSize;
const NOTHING = { pages: new Set<number>(), leastPages: 2 };

function choice(key: number): HashChoice {
  return { hash: 'nh-siphash', key: Buffer.alloc(16, key) };
}

function next(changes: NextSnapshot['changes']): NextSnapshot {
  return { path: 'origin.db', pageSize: SIZE, pageCount: 2, changes };
}

/** The hashes of two pages under a key. */
function nodesOf(pages: Uint8Array, { hash, key }: HashChoice): KnownNodes {
  const hasher = createPageHasher(hash, key, SIZE);
  const hashes = Buffer.alloc(2 * hasher.hashBytes);
  hasher.hashPages(pageNumber(1), pages, hashes, 0);
  return { level: 0, pageCount: 2, hashes };
}

test('pages that changed before a step that was given up count as changed in the next one', () => {
  const tree = new KeptTree();
  tree.memoryOf(next(undefined), choice(1)).remember(nodesOf(Buffer.alloc(2 * SIZE), choice(1)));
  assert.equal(tree.has(choice(1).key), true);
  assert.equal(tree.has(choice(2).key), false);

  tree.memoryOf(next({ ...NOTHING, pages: new Set([2]) }), choice(1));
  assert.equal(tree.has(choice(1).key), false);
  assert.deepEqual(tree.memoryOf(next(NOTHING), choice(1)).known?.changed, [2]);

  // Once nobody knows what changed, nothing is known later either.
  tree.memoryOf(next(undefined), choice(1));
  assert.equal(tree.memoryOf(next(NOTHING), choice(1)).known, undefined);
});

test('a page beyond the fewest that there were meanwhile counts as changed', () => {
  const tree = new KeptTree();
  tree.memoryOf(next(undefined), choice(1)).remember(nodesOf(Buffer.alloc(2 * SIZE), choice(1)));
  const { known } = tree.memoryOf(next({ ...NOTHING, leastPages: 1 }), choice(1));
  assert.deepEqual(known?.changed, [2]);
});

test('a change that an audit of kept hashes has found is said once, on whichever connection', () => {
  const tree = new KeptTree();
  const pages = Buffer.alloc(2 * SIZE, 1);
  tree.memoryOf(next(undefined), choice(1)).remember(nodesOf(pages, choice(1)));

  pages.fill(2, SIZE);
  const found = tree.memoryOf(next(NOTHING), choice(2));
  found.audit?.check(pageNumber(1), pages);
  assert.throws(() => found.checkAudit(), { code: 'CHANGES_MISSED' });

  const again = tree.memoryOf(next(NOTHING), choice(3));
  assert.equal(again.known, undefined);
  assert.equal(again.audit, undefined);
  again.checkAudit();
});
