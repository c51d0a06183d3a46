import type { FileOwner } from '../files/ownership.ts';
import type { PageCount, PageNumber, PageSize } from './page-types.ts';

/**
 * One unchanging state of a database, by its pages: a snapshot of a live one, the old state of a replica, a part
 * file. Contract: every read of a page gives the same bytes until `close`; the lock-byte page reads as zeros.
 */
export interface PageSource {
  readonly pageSize: PageSize;
  readonly pageCount: PageCount;
  /** The `pageSize` bytes of a page; the caller may keep and change them. Throws where the page cannot be read. */
  readPage(page: PageNumber): Uint8Array;
  /**
   * The bytes of `count` consecutive pages, together at most `RUN_BYTES` unless it is one page; valid until the next
   * read of this source, and not to be changed.
   */
  readPages(first: PageNumber, count: number): Uint8Array;
  /** Fills `into` with consecutive pages. */
  readInto(first: PageNumber, into: Uint8Array): void;
  /** The same for any pages, ascending, where that takes less time than one by one. */
  readScattered?(pages: readonly number[], into: Uint8Array): void;
  /** Is told which pages, ascending, will likely be read next: what can be done for them in other threads begins. */
  readAhead?(pages: readonly number[]): void;
  close(): void;
}

/** Fills `into` with these pages, one after another; neighbours are read at once. */
export function readScattered(source: PageSource, pages: readonly number[], into: Uint8Array): void {
  const { pageSize } = source;
  if (source.readScattered !== undefined)
    return source.readScattered(pages, into.subarray(0, pages.length * pageSize));
  for (let from = 0; from < pages.length;) {
    const first = pages[from] as PageNumber;
    let to = from + 1;
    while (pages[to] === first + to - from) to++;
    source.readInto(first, into.subarray(from * pageSize, to * pageSize));
    from = to;
  }
}

/** `readPages` for a source that only reads single pages. */
export function readOneByOne(source: PageSource, first: PageNumber, count: number): Uint8Array {
  const run = new Uint8Array(count * source.pageSize);
  for (let i = 0; i < count; i++) run.set(source.readPage((first + i) as PageNumber), i * source.pageSize);
  return run;
}

/** The blocks in which a page differs from its old version, as they came: bit i of byte i/8 of `bitmap` is block i. */
export interface PageDelta {
  readonly bitmap: Uint8Array;
  readonly data: Uint8Array;
  /** What the sender says of the kind of page, from 1 to 255. */
  readonly group: number;
}

/** What a sink needs to know before it takes pages. */
export interface SinkTarget {
  readonly pageSize: PageSize;
  readonly pageCount: PageCount;
  /** Permission bits of the origin's file, for a replica that is to be created. */
  readonly fileMode: number;
  /** Whom the origin's file belongs to, where it is of this host, for a replica that is to be created. */
  readonly fileOwner?: FileOwner | undefined;
  /** Path of the origin on this host, where that is known. */
  readonly originPath?: string | undefined;
}

/**
 * Something that becomes a copy of a source, wholly or not at all.
 *
 * Timeline: `old` is compared → `begin` at the first difference → `write` for pages in any order → `commit`.
 * Until `commit` returns, every reader of the sink sees its old state; after `abort` (or a kill) it is as it was.
 */
export interface PageSink {
  /** The state to compare with; undefined where there is none (a new replica). */
  readonly old: PageSource | undefined;
  /** The hashes of all pages of `old` under the seed of this copy, where they are known without reading them. */
  readonly oldHashes?: Uint8Array | undefined;
  /** True where page 1 is kept as it is: it is then fetched even if it differs only in bytes that no hash covers. */
  readonly keepsFirstPage?: boolean;
  /** True where the copy goes on from the leftover of an interrupted run. */
  readonly resumed: boolean;
  /** True where that leftover holds what the old state of the database does not: then there is something to commit. */
  readonly holdsChanges: boolean;
  /** Pages that the commit changes, where the sink knows of more than this copy found to differ. */
  readonly pagesChanged?: number | undefined;
  /** What the user should know after the commit, each a sentence. */
  readonly warnings: readonly string[];
  /**
   * Has to come before `begin`, and may come long before: gets ready what takes time, without taking any right.
   * `knownPages` are those known so far to differ.
   */
  prepare(knownPages: number): Promise<void>;
  /**
   * Takes the right to change the sink. 'moved': a program that is no sync changed it since `old` was opened, and `old`
   * now is the newer state, protected from further changes: compare again. Throws ReplicaMovedError where a sync may
   * have changed it: that may be newer than this copy, and a new snapshot is to be taken.
   */
  begin(): Promise<'ready' | 'moved'>;
  /**
   * Takes the new bytes of one page, and copies what it keeps of them; page 1 may come at any time. At most 1 MiB of
   * pages between two calls of `ready`. With `delta` where `bytes` were made of the old version and these blocks.
   */
  write(page: PageNumber, bytes: Uint8Array, delta?: PageDelta): void;
  /** Resolves when more pages may come; a sink may take them faster than it can write them. */
  ready(): Promise<void>;
  /** Resolves when `readNew` may be called. */
  written(): Promise<void>;
  /** A page as it will be after the commit; for hash trees that do not keep every page's hash. */
  readNew(page: PageNumber): Uint8Array;
  /** Is told, before `commit`, the hashes of all pages as they will be: for `oldHashes` of the next copy. */
  takeHashes?(hashes: Uint8Array): void;
  /** Makes all of it durable and visible at once. */
  commit(): Promise<void>;
  /** Gives everything up and releases all locks and files. Does nothing after `commit`. Never throws. */
  abort(): Promise<void>;
}
