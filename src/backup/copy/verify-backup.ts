import { closeSync, openSync, readSync } from 'node:fs';
import type { HashAlgorithm } from '../../../protocol/messages.ts';
import { checkIntegrity } from '../../sqlite/integrity/integrity-check.ts';
import { sanitizeText, SqlsyncError } from '../../errors.ts';
import { createPageHasher } from '../../pages/hash.ts';
import { pageNumber } from '../../pages/page-types.ts';
import type { PageSize } from '../../pages/page-types.ts';
import { makeLocalCopy } from '../snapshots/local-copy.ts';
import { withLists } from '../files/store-lists.ts';
import { throwIfAborted } from '../store-error.ts';
import type { StoreAccess } from '../files/store-files.ts';
import type { StoreSnapshot } from '../types.ts';

/** What the origin had: the hashes of all pages, of which the root hash is the origin's. */
export interface OriginHashes {
  readonly algorithm: HashAlgorithm;
  readonly key: Uint8Array;
  readonly hashes: Uint8Array;
}

export interface VerifyBackupOptions {
  readonly signal?: AbortSignal | undefined;
  /** What the pages are hashed by for the cache. */
  readonly algorithm: HashAlgorithm;
  readonly key: Uint8Array;
  /** Told the hashes of all pages by that, once every page was found as the origin had it. */
  readonly onSame: (hashes: Uint8Array) => void;
}

/**
 * Restores a snapshot to a temporary file from what is in the store now, compares that page by page with what the
 * origin had, and runs integrity_check on it. Throws SqlsyncError STORE_DAMAGED if they are not the same,
 * ORIGIN_UNREADABLE where the database was copied as it is and is itself malformed, WORKER_LOST where SQLite could not
 * look. Resolves to what could not be checked, because this SQLite lacks what it needs, each a sentence.
 */
export async function verifyBackup(
  access: StoreAccess,
  snapshot: StoreSnapshot,
  origin: OriginHashes,
  options: VerifyBackupOptions,
): Promise<readonly string[]> {
  const { signal } = options;
  const copy = await withLists(access, { needs: [snapshot], onBadSnapshot: () => {} }, ({ contents }) =>
    makeLocalCopy(contents.reader, snapshot, { signal }),
  ).catch((error: unknown) => {
    throw unverified(error, snapshot);
  });
  try {
    const { page, hashes } = comparePages(copy.path, snapshot, origin, options);
    if (page !== undefined) {
      throw new SqlsyncError(
        'STORE_DAMAGED',
        `Page ${page} of the new snapshot ${snapshot.id.slice(0, 8)} is not as it was in the origin`,
        {
          hint: 'Check the memory and disks of this host, and run it again.',
        },
      );
    }
    options.onSame(hashes);
    if (snapshot.pageCount === 0) return [];
    const result = await checkIntegrity(copy.path, 0, signal);
    throwIfAborted(signal);
    if (!result.made) {
      throw new SqlsyncError(
        'WORKER_LOST',
        `The backup ${snapshot.id.slice(0, 8)} is an exact copy, but integrity_check of it could not be made: ${result.why}`,
        { hint: 'The snapshot is in the store. Has this host enough memory and processes? Run it again.' },
      );
    }
    const unchecked = result.unchecked.map((what) => `Not all of the backup could be checked: ${what}`);
    if (result.findings.length === 0) return unchecked;
    throw new SqlsyncError(
      'ORIGIN_UNREADABLE',
      `The backup ${snapshot.id.slice(0, 8)} is an exact copy, but the database itself is malformed: ${sanitizeText(result.findings[0] ?? '')}`,
      { hint: 'Salvage the origin with `sqlite3 FILE .recover`, or restore an older snapshot.' },
    );
  } finally {
    copy.remove();
  }
}

/** What failed is the verification: the snapshot is there. */
function unverified(error: unknown, { id }: StoreSnapshot): unknown {
  if (!(error instanceof SqlsyncError) || error.code !== 'TEMP_UNAVAILABLE') return error;
  const message = `The snapshot ${id.slice(0, 8)} is in the store, but was not verified: ${error.message}`;
  return new SqlsyncError(error.code, message, { hint: error.hint ?? '', cause: error });
}

/** The first page of the file whose hash is not the origin's; and the hashes for the cache of all before it. */
function comparePages(
  path: string,
  { pageSize, pageCount }: StoreSnapshot,
  origin: OriginHashes,
  cache: VerifyBackupOptions,
): { page: number | undefined; hashes: Uint8Array } {
  const hasher = createPageHasher(origin.algorithm, origin.key, pageSize as PageSize);
  const cacheHasher = createPageHasher(cache.algorithm, cache.key, pageSize as PageSize);
  const hashes = new Uint8Array(pageCount * cacheHasher.hashBytes);
  const hash = new Uint8Array(hasher.hashBytes);
  const bytes = new Uint8Array(pageSize);
  const descriptor = openSync(path, 'r');
  try {
    for (let page = 1; page <= pageCount; page++) {
      if (readSync(descriptor, bytes) !== bytes.length) return { page, hashes };
      hasher.hashPage(pageNumber(page), bytes, hash, 0);
      const at = (page - 1) * hash.length;
      if (Buffer.compare(hash, origin.hashes.subarray(at, at + hash.length)) !== 0) return { page, hashes };
      cacheHasher.hashPage(pageNumber(page), bytes, hashes, (page - 1) * cacheHasher.hashBytes);
    }
    return { page: undefined, hashes };
  } finally {
    closeSync(descriptor);
  }
}
