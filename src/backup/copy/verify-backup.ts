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

/** The hashes of all pages of the origin; the root hash over them is the origin's. */
export interface OriginHashes {
  readonly algorithm: HashAlgorithm;
  readonly key: Uint8Array;
  readonly hashes: Uint8Array;
}

export interface VerifyBackupOptions {
  readonly signal?: AbortSignal | undefined;
  /** The hash for the cache. */
  readonly algorithm: HashAlgorithm;
  readonly key: Uint8Array;
  /** Receives the hashes of all pages by that algorithm, after every page was found equal to the origin's. */
  readonly onSame: (hashes: Uint8Array) => void;
}

/**
 * Restores a snapshot from the store to a temporary file, compares it page by page with the origin's hashes, and runs
 * integrity_check on it. Throws SqlsyncError STORE_DAMAGED if a page differs, ORIGIN_UNREADABLE if the copy is exact
 * but the database itself is malformed, WORKER_LOST if SQLite could not check it. Resolves to what could not be checked
 * because this SQLite lacks a feature, one sentence each.
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
          hint: 'Check the memory and disks of this host, then run sqlsync again.',
        },
      );
    }
    options.onSame(hashes);
    if (snapshot.pageCount === 0) return [];
    const result = await checkIntegrity(copy.path, 0, { signal });
    throwIfAborted(signal);
    if (!result.made) {
      throw new SqlsyncError(
        'WORKER_LOST',
        `The backup ${snapshot.id.slice(0, 8)} is an exact copy, but integrity_check of it could not be made: ${result.why}`,
        {
          hint: 'The snapshot is in the store. Check that this host has enough memory and processes, then run sqlsync again.',
        },
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

/** The error if only the verification failed: the snapshot is in the store. */
function unverified(error: unknown, { id }: StoreSnapshot): unknown {
  if (!(error instanceof SqlsyncError) || error.code !== 'TEMP_UNAVAILABLE') return error;
  const message = `The snapshot ${id.slice(0, 8)} is in the store, but was not verified: ${error.message}`;
  return new SqlsyncError(error.code, message, { hint: error.hint ?? '', cause: error });
}

/** The first page of the file whose hash differs from the origin's; also the cache's hashes of all pages before it. */
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
