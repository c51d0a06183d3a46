import { createHash } from 'node:crypto';
import xxhash from 'xxhash-wasm';
import type { HashAlgorithm } from '../../protocol/messages.ts';
import { maskedFirstPage } from './header.ts';
import type { PageNumber, PageSize } from './page-types.ts';
import { lockBytePage } from './page-types.ts';

const xx = await xxhash();

/** Bytes of the seed that the replica agent chooses for each sync. */
export const SEED_BYTES = 8;

/** Seeded hashes of pages and nodes. Both sides of a sync make the same one from `open`'s algorithm and seed. */
export interface PageHasher {
  readonly pageSize: PageSize;
  /** Bytes of one hash: 8 (xxh64) or 16 (sha256, cut to 128 bits). */
  readonly hashBytes: number;
  /** Writes the hash of `bytes` to `out` at `offset`. */
  hash(bytes: Uint8Array, out: Uint8Array, offset: number): void;
  /** The same for a page: without the file's own header bytes, and of zeros for the lock-byte page. */
  hashPage(page: PageNumber, bytes: Uint8Array, out: Uint8Array, offset: number): void;
}

/** A hasher for pages of `size` bytes under `seed` (8 bytes). */
export function createPageHasher(algorithm: HashAlgorithm, seed: Uint8Array, size: PageSize): PageHasher {
  const { hashBytes, hash } = algorithm === 'xxh64' ? xxh64(seed) : sha256(seed);
  const locked = lockBytePage(size);
  const zeros = new Uint8Array(size);
  return {
    pageSize: size,
    hashBytes,
    hash,
    hashPage(page, bytes, out, offset) {
      if (page === 1) hash(maskedFirstPage(bytes), out, offset);
      else hash(page === locked ? zeros : bytes, out, offset);
    },
  };
}

type Hash = Pick<PageHasher, 'hashBytes' | 'hash'>;

function xxh64(seed: Uint8Array): Hash {
  // Runs of pages are hashed into one array: a view for each page would cost as much as the hash.
  let lastOut: Uint8Array = new Uint8Array(0);
  let view = new DataView(lastOut.buffer);
  const seedValue = new DataView(seed.buffer, seed.byteOffset, SEED_BYTES).getBigUint64(0, true);
  return {
    hashBytes: 8,
    hash(bytes, out, offset) {
      if (out !== lastOut) {
        lastOut = out;
        view = new DataView(out.buffer, out.byteOffset, out.byteLength);
      }
      view.setBigUint64(offset, xx.h64Raw(bytes, seedValue), true);
    },
  };
}

function sha256(seed: Uint8Array): Hash {
  return {
    hashBytes: 16,
    hash(bytes, out, offset) {
      const digest = createHash('sha256').update(seed).update(bytes).digest();
      out.set(digest.subarray(0, 16), offset);
    },
  };
}
