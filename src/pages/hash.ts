import { createHash } from 'node:crypto';
import { BLOCK_BYTES } from '../../protocol/limits.ts';
import type { HashAlgorithm } from '../../protocol/messages.ts';
import { KEYED_HASH_BYTES, KeyedHash } from '../sqlite/keyed-hash.ts';
import { maskedFirstPage } from './header.ts';
import type { PageNumber, PageSize } from './page-types.ts';
import { lockBytePage, pageNumber } from './page-types.ts';
import { xxh64 } from './xxh64.ts';

export { HASH_KEY_BYTES, KEYED_HASH_BYTES, KeyedHash } from '../sqlite/keyed-hash.ts';

/** Keyed hashes of pages, nodes and blocks. Both sides of a sync use the algorithm and key that `open` names. */
export interface PageHasher {
  readonly pageSize: PageSize;
  /** Bytes of one hash: 8 (nh-siphash, xxh64) or 16 (sha256, cut to 128 bits). */
  readonly hashBytes: number;
  /** Writes the hash of `bytes`, at most one page, to `out` at `offset`. */
  hash(bytes: Uint8Array, out: Uint8Array, offset: number): void;
  /** As `hash`, for a page: the file's own header bytes count as zero, and so does the whole lock-byte page. */
  hashPage(page: PageNumber, bytes: Uint8Array, out: Uint8Array, offset: number): void;
  /** As `hashPage`, for consecutive pages from `first` on; the hashes follow each other. */
  hashPages(first: PageNumber, bytes: Uint8Array, out: Uint8Array, offset: number): void;
  /** Writes the block hashes of one or more pages to `out` at `offset`. They are the same for every algorithm. */
  hashBlocks(bytes: Uint8Array, out: Uint8Array, offset: number): void;
}

/** A hasher for pages of `size` bytes under `key` (`HASH_KEY_BYTES`). */
export function createPageHasher(algorithm: HashAlgorithm, key: Uint8Array, size: PageSize): PageHasher {
  const { hashBytes, hash, hashEach } = HASHES[algorithm](key, size);
  const locked = lockBytePage(size);
  const zeros = new Uint8Array(size);
  let blockHash: KeyedHash | undefined;
  function hashPage(page: PageNumber, bytes: Uint8Array, out: Uint8Array, offset: number): void {
    if (page === 1) hash(maskedFirstPage(bytes), out, offset);
    else hash(page === locked ? zeros : bytes, out, offset);
  }
  return {
    pageSize: size,
    hashBytes,
    hash,
    hashPage,
    hashPages(first, bytes, out, offset) {
      hashEach(bytes, size, out, offset);
      for (const page of [pageNumber(1), locked]) {
        const index = page - first;
        if (index < 0 || index * size >= bytes.length) continue;
        hashPage(page, bytes.subarray(index * size, (index + 1) * size), out, offset + index * hashBytes);
      }
    },
    hashBlocks(bytes, out, offset) {
      blockHash ??= new KeyedHash(key, BLOCK_BYTES);
      blockHash.hashBlocks(bytes, out, offset);
    },
  };
}

interface Hash extends Pick<PageHasher, 'hashBytes' | 'hash'> {
  /** Hashes consecutive parts of `unit` bytes. */
  readonly hashEach: (bytes: Uint8Array, unit: number, out: Uint8Array, offset: number) => void;
}

const HASHES: Readonly<Record<HashAlgorithm, (key: Uint8Array, maxBytes: number) => Hash>> = {
  'nh-siphash': nhSiphash,
  sha256,
  xxh64: seededXxh64,
};

function nhSiphash(key: Uint8Array, maxBytes: number): Hash {
  const keyed = new KeyedHash(key, maxBytes);
  return {
    hashBytes: KEYED_HASH_BYTES,
    hash: (bytes, out, offset) => keyed.hash(bytes, out, offset),
    hashEach: (bytes, unit, out, offset) => keyed.hashEach(bytes, unit, out, offset),
  };
}

/** The seed, the first half of the key, does not protect the hash: docs/security.md, "Collisions". */
function seededXxh64(key: Uint8Array): Hash {
  // One array serves a whole run of pages: a view for each page would cost as much as the hash.
  let lastOut: Uint8Array = new Uint8Array(0);
  let view = new DataView(lastOut.buffer);
  const seed = new DataView(key.buffer, key.byteOffset, key.byteLength).getBigUint64(0, true);
  return oneByOne(8, (bytes, out, offset) => {
    if (out !== lastOut) {
      lastOut = out;
      view = new DataView(out.buffer, out.byteOffset, out.byteLength);
    }
    view.setBigUint64(offset, xxh64(bytes, seed), true);
  });
}

function sha256(key: Uint8Array): Hash {
  return oneByOne(16, (bytes, out, offset) => {
    const digest = createHash('sha256').update(key).update(bytes).digest();
    out.set(digest.subarray(0, 16), offset);
  });
}

function oneByOne(hashBytes: number, hash: PageHasher['hash']): Hash {
  return {
    hashBytes,
    hash,
    hashEach(bytes, unit, out, offset) {
      for (let at = 0; at < bytes.length; at += unit, offset += hashBytes)
        hash(bytes.subarray(at, at + unit), out, offset);
    },
  };
}
