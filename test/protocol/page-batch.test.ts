import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ProtocolViolation } from '../../protocol/decode.ts';
import { BLOCK_BYTES, BLOCK_HASH_BITS } from '../../protocol/limits.ts';
import {
  bitmapBytes,
  blockHashBytes,
  blocksPerPage,
  decodeBatch,
  decodeWanted,
  DELTA_BASES,
  encodeBatch,
  encodeWanted,
  fromGaps,
  maxBatchBytes,
  toGaps,
} from '../../protocol/page-batch.ts';
import type { BatchPage, DeltaBasis, WantedPage } from '../../protocol/page-batch.ts';

const PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

const anyBasis = fc.constantFrom(...DELTA_BASES);

/** A page of a batch, with the request for it; small page sizes come first, and failures shrink to them. */
const batchArbitrary = fc.constantFrom(...PAGE_SIZES.slice(0, 5)).chain((pageSize) => {
  const delta = fc
    .tuple(
      fc.constantFrom<DeltaBasis>('hashed', 'sent'),
      fc.uniqueArray(fc.nat({ max: blocksPerPage(pageSize) - 1 })),
      fc.integer({ min: 1, max: 255 }),
    )
    .map(([basis, blocks, group]): { basis: DeltaBasis; page: BatchPage } => {
      const bitmap = new Uint8Array(bitmapBytes(pageSize));
      for (const block of blocks) bitmap[block >> 3] = (bitmap[block >> 3] as number) | (1 << (block & 7));
      // Each block has bytes of its own, so that one in the wrong place shows.
      const data = concatenated(...blocks.map((block) => filled(BLOCK_BYTES, block + group)));
      return { basis, page: { bitmap, data, group } };
    });
  const full = anyBasis.map((basis): { basis: DeltaBasis; page: BatchPage } => ({
    basis,
    page: { bitmap: undefined, data: filled(pageSize, 9) },
  }));
  return fc.array(fc.oneof(full, delta), { maxLength: 12 }).map((items) => ({ pageSize, items }));
});

describe('a list of numbers', () => {
  const ascending = fc
    .uniqueArray(fc.oneof(fc.nat({ max: 200 }), fc.nat({ max: 2 ** 31 - 1 })), { maxLength: 40 })
    .map((numbers) => numbers.sort((a, b) => a - b));

  test('a list of numbers is the same after it travelled as gaps', () => {
    fc.assert(
      fc.property(ascending, (numbers) => assert.deepEqual(fromGaps(toGaps(numbers), 2 ** 31), numbers)),
    );
  });

  test('a list of numbers travels as SPEC.md says', () => assert.deepEqual(toGaps([3, 4, 9]), [3, 0, 4]));

  test('a list of numbers may hold the last number below its limit and none from there on', () => {
    fc.assert(
      fc.property(ascending, (numbers) => {
        const last = numbers.at(-1);
        if (last === undefined) return;
        assert.deepEqual(fromGaps(toGaps(numbers), last + 1), numbers);
        assert.throws(() => fromGaps(toGaps(numbers), last), ProtocolViolation);
      }),
    );
  });

  test('a list whose gaps add up beyond every integer is refused', () => {
    const most = Number.MAX_SAFE_INTEGER;
    for (const gaps of [[most], [most, most, most], [5, most], Array.from({ length: 3000 }, () => most)])
      assert.throws(() => fromGaps(gaps, 2 ** 31), ProtocolViolation);
  });
});

describe('a page request', () => {
  const wantedArbitrary = fc
    .uniqueArray(fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: 2 ** 31 - 1 })))
    .chain((numbers) =>
      fc.tuple(
        ...numbers
          .sort((a, b) => a - b)
          .map((pageNumber) => anyBasis.map((basis): WantedPage => ({ pageNumber, basis }))),
      ),
    );

  test('a page request is the same after it travelled', () => {
    fc.assert(
      fc.property(wantedArbitrary, (wanted) =>
        assert.deepEqual(decodeWanted(encodeWanted(wanted), 2 ** 31 - 1), wanted),
      ),
    );
  });

  test('a page request for page 0 is refused', () => {
    for (const value of [0, 1, 2]) assert.throws(() => decodeWanted([value], 10), /page 0 was asked for/);
  });

  test('a page request for the last page is taken, for the one after it refused', () => {
    assert.deepEqual(decodeWanted([30], 10), [{ pageNumber: 10, basis: 'none' }]);
    assert.throws(() => decodeWanted([33], 10), ProtocolViolation);
    assert.throws(() => decodeWanted([3, 3, 6, 0, 12, 1], 10), ProtocolViolation);
    assert.throws(() => decodeWanted([3], 0), ProtocolViolation);
  });

  test('a page request whose gaps overflow is refused', () => {
    assert.throws(() => decodeWanted([2 ** 53 - 1, 2 ** 53 - 1], 2 ** 31 - 1), ProtocolViolation);
  });
});

