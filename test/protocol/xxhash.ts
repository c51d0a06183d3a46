/**
 * XXH64 written from its specification (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md),
 * without a thought of speed: the tests compare the real one with it.
 */

export const XXH64_PRIMES = [
  0x9e3779b185ebca87n,
  0xc2b2ae3d27d4eb4fn,
  0x165667b19e3779f9n,
  0x85ebca77c2b2ae63n,
  0x27d4eb2f165667c5n,
] as const;

const [P1, P2, P3, P4, P5] = XXH64_PRIMES;
const MASK = (1n << 64n) - 1n;
const LANE_BYTES = 8;
const STRIPE_BYTES = 4 * LANE_BYTES;

export function naiveXxh64(bytes: Uint8Array, seed: bigint): bigint {
  let { hash, rest } = stripes(bytes, seed);
  for (; rest.length >= 8; rest = rest.subarray(8)) {
    hash ^= round(0n, integer(rest, 8));
    hash = word(rotate(hash, 27n) * P1 + P4);
  }
  if (rest.length >= 4) {
    hash = word(rotate(hash ^ word(integer(rest, 4) * P1), 23n) * P2 + P3);
    rest = rest.subarray(4);
  }
  for (const byte of rest) hash = word(rotate(hash ^ word(BigInt(byte) * P5), 11n) * P1);
  hash = word((hash ^ (hash >> 33n)) * P2);
  hash = word((hash ^ (hash >> 29n)) * P3);
  return hash ^ (hash >> 32n);
}

/** Four lanes over whole stripes, merged, with the length added; and the bytes that fill no stripe. */
function stripes(bytes: Uint8Array, seed: bigint): { hash: bigint; rest: Uint8Array } {
  const length = BigInt(bytes.length);
  if (bytes.length < STRIPE_BYTES) return { hash: word(seed + P5 + length), rest: bytes };
  const lanes = [word(seed + P1 + P2), word(seed + P2), seed, word(seed - P1)];
  let rest = bytes;
  for (; rest.length >= STRIPE_BYTES; rest = rest.subarray(STRIPE_BYTES)) {
    for (let i = 0; i < 4; i++)
      lanes[i] = round(lanes[i] as bigint, integer(rest.subarray(i * LANE_BYTES), LANE_BYTES));
  }
  const rotations = [1n, 7n, 12n, 18n];
  let hash = word(lanes.reduce((sum, value, i) => sum + rotate(value, rotations[i] as bigint), 0n));
  for (const value of lanes) hash = word((hash ^ round(0n, value)) * P1 + P4);
  return { hash: word(hash + length), rest };
}

function round(value: bigint, input: bigint): bigint {
  return word(rotate(word(value + input * P2), 31n) * P1);
}

function integer(bytes: Uint8Array, length: number): bigint {
  let value = 0n;
  for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i] as number);
  return value;
}

function rotate(value: bigint, bits: bigint): bigint {
  return word((value << bits) | (value >> (64n - bits)));
}

function word(value: bigint): bigint {
  return value & MASK;
}
