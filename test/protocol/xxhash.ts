/**
 * XXH32 and XXH64 written from their specification (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md),
 * as slow as it may be: what the tests compare the real ones with.
 */

interface Parameters {
  readonly bits: bigint;
  readonly primes: readonly [bigint, bigint, bigint, bigint, bigint];
  readonly mergeRotations: readonly [bigint, bigint, bigint, bigint];
  readonly roundRotation: bigint;
}

const XXH32: Parameters = {
  bits: 32n,
  primes: [0x9e3779b1n, 0x85ebca77n, 0xc2b2ae3dn, 0x27d4eb2fn, 0x165667b1n],
  mergeRotations: [1n, 7n, 12n, 18n],
  roundRotation: 13n,
};

const XXH64: Parameters = {
  bits: 64n,
  primes: [
    0x9e3779b185ebca87n,
    0xc2b2ae3d27d4eb4fn,
    0x165667b19e3779f9n,
    0x85ebca77c2b2ae63n,
    0x27d4eb2f165667c5n,
  ],
  mergeRotations: [1n, 7n, 12n, 18n],
  roundRotation: 31n,
};

export function naiveXxh32(bytes: Uint8Array, seed: number): number {
  const { primes } = XXH32;
  const [p1, p2, p3, p4, p5] = primes;
  const word = wrap(32n);
  let { hash, rest } = stripes(XXH32, bytes, BigInt(seed), p5);
  for (; rest.length >= 4; rest = rest.subarray(4))
    hash = word(rotate(word(hash + integer(rest, 4) * p3), 17n, 32n) * p4);
  for (const byte of rest) hash = word(rotate(word(hash + BigInt(byte) * p5), 11n, 32n) * p1);
  hash = word((hash ^ (hash >> 15n)) * p2);
  hash = word((hash ^ (hash >> 13n)) * p3);
  return Number(hash ^ (hash >> 16n));
}

export function naiveXxh64(bytes: Uint8Array, seed: bigint): bigint {
  const [p1, p2, p3, p4, p5] = XXH64.primes;
  const word = wrap(64n);
  let { hash, rest } = stripes(XXH64, bytes, seed, p5);
  for (; rest.length >= 8; rest = rest.subarray(8)) {
    hash ^= round(XXH64, 0n, integer(rest, 8));
    hash = word(rotate(hash, 27n, 64n) * p1 + p4);
  }
  if (rest.length >= 4) {
    hash = word(rotate(hash ^ word(integer(rest, 4) * p1), 23n, 64n) * p2 + p3);
    rest = rest.subarray(4);
  }
  for (const byte of rest) hash = word(rotate(hash ^ word(BigInt(byte) * p5), 11n, 64n) * p1);
  hash = word((hash ^ (hash >> 33n)) * p2);
  hash = word((hash ^ (hash >> 29n)) * p3);
  return hash ^ (hash >> 32n);
}

/** Four lanes over whole stripes, merged, with the length added; and the bytes that fill no stripe. */
function stripes(
  parameters: Parameters,
  bytes: Uint8Array,
  seed: bigint,
  shortPrime: bigint,
): { hash: bigint; rest: Uint8Array } {
  const { bits, primes, mergeRotations } = parameters;
  const [p1, p2, , p4] = primes;
  const word = wrap(bits);
  const lane = Number(bits) / 8;
  const length = BigInt(bytes.length);
  if (bytes.length < 4 * lane) return { hash: word(seed + shortPrime + length), rest: bytes };
  const lanes = [word(seed + p1 + p2), word(seed + p2), seed, word(seed - p1)];
  let rest = bytes;
  for (; rest.length >= 4 * lane; rest = rest.subarray(4 * lane)) {
    for (let i = 0; i < 4; i++)
      lanes[i] = round(parameters, lanes[i] as bigint, integer(rest.subarray(i * lane), lane));
  }
  let hash = word(
    lanes.reduce((sum, value, i) => sum + rotate(value, mergeRotations[i] as bigint, bits), 0n),
  );
  if (bits === 64n) for (const value of lanes) hash = word((hash ^ round(parameters, 0n, value)) * p1 + p4);
  return { hash: word(hash + length), rest };
}

function round({ bits, primes: [p1, p2], roundRotation }: Parameters, value: bigint, input: bigint): bigint {
  const word = wrap(bits);
  return word(rotate(word(value + input * p2), roundRotation, bits) * p1);
}

function wrap(bits: bigint): (value: bigint) => bigint {
  return (value) => BigInt.asUintN(Number(bits), value);
}

function rotate(value: bigint, by: bigint, bits: bigint): bigint {
  return BigInt.asUintN(Number(bits), (value << by) | (value >> (bits - by)));
}

function integer(bytes: Uint8Array, length: number): bigint {
  let value = 0n;
  for (let i = length - 1; i >= 0; i--) value = value * 256n + BigInt(bytes[i] as number);
  return value;
}
