import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Random } from '../../fixtures/random.ts';
import { BLOCK_BYTES } from '../../protocol/limits.ts';
import { blockHashBytes, blocksPerPage, decodeBatch, encodeBatch } from '../../protocol/page-batch.ts';
import { applyDelta, makeDelta } from '../../src/pages/delta.ts';
import { blockHashAt } from '../../src/pages/block-hash.ts';
import { createPageHasher } from '../../src/pages/hash.ts';
import type { PageSize } from '../../src/pages/page-types.ts';
import { NaiveKeyedHash } from '../protocol/keyed-hash.ts';

const PAGE_SIZES = [512, 1024, 4096, 65536];
const KEY = new Random(20).bytes(16);

/** An old page, and a new one in which some bytes changed. */
const changeArbitrary = fc.constantFrom(...PAGE_SIZES).chain((size) =>
  fc.record({
    old: fc.integer().map((seed) => new Uint8Array(new Random(seed).bytes(size))),
    changes: fc.array(fc.tuple(fc.nat({ max: size - 1 }), fc.integer({ min: 1, max: 255 })), {
      maxLength: 40,
    }),
  }),
);

describe('a block hash', () => {
  test('a block hash is the lowest 12 bits of the keyed hash of the block, two in three bytes, for every algorithm', () => {
    const page = new Random(1).bytes(1024);
    const naive = new NaiveKeyedHash(KEY);
    const hashes = new Uint8Array(blockHashBytes(page.length) + 3);
    createPageHasher('nh-siphash', KEY, 1024 as PageSize).hashBlocks(page, hashes, 3);
    const all = hashes.subarray(3);
    for (const algorithm of ['sha256', 'xxh64'] as const) {
      const same = new Uint8Array(all.length);
      createPageHasher(algorithm, KEY, 1024 as PageSize).hashBlocks(page, same, 0);
      assert.deepEqual(same, all);
    }
    for (let block = 0; block < blocksPerPage(page.length); block++) {
      const full = Number(
        naive.hash(page.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)) & 0xffffn,
      );
      // Bit by bit from the lowest, as the SPEC's picture of two hashes in three bytes reads.
      let packed = 0;
      for (let bit = 0; bit < 12; bit++) {
        const at = block * 12 + bit;
        packed += (((all[at >> 3] as number) >> (at & 7)) & 1) << bit;
      }
      assert.equal(packed, full % 4096);
      assert.equal(blockHashAt(all, block), full % 4096);
    }
  });
});

describe('a delta', () => {
  test('a delta makes the new page of the old one, and holds exactly the blocks whose hash changed', () => {
    fc.assert(
      fc.property(changeArbitrary, ({ old, changes }) => {
        const page = new Uint8Array(old);
        for (const [at, xor] of changes) page[at] = (page[at] as number) ^ xor;
        const delta = makeDelta(page, hashesOf(page), hashesOf(old));
        const changed = changedBlocks(hashesOf(old), hashesOf(page));
        if (changed.length > 0.75 * blocksPerPage(page.length)) {
          assert.equal(delta.bitmap, undefined);
          assert.deepEqual(delta.data, page);
          return;
        }
        assert.ok(delta.bitmap);
        assert.equal(delta.data.length, changed.length * BLOCK_BYTES);
        const wanted = [{ pageNumber: 1, basis: 'hashed' as const }];
        const [received] = decodeBatch(encodeBatch([delta]), page.length, wanted);
        assert.ok(received?.bitmap);
        const rebuilt = new Uint8Array(old);
        applyDelta(rebuilt, received.bitmap, received.data);
        // A changed block with the same hash stays as it was: the hash of the page shows it, not the delta.
        const expected = new Uint8Array(old);
        for (const block of changed) {
          const at = block * BLOCK_BYTES;
          expected.set(page.subarray(at, at + BLOCK_BYTES), at);
        }
        assert.deepEqual(rebuilt, expected);
      }),
      { numRuns: 200 },
    );
  });

  test('a delta of an unchanged page has no block', () => {
    const page = new Random(2).bytes(4096);
    assert.deepEqual(makeDelta(page, hashesOf(page), hashesOf(page)), {
      bitmap: new Uint8Array(4),
      data: new Uint8Array(0),
      group: 1,
    });
  });

  for (const size of PAGE_SIZES) {
    test(`a delta of ${size} bytes turns into a full page beyond three quarters of its blocks`, () => {
      const old = new Uint8Array(size);
      const most = blocksPerPage(size) * 0.75;
      const change = (blocks: number): Uint8Array => new Uint8Array(size).fill(1, 0, blocks * BLOCK_BYTES);
      const delta = makeDelta(change(most), hashesOf(change(most)), hashesOf(old));
      assert.equal(delta.bitmap === undefined ? -1 : delta.data.length, most * BLOCK_BYTES);
      const full = makeDelta(change(most + 1), hashesOf(change(most + 1)), hashesOf(old));
      assert.equal(full.bitmap, undefined);
      assert.deepEqual(full.data, change(most + 1));
    });
  }

  test('a delta reads block hashes from within a larger buffer', () => {
    const old = new Uint8Array(1024);
    const page = new Uint8Array(1024).fill(5, 256, 384);
    const hashes = hashesOf(old);
    const shifted = new Uint8Array(hashes.length + 5);
    shifted.set(hashes, 5);
    const delta = makeDelta(page, hashesOf(page), shifted.subarray(5));
    assert.deepEqual(delta, { bitmap: Uint8Array.of(0b100), data: page.slice(256, 384), group: 1 });
  });

  test('a delta leaves out a block that collides, so that the rebuilt page has another hash', () => {
    const old = new Uint8Array(512);
    const page = collidingPage(old);
    assert.notDeepEqual(page, old);
    const delta = makeDelta(page, hashesOf(page), hashesOf(old));
    assert.ok(delta.bitmap);
    const rebuilt = new Uint8Array(old);
    applyDelta(rebuilt, delta.bitmap, delta.data);
    assert.deepEqual(rebuilt, old);
  });
});

function hashesOf(page: Uint8Array): Uint8Array {
  const hashes = new Uint8Array(blockHashBytes(page.length));
  createPageHasher('nh-siphash', KEY, page.length as PageSize).hashBlocks(page, hashes, 0);
  return hashes;
}

function changedBlocks(before: Uint8Array, after: Uint8Array): number[] {
  const count = (before.length * 2) / 3;
  return Array.from({ length: count }, (_, block) => block).filter(
    (block) => blockHashAt(before, block) !== blockHashAt(after, block),
  );
}

/** `old` with another first block of the same block hash: found by trying, some 4,096 times. */
function collidingPage(old: Uint8Array): Uint8Array {
  const page = new Uint8Array(old);
  const view = new DataView(page.buffer);
  const wanted = hashesOf(old);
  for (let attempt = 1; attempt < 2 ** 22; attempt++) {
    view.setUint32(0, attempt);
    if (Buffer.compare(hashesOf(page), wanted) === 0) return page;
  }
  throw new Error('no collision found');
}
