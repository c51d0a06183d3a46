import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createPageHasher } from '../../src/pages/hash.ts';
import { pageNumber } from '../../src/pages/page-types.ts';
import type { PageSize } from '../../src/pages/page-types.ts';
import { KeptTree } from '../../src/sync/quick/kept-tree.ts';
import type { HashChoice } from '../../src/sync/quick/kept-tree.ts';

const SIZE = 512 as PageSize;
const NOTHING = { pages: new Set<number>(), leastPages: 2 };

function choice(key: number): HashChoice {
  return { hash: 'nh-siphash', key: Buffer.alloc(16, key) };
}

function next(changes: typeof NOTHING | undefined) {
  return { path: 'origin.db', pageSize: SIZE, pageCount: 2, changes };
}

test('a change that an audit of kept hashes has found is said once, on whichever connection', () => {
  const tree = new KeptTree();
  const hasher = createPageHasher('nh-siphash', choice(1).key, SIZE);
  const pages = Buffer.alloc(2 * SIZE, 1);
  const hashes = Buffer.alloc(2 * hasher.hashBytes);
  hasher.hashPages(pageNumber(1), pages, hashes, 0);
  tree.memoryOf(next(undefined), choice(1)).remember({ level: 0, pageCount: 2, hashes });

  pages.fill(2, SIZE);
  const found = tree.memoryOf(next(NOTHING), choice(2));
  found.audit?.check(pageNumber(1), pages);
  assert.throws(() => found.checkAudit(), { code: 'CHANGES_MISSED' });

  const again = tree.memoryOf(next(NOTHING), choice(3));
  assert.equal(again.known, undefined);
  assert.equal(again.audit, undefined);
  again.checkAudit();
});
