import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createCipheriv } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Random } from '../../fixtures/random.ts';
import { loadBinding } from '../../src/sqlite/binding.ts';
import { HASH_KEY_BYTES, KeyedHash } from '../../src/sqlite/keyed-hash.ts';
import { tempDir } from '../support/compare.ts';
import { NaiveKeyedHash } from '../protocol/keyed-hash.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const KEY = new Random(4).bytes(HASH_KEY_BYTES);
const GUARD = 0xa5;

describe('the keyed hash', () => {
  test('the keyed hash stands on an AES-128 with the published value for zeros (GCM specification, test case 1)', () => {
    const zeros = new Uint8Array(16);
    const cipher = createCipheriv('aes-128-ctr', zeros, zeros);
    assert.equal(cipher.update(zeros).toString('hex'), '66e94bd4ef8a2c3b884cfa59ca342b2e');
  });

  test('the keyed hash has the values that protocol/SPEC.md gives', () => {
    const spec = readFileSync(join(ROOT, 'protocol', 'SPEC.md'), 'utf8');
    const rows = [...spec.matchAll(/^ *\| (\d+) +\| `([0-9a-f]{16})` \|$/gm)];
    assert.equal(rows.length, 7);
    const key = Uint8Array.from({ length: 16 }, (_, i) => i);
    const naive = new NaiveKeyedHash(key);
    for (const [, length = '', expected] of rows) {
      const bytes = Uint8Array.from({ length: Number(length) }, (_, i) => i);
      assert.equal(hex(new KeyedHash(key, bytes.length), bytes), expected, `${length} bytes`);
      assert.equal(hexOf(naive.hash(bytes)), expected, `${length} bytes`);
    }
  });

  test('the keyed hash of strings of every length equals that of big integers by SPEC.md', () => {
    const naive = new NaiveKeyedHash(KEY);
    const keyed = new KeyedHash(KEY, 700);
    const random = new Random(1);
    for (let length = 0; length <= 700; length++) {
      const bytes = random.bytes(length);
      assert.equal(hex(keyed, bytes), hexOf(naive.hash(bytes)), `${length} bytes`);
    }
  });

  test('the keyed hash of many parts at once is that of each by itself, under any key, at any place in memory', () => {
    fc.assert(
      fc.property(
        fc.record({
          key: fc.uint8Array({ minLength: 16, maxLength: 16 }),
          unit: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.constantFrom(512, 1024, 4096, 65536)),
          count: fc.integer({ min: 0, max: 9 }),
          shift: fc.nat({ max: 17 }),
          offset: fc.nat({ max: 17 }),
          seed: fc.integer(),
        }),
        ({ key, unit, count, shift, offset, seed }) => {
          const keyed = new KeyedHash(key, unit);
          const naive = new NaiveKeyedHash(key);
          const bytes = new Random(seed).bytes(shift + unit * count).subarray(shift);
          const out = new Uint8Array(offset + 8 * count + 5).fill(GUARD);
          keyed.hashEach(bytes, unit, out, offset);
          const expected = new Uint8Array(out.length).fill(GUARD);
          for (let i = 0; i < count; i++) {
            const part = bytes.subarray(i * unit, (i + 1) * unit);
            keyed.hash(part, expected, offset + 8 * i);
            assert.equal(hex(keyed, part), hexOf(naive.hash(part)));
          }
          assert.deepEqual(out, expected);
        },
      ),
      { numRuns: 60 },
    );
  });

  test('the keyed hash differs for strings of zeros of every length, and for every bit that changes', () => {
    const keyed = new KeyedHash(KEY, 512);
    const zeros = Array.from({ length: 513 }, (_, length) => hex(keyed, new Uint8Array(length)));
    assert.equal(new Set(zeros).size, 513);
    const page = new Random(2).bytes(512);
    const seen = new Set([hex(keyed, page)]);
    for (let bit = 0; bit < 512 * 8; bit++) {
      const changed = new Uint8Array(page);
      changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7));
      seen.add(hex(keyed, changed));
    }
    assert.equal(seen.size, 1 + 512 * 8);
  });

  test('the keyed hash differs under every key with another bit flipped', () => {
    const seen = new Set<string>();
    for (let bit = 0; bit < 128; bit++) {
      const key = new Uint8Array(KEY);
      key[bit >> 3] = (key[bit >> 3] as number) ^ (1 << (bit & 7));
      seen.add(hex(new KeyedHash(key, 64), new Uint8Array(64)));
    }
    assert.equal(seen.size, 128);
  });

  test('the keyed hash refuses a key of another length', () => {
    for (const length of [0, 8, 15, 17, 32])
      assert.throws(() => new KeyedHash(new Uint8Array(length), 512), RangeError);
  });
});

