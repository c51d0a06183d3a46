import { createCipheriv } from 'node:crypto';
import { loadBinding } from './binding.ts';
import type { NativeFunctions } from './binding.ts';

/** Bytes of the key of a `KeyedHash`. */
export const HASH_KEY_BYTES = 16;

/** Bytes of one hash. */
export const KEYED_HASH_BYTES = 8;

/** Bytes of the expanded key for SipHash; NH's bytes follow. */
const SIPHASH_KEY_BYTES = 16;

/** Bytes of data that one step of NH takes, with as many bytes of the key. */
const NH_STEP_BYTES = 16;

/**
 * The keyed hash of protocol/SPEC.md ("Keyed hash"): SipHash-2-4 of NH. Without the key, any two different inputs have
 * the same hash with a chance of 2^-63.
 *
 * NH is ten times as fast as SipHash alone, and needs as many bytes of key as the longest input has. AES in counter
 * mode makes them from the 16 bytes that two agents agree on.
 */
export class KeyedHash {
  readonly #native: NativeFunctions;
  readonly #expanded: Uint8Array;

  /** `key` has `HASH_KEY_BYTES`; no input is longer than `maxBytes`. */
  constructor(key: Uint8Array, maxBytes: number) {
    if (key.length !== HASH_KEY_BYTES) throw new RangeError(`a key of ${key.length} bytes`);
    this.#native = loadBinding().native;
    const nhBytes = Math.ceil(maxBytes / NH_STEP_BYTES) * NH_STEP_BYTES;
    const cipher = createCipheriv('aes-128-ctr', key, new Uint8Array(16));
    this.#expanded = cipher.update(new Uint8Array(SIPHASH_KEY_BYTES + nhBytes));
  }

  /** Writes the hash of `bytes` to `out` at `offset`. */
  hash(bytes: Uint8Array, out: Uint8Array, offset: number): void {
    this.#native.keyedHashEach(this.#expanded, bytes, bytes.length, 1, out, offset);
  }

  /** Writes the hashes of consecutive parts of `unit` bytes, one after another. */
  hashEach(bytes: Uint8Array, unit: number, out: Uint8Array, offset: number): void {
    this.#native.keyedHashEach(this.#expanded, bytes, unit, bytes.length / unit, out, offset);
  }

  /** Writes the 12-bit hashes of consecutive blocks of 128 bytes, two in three bytes; an even number of blocks. */
  hashBlocks(bytes: Uint8Array, out: Uint8Array, offset: number): void {
    this.#native.keyedHashBlocks(this.#expanded, bytes, out, offset);
  }
}
