import type { HashAlgorithm } from '../../protocol/messages.ts';
import type { FileOwner } from '../files/ownership.ts';
import type { PageCount, PageNumber, PageSize } from './page-types.ts';

/**
 * One unchanging state of a database, by its pages: a snapshot of a live database, the old state of a replica, or a
 * part file. Every read of a page gives the same bytes until `close`; the lock-byte page reads as zeros.
 */
export interface PageSource {
  readonly pageSize: PageSize;
  readonly pageCount: PageCount;
  /** The `pageSize` bytes of a page; the caller may keep and change them. Throws if the page cannot be read. */
  readPage(page: PageNumber): Uint8Array;
  /**
   * The bytes of `count` consecutive pages: at most `RUN_BYTES`, or one page. They are valid until the next read of
   * this source; do not change them.
   */
  readPages(first: PageNumber, count: number): Uint8Array;
  /** Fills `into` with consecutive pages. */
  readInto(first: PageNumber, into: Uint8Array): void;
  /** As `readInto`, for any pages in ascending order. A source has it if it is faster than page by page. */
  readScattered?(pages: readonly number[], into: Uint8Array): void;
  /**
   * The caller will likely read these pages next, in ascending order. The source may begin work on them in other
   * threads.
   */
  readAhead?(pages: readonly number[]): void;
  /**
   * Makes an open file share the blocks of the source's own file (a reflink), which may hold other versions of pages
   * that a WAL has. A source has it if it has such a file. Throws SqlsyncError USAGE if the file system cannot.
   */
  cloneTo?(descriptor: number): void;
  close(): void;
}

/** Fills `into` with these pages, one after another; neighbours are read together. */
export function readScattered(source: PageSource, pages: readonly number[], into: Uint8Array): void {
  const { pageSize } = source;
  if (source.readScattered !== undefined)
    return source.readScattered(pages, into.subarray(0, pages.length * pageSize));
  for (const { first, from, to } of runsOf(pages))
    source.readInto(first, into.subarray(from * pageSize, to * pageSize));
}

/** Neighbours in a list of pages: those from index `from` to `to` follow each other, beginning with page `first`. */
export interface Run {
  readonly first: PageNumber;
  readonly from: number;
  readonly to: number;
}

export function* runsOf(pages: readonly number[]): Generator<Run> {
  for (let from = 0, to = 0; from < pages.length; from = to) {
    const first = pages[from] as PageNumber;
    while (pages[to] === first + to - from) to++;
    yield { first, from, to };
  }
}

export interface CopyPagesOptions {
  /** True to share the blocks of the source's file (`PageSource.cloneTo`) instead of writing them. */
  readonly reflink?: boolean | undefined;
  /** The hash that the pages are compared by. */
  readonly hash?: HashAlgorithm | undefined;
  /** Called with each run of consecutive pages when its write begins; may throw to end the copy. */
  readonly onRun?: ((first: PageNumber, bytes: Uint8Array) => void) | undefined;
}

/** The blocks in which a page differs from its old version, as received: bit i of byte i/8 of `bitmap` is block i. */
export interface PageDelta {
  readonly bitmap: Uint8Array;
  readonly data: Uint8Array;
  /** The sender's number for the kind of page, from 1 to 255. */
  readonly group: number;
}

/** What a sink needs to know before it takes pages. */
export interface SinkTarget {
  readonly pageSize: PageSize;
  readonly pageCount: PageCount;
  /** Permission bits of the origin's file, for a new replica. */
  readonly fileMode: number;
  /** The owner of the origin's file, for a new replica; only if the origin is on this host. */
  readonly fileOwner?: FileOwner | undefined;
  /** Path of the origin on this host, if known. */
  readonly originPath?: string | undefined;
}

/**
 * Becomes a copy of a source, completely or not at all.
 *
 * Timeline: the caller compares with `old` → `begin` at the first difference → `write` for pages in any order →
 * `commit`. Until `commit` returns, every reader of the sink sees its old state. After `abort` or a kill the old state
 * is unchanged. A sink has an optional member only if its kind needs it.
 */
export interface PageSink {
  /** The state to compare with; undefined for a new replica. */
  readonly old: PageSource | undefined;
  /** The hashes of all pages of `old` under the seed of this copy, if they are known without reading the pages. */
  readonly oldHashes?: Uint8Array | undefined;
  /**
   * True if the sink keeps page 1 as it is. The caller then fetches page 1 even if it differs only in bytes that no
   * hash covers.
   */
  readonly keepsFirstPage?: boolean;
  /** True if the copy continues from the leftover of an interrupted run. */
  readonly resumed?: boolean;
  /** True if that leftover holds pages that differ from the database: then there is something to commit. */
  readonly holdsChanges?: boolean;
  /** The number of pages that the commit changes, if the sink knows of more than this copy found. */
  readonly pagesChanged?: number | undefined;
  /** What the user should know after the commit, one sentence each. */
  readonly warnings: readonly string[];
  /** False for a page that `write` takes whole at no loss, although `old` has it. By default every page is needed. */
  needsOld?(page: PageNumber): boolean;
  /**
   * Prepares what takes time, without taking a lock. Must come before `begin`, and may come long before. `knownPages`
   * is the number of pages known so far to differ.
   */
  prepare?(knownPages: number): Promise<void>;
  /**
   * Takes the right to change the sink. Returns 'moved' if a program other than sqlsync changed it since `old` was
   * opened: `old` is now the newer state, protected from further changes; compare again. Throws ReplicaMovedError if a
   * sync may have changed it: that state may be newer than this copy, so take a new snapshot.
   */
  begin?(): Promise<'ready' | 'moved'>;
  /**
   * Takes the new bytes of one page, and copies what it keeps of them; page 1 may come at any time. At most 1 MiB of
   * pages between two calls of `ready`. `delta` is there if `bytes` were made of the old version and these blocks.
   */
  write(page: PageNumber, bytes: Uint8Array, delta?: PageDelta): void;
  /**
   * Takes all pages of a source of this process, instead of `begin` and `write`, and compares what it then holds with
   * what the source gave. Only for a sink without `old`. Throws what `source` and `onRun` throw, and SqlsyncError
   * ROOT_MISMATCH.
   */
  copyFrom?(source: PageSource, options?: CopyPagesOptions): Promise<void>;
  /** Resolves when more pages may come. A sink may take pages faster than it can write them. */
  ready?(): Promise<void>;
  /** Resolves when `readNew` may be called. */
  written?(): Promise<void>;
  /** A page as it will be after the commit, for hash trees that do not keep every page's hash. */
  readNew(page: PageNumber): Uint8Array;
  /** Receives, before `commit`, the new hashes of all pages, to serve as `oldHashes` of the next copy. */
  takeHashes?(hashes: Uint8Array): void;
  /** Makes all changes durable and visible at once. */
  commit(): Promise<void>;
  /** Discards everything and releases all locks and files. Does nothing after `commit`. Never throws. */
  abort(): Promise<void>;
}