describe('the native functions', () => {
  const { keyedHashEach, keyedHashBlocks } = loadBinding().native;
  const bytes = (length: number): Uint8Array => new Uint8Array(length);
  const each = keyedHashEach as (...args: unknown[]) => void;
  const blocks = keyedHashBlocks as (...args: unknown[]) => void;

  test('the native functions take arguments that just fit', () => {
    each(bytes(16 + 512), bytes(1024), 512, 2, bytes(16), 0);
    each(bytes(16 + 16), bytes(1), 1, 1, bytes(9), 1);
    each(bytes(16), bytes(0), 0, 3, bytes(24), 0);
    each(bytes(16), bytes(0), 0, 0, bytes(0), 0);
    blocks(bytes(16 + 128), bytes(512), bytes(6), 0);
    blocks(bytes(16 + 128), bytes(0), bytes(0), 0);
  });

  for (const [what, call] of [
    ['fewer bytes than asked for', () => each(bytes(528), bytes(1023), 512, 2, bytes(16), 0)],
    ['a unit beyond the bytes', () => each(bytes(5000), bytes(10), 11, 1, bytes(16), 0)],
    ['a unit beyond all', () => each(bytes(5000), bytes(10), 2 ** 53, 0, bytes(16), 0)],
    ['a key that is one byte short', () => each(bytes(527), bytes(512), 512, 1, bytes(8), 0)],
    ['a key that lacks the rounding up', () => each(bytes(31), bytes(1), 1, 1, bytes(8), 0)],
    ['a key shorter than that of SipHash', () => each(bytes(15), bytes(0), 0, 1, bytes(8), 0)],
    ['too little room', () => each(bytes(528), bytes(512), 512, 1, bytes(7), 0)],
    ['too little room behind the offset', () => each(bytes(528), bytes(512), 512, 1, bytes(8), 1)],
    ['an offset beyond the end', () => each(bytes(528), bytes(512), 512, 0, bytes(8), 9)],
    ['a negative offset', () => each(bytes(528), bytes(512), 512, 1, bytes(8), -1)],
    ['half a unit', () => each(bytes(528), bytes(512), 0.5, 1, bytes(8), 0)],
    ['no number', () => each(bytes(528), bytes(512), 512, NaN, bytes(8), 0)],
    ['more than all', () => each(bytes(528), bytes(512), 512, Infinity, bytes(8), 0)],
    ['a count that overflows', () => each(bytes(528), bytes(512), 512, 2 ** 53, bytes(8), 0)],
    ['empty units without end', () => each(bytes(528), bytes(512), 0, 2 ** 53, bytes(8), 0)],
    ['a string', () => each(bytes(528), 'bytes', 1, 1, bytes(8), 0)],
    ['words', () => each(bytes(528), new Uint16Array(512), 1, 1, bytes(8), 0)],
    ['an ArrayBuffer', () => each(bytes(528), new ArrayBuffer(512), 1, 1, bytes(8), 0)],
    ['too few arguments', () => each(bytes(528), bytes(512), 512, 1, bytes(8))],
    ['half a pair of blocks', () => blocks(bytes(144), bytes(128), bytes(3), 0)],
    ['a key too short for a block', () => blocks(bytes(143), bytes(256), bytes(3), 0)],
    ['too little room for block hashes', () => blocks(bytes(144), bytes(512), bytes(6), 1)],
    ['no bytes at all', () => blocks(bytes(144), undefined, bytes(6), 0)],
    ['nothing', () => blocks()],
  ] as const) {
    test(`the native functions refuse ${what}`, () => assert.throws(call, RangeError));
  }

  test('the native functions see an array whose memory was given away as an empty one', () => {
    const gone = new Uint8Array(512);
    structuredClone(gone, { transfer: [gone.buffer] });
    assert.throws(() => each(bytes(528), gone, 512, 1, bytes(8), 0), RangeError);
    assert.throws(() => each(bytes(528), bytes(512), 512, 1, gone, 0), RangeError);
    assert.throws(() => each(gone, bytes(512), 512, 1, bytes(8), 0), RangeError);
    blocks(bytes(144), gone, bytes(0), 0);
  });
});

describe('the native sources', () => {
  for (const define of ['SQLSYNC_WITH_INT128', 'SQLSYNC_NO_INT128']) {
    test(`the native sources touch no byte outside of their arrays and do nothing undefined, with ${define}`, (t) => {
      const folder = tempDir(t);
      const native = join(ROOT, 'src', 'sqlite', 'native');
      const program = join(folder, 'trial');
      const sources = [join(import.meta.dirname, 'keyed-hash-trial.c'), join(native, 'keyed-hash.c')];
      const flags = [
        '-std=c11',
        '-g',
        '-Wall',
        '-Wextra',
        '-Werror',
        '-pedantic',
        `-D${define}`,
        `-I${native}`,
      ];
      const sanitizers = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all'];
      const compiler = process.env['CC'] ?? 'cc';
      const built = spawnSync(compiler, [...flags, ...sanitizers, ...sources, '-o', program], {
        encoding: 'utf8',
      });
      assert.equal(built.status, 0, built.stderr);
      const ran = spawnSync(program, { encoding: 'utf8' });
      assert.equal(ran.status, 0, ran.stderr);
      const lines = ran.stdout.trimEnd().split('\n');
      const blocks = lines.pop();
      const naive = new NaiveKeyedHash(KEY, trialBytes(16 + 704, 0));
      const expected = Array.from({ length: 701 }, (_, length) =>
        hexOf(naive.hash(trialBytes(length, length))),
      );
      assert.deepEqual(lines, expected);
      const hashes = [0, 1, 2, 3].map((block) => naive.hash(trialBytes(128, block * 128)) & 0xfffn);
      const packed = hashes.reduceRight((bits, hash) => (bits << 12n) | hash, 0n);
      assert.equal(blocks, hexOf(packed).slice(0, 12));
    });
  }
});

/** The bytes with which keyed-hash-trial.c fills its arrays. */
function trialBytes(length: number, from: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => {
    const i = from + at;
    return i * 167 + (i >> 8) * 13 + 5;
  });
}

function hex(keyed: KeyedHash, bytes: Uint8Array): string {
  const out = new Uint8Array(8);
  keyed.hash(bytes, out, 0);
  return Buffer.from(out).toString('hex');
}

function hexOf(hash: bigint): string {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(hash);
  return bytes.toString('hex');
}
