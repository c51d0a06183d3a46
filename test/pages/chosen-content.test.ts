import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Random } from '../../fixtures/random.ts';
import { BLOCK_BYTES } from '../../protocol/limits.ts';
import type { HashAlgorithm } from '../../protocol/messages.ts';
import { blockHashAt } from '../../src/pages/block-hash.ts';
import { createPageHasher, HASH_KEY_BYTES } from '../../src/pages/hash.ts';
import { pageNumber, pageSize } from '../../src/pages/page-types.ts';
import type { PageSize } from '../../src/pages/page-types.ts';
import { changeUnseenByXxh64 } from '../support/chosen-content.ts';

const SIZE = pageSize(4096) as PageSize;
const KEYS = 400;
const random = new Random(18);
const keys = Array.from({ length: KEYS }, () => random.bytes(HASH_KEY_BYTES));
const page = new Uint8Array(random.bytes(SIZE));

/** Changes that somebody who does not know the key may try, each at an aligned place of the page. */
const CHANGES: Readonly<Record<string, (bytes: Uint8Array, at: number) => void>> = {
  'of two words that cancel in XXH64': (bytes, at) => changeUnseenByXxh64(bytes, at, 1n),
  'of two words that cancel in XXH64, by the other sign': (bytes, at) => changeUnseenByXxh64(bytes, at, -1n),
  'of the top bits of both words that are multiplied': (bytes, at) => {
    flip(bytes, at + 7, 0x80);
    flip(bytes, at + 15, 0x80);
  },
  'of the top bit of every word': (bytes) => {
    for (let i = 7; i < bytes.length; i += 8) flip(bytes, i, 0x80);
  },
  'of the lowest bit of every second word': (bytes) => {
    for (let i = 0; i < bytes.length; i += 16) flip(bytes, i, 1);
  },
  'that exchanges two words': (bytes, at) => exchange(bytes, at, at + 8, 8),
  'that exchanges two pairs of words': (bytes, at) => exchange(bytes, at, at + 32, 16),
  'of one bit': (bytes, at) => flip(bytes, at, 1),
};

describe('a change of chosen content', () => {
  test('a change that is made for XXH64 passes unnoticed by that under about half of all keys', () => {
    const [up, down] = Object.values(CHANGES).map((change) => unnoticed('xxh64', change));
    assert.ok((up ?? 0) + (down ?? 0) > KEYS / 4, `${up} and ${down} of ${KEYS}`);
  });

  for (const [what, change] of Object.entries(CHANGES)) {
    test(`a change ${what} is noticed by the default and by SHA-256 under every key`, () => {
      assert.equal(unnoticed('nh-siphash', change), 0);
      assert.equal(unnoticed('sha256', change), 0);
    });

    test(`a change ${what} passes for an equal block no more often than 12 bits let by chance`, () => {
      const changed = new Uint8Array(page);
      change(changed, 1024);
      const first = (8 * BLOCK_BYTES * 3) / 256;
      let same = 0;
      for (const key of keys) {
        const hasher = createPageHasher('nh-siphash', key, SIZE);
        const [before, after] = [page, changed].map((bytes) => {
          const hashes = new Uint8Array((SIZE * 3) / 256);
          hasher.hashBlocks(bytes, hashes, 0);
          return hashes.subarray(first);
        }) as [Uint8Array, Uint8Array];
        if (blockHashAt(before, 0) === blockHashAt(after, 0)) same++;
      }
      // Chance lets one in 4,096 pass: five of 400 once in 14 million times.
      assert.ok(same < 5, `${same} of ${KEYS}`);
    });
  }

  test('a change of the two words in the hashes of children is noticed too', () => {
    // 16 hashes of 8 bytes: a peer's node, which is a string like any other.
    const children = random.bytes(128);
    const changed = new Uint8Array(children);
    changeUnseenByXxh64(changed, 8, 1n);
    for (const key of keys) {
      const hasher = createPageHasher('nh-siphash', key, SIZE);
      const [a, b] = [new Uint8Array(8), new Uint8Array(8)];
      hasher.hash(children, a, 0);
      hasher.hash(changed, b, 0);
      assert.notDeepEqual(a, b);
    }
  });
});

/** The number of keys under which the page has the same hash after the change. */
function unnoticed(algorithm: HashAlgorithm, change: (bytes: Uint8Array, at: number) => void): number {
  const changed = new Uint8Array(page);
  change(changed, 1024);
  assert.notDeepEqual(changed, page);
  let count = 0;
  for (const key of keys) {
    const hasher = createPageHasher(algorithm, key, SIZE);
    const [a, b] = [new Uint8Array(hasher.hashBytes), new Uint8Array(hasher.hashBytes)];
    hasher.hashPage(pageNumber(2), page, a, 0);
    hasher.hashPage(pageNumber(2), changed, b, 0);
    if (Buffer.compare(a, b) === 0) count++;
  }
  return count;
}

function flip(bytes: Uint8Array, at: number, mask: number): void {
  bytes[at] = (bytes[at] as number) ^ mask;
}

function exchange(bytes: Uint8Array, a: number, b: number, length: number): void {
  const kept = bytes.slice(a, a + length);
  bytes.copyWithin(a, b, b + length);
  bytes.set(kept, b);
}