describe('a page batch', () => {
  test('a page batch is the same after it travelled, and no larger than the receiver allows', () => {
    fc.assert(
      fc.property(batchArbitrary, ({ pageSize, items }) => {
        const wanted = items.map(({ basis }, i) => ({ pageNumber: i + 1, basis }));
        const batch = encodeBatch(items.map(({ page }) => page));
        assert.ok(batch.length <= maxBatchBytes(pageSize, items.length));
        assert.deepEqual(
          decodeBatch(batch, pageSize, wanted),
          items.map(({ page }) => page),
        );
      }),
      { numRuns: 200 },
    );
  });

  test('a page batch that is cut anywhere, or has a byte more, is refused', () => {
    fc.assert(
      fc.property(
        batchArbitrary,
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (made, cut) => {
          const { pageSize, items } = made;
          const wanted = items.map(({ basis }, i) => ({ pageNumber: i + 1, basis }));
          const batch = encodeBatch(items.map(({ page }) => page));
          const shorter = batch.subarray(0, Math.floor(cut * batch.length));
          if (batch.length > 0)
            assert.throws(() => decodeBatch(shorter, pageSize, wanted), ProtocolViolation);
          const longer = new Uint8Array(batch.length + 1);
          longer.set(batch);
          assert.throws(() => decodeBatch(longer, pageSize, wanted), ProtocolViolation);
        },
      ),
      { numRuns: 200 },
    );
  });

  const plain: WantedPage = { pageNumber: 3, basis: 'none' };
  const blocks: WantedPage = { pageNumber: 3, basis: 'hashed' };
  const refused: Record<string, { batch: number[]; wanted: WantedPage[]; says: RegExp }> = {
    'that is shorter than its list of kinds': { batch: [0], wanted: [plain, plain], says: /list of kinds/ },
    'with a delta of a page that was asked for whole': {
      batch: [1, 0b0001, ...zeros(128)],
      wanted: [plain],
      says: /a delta for page 3, which was asked for whole/,
    },
    'with a block beyond the page': {
      batch: [1, 0b1_0000, ...zeros(128)],
      wanted: [blocks],
      says: /block 4 of 4/,
    },
    'that ends before its bitmaps do': { batch: [1], wanted: [blocks], says: /ends too early/ },
    'that ends before its data does': {
      batch: [1, 0b0011, ...zeros(255)],
      wanted: [blocks],
      says: /ends too early/,
    },
    'with bytes after its last block': {
      batch: [0, ...zeros(513)],
      wanted: [plain],
      says: /after its last block/,
    },
    'for a request of no pages': { batch: [0], wanted: [], says: /after its last block/ },
  };
  for (const [what, { batch, wanted, says }] of Object.entries(refused)) {
    test(`a page batch ${what} is refused`, () => {
      assert.throws(
        () => decodeBatch(Uint8Array.from(batch), 512, wanted),
        (error: unknown) => error instanceof ProtocolViolation && says.test(error.message),
      );
    });
  }

  test('a page batch has its bytes where SPEC.md says', () => {
    const batch = encodeBatch([
      { bitmap: Uint8Array.of(0b1010), data: concatenated(filled(128, 1), filled(128, 2)), group: 13 },
      { bitmap: undefined, data: filled(512, 3) },
      { bitmap: Uint8Array.of(0b0011), data: concatenated(filled(128, 4), filled(128, 5)), group: 13 },
      { bitmap: Uint8Array.of(0b1000), data: filled(128, 6), group: 2 },
    ]);
    const expected = [
      13,
      0,
      13,
      2,
      0b1010,
      0b0011,
      0b1000,
      ...filled(512, 3),
      ...filled(128, 6),
      ...filled(128, 4),
      ...filled(128, 1),
      ...filled(128, 5),
      ...filled(128, 2),
    ];
    assert.deepEqual([...batch], expected);
  });

  test('a page batch has bitmaps and block hashes of the size of its pages', () => {
    for (const pageSize of PAGE_SIZES) {
      assert.equal(blocksPerPage(pageSize) * BLOCK_BYTES, pageSize);
      assert.equal(blockHashBytes(pageSize), ((pageSize / BLOCK_BYTES) * BLOCK_HASH_BITS) / 8);
      assert.equal(bitmapBytes(pageSize), Math.ceil(pageSize / 1024));
    }
  });
});

function zeros(length: number): number[] {
  return Array.from({ length }, () => 0);
}

function filled(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

function concatenated(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
