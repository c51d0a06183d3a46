/**
 * The keyed hash, written from SPEC.md ("Keyed hash") with big integers and shared with nothing. The tests
 * compare the native one with it.
 */
import { createCipheriv } from 'node:crypto';

const MASK_64 = (1n << 64n) - 1n;
const MASK_128 = (1n << 128n) - 1n;

export class NaiveKeyedHash {
  readonly #key: Uint8Array;
  /** The part of the key stream that was needed so far. */
  #stream: Buffer;

  /** `expanded` stands for the key stream of `key`, as far as it goes. */
  constructor(key: Uint8Array, expanded: Uint8Array = new Uint8Array(0)) {
    this.#key = key;
    this.#stream = Buffer.from(expanded);
  }

  hash(bytes: Uint8Array): bigint {
    const padded = Buffer.alloc(Math.ceil(bytes.length / 16) * 16);
    padded.set(bytes);
    this.#extend(16 + padded.length);
    let sum = 0n;
    for (let at = 0; at < padded.length; at += 16) {
      const first = (padded.readBigUInt64LE(at) + this.#stream.readBigUInt64LE(16 + at)) & MASK_64;
      const second = (padded.readBigUInt64LE(at + 8) + this.#stream.readBigUInt64LE(24 + at)) & MASK_64;
      sum = (sum + first * second) & MASK_128;
    }
    const input = Buffer.alloc(24);
    input.writeBigUInt64LE(sum & MASK_64, 0);
    input.writeBigUInt64LE(sum >> 64n, 8);
    input.writeBigUInt64LE(BigInt(bytes.length), 16);
    return naiveSipHash(this.#stream.subarray(0, 16), input);
  }

  /** AES-128 of the numbers 0, 1, 2 …, each as 16 bytes, big-endian. */
  #extend(length: number): void {
    const missing = Math.max(0, length - this.#stream.length);
    const counters = Buffer.alloc(Math.ceil(missing / 16) * 16);
    for (let at = 0; at < counters.length; at += 16)
      counters.writeUInt32BE((this.#stream.length + at) / 16, at + 12);
    const cipher = createCipheriv('aes-128-ecb', this.#key, null).setAutoPadding(false);
    this.#stream = Buffer.concat([this.#stream, cipher.update(counters)]);
  }
}

/** SipHash-2-4 (Aumasson and Bernstein, 2012). */
export function naiveSipHash(key: Uint8Array, bytes: Uint8Array): bigint {
  const [k0, k1] = [word(key, 0), word(key, 8)];
  const v = [
    k0 ^ 0x736f6d6570736575n,
    k1 ^ 0x646f72616e646f6dn,
    k0 ^ 0x6c7967656e657261n,
    k1 ^ 0x7465646279746573n,
  ] as [bigint, bigint, bigint, bigint];
  const padded = Buffer.alloc(Math.floor(bytes.length / 8) * 8 + 8);
  padded.set(bytes);
  padded[padded.length - 1] = bytes.length % 256;
  for (let at = 0; at < padded.length; at += 8) {
    const next = word(padded, at);
    v[3] ^= next;
    sipRounds(v, 2);
    v[0] ^= next;
  }
  v[2] ^= 0xffn;
  sipRounds(v, 4);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

function sipRounds(v: [bigint, bigint, bigint, bigint], rounds: number): void {
  for (let i = 0; i < rounds; i++) {
    v[0] = (v[0] + v[1]) & MASK_64;
    v[2] = (v[2] + v[3]) & MASK_64;
    v[1] = rotate(v[1], 13n) ^ v[0];
    v[3] = rotate(v[3], 16n) ^ v[2];
    v[0] = rotate(v[0], 32n);
    v[2] = (v[2] + v[1]) & MASK_64;
    v[0] = (v[0] + v[3]) & MASK_64;
    v[1] = rotate(v[1], 17n) ^ v[2];
    v[3] = rotate(v[3], 21n) ^ v[0];
    v[2] = rotate(v[2], 32n);
  }
}

function rotate(value: bigint, bits: bigint): bigint {
  return ((value << bits) | (value >> (64n - bits))) & MASK_64;
}

function word(bytes: Uint8Array, at: number): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getBigUint64(at, true);
}
