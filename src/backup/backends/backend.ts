/** A part of a file. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

export interface StoredFile {
  /** Name within the folder. */
  readonly name: string;
  readonly bytes: number;
  /** When the file was put, by the clock of its place; an invalid Date if the place does not tell. */
  readonly modified: Date;
}

/** The folders of a store; only `config` lies beside them. */
export const STORE_FOLDERS = [
  'packs',
  'indexes',
  'snapshots',
  'steps',
  'marks',
  'forgotten',
  'keys',
] as const;
export type StoreFolder = (typeof STORE_FOLDERS)[number];

/** A folder beside a store that is no part of it. */
export const CACHE_FOLDER = 'cache';

/** Prefix of the name of an unfinished file. */
export const TEMPORARY_PREFIX = '.tmp-';

/**
 * Where the files of a store lie. Names are `config` or `FOLDER/NAME`, where NAME is of `[0-9a-f-]`.
 *
 * The contract is so narrow that SFTP (exclusive create and rename) and S3 (`If-None-Match: *`) can keep it:
 * - a file never changes, except `config` by a repair; it appears whole, and is durable when `put` resolves;
 * - of two simultaneous `put` of `config`, exactly one returns 'created'; a place that cannot do that says so in
 *   `shortcomings`;
 * - every `get` and `list` that begins after a `put`, in any process, sees its file;
 * - every operation may be repeated after a failure that leaves open whether it took effect;
 * - many operations may run at once; a backend itself limits how many it sends;
 * - a backend keeps no bytes after an operation: a caller's memory is what it puts or gets at once.
 *
 * All methods throw SqlsyncError: STORE_FILE_MISSING only if the place answers that it has no such file,
 * STORE_UNAVAILABLE for all else. Then the `code` of the error's cause says why, as the system's errors do: ENOSPC or
 * EDQUOT if the place is full.
 */
export interface Backend {
  /** The folder or address, for messages. */
  readonly description: string;
  /** How many operations at once are faster than one; 1 if missing. The caller bounds the bytes in memory. */
  readonly parallel?: number;
  /** What the place does not keep of this contract, as far as known, as sentences for the user. */
  readonly shortcomings?: readonly string[];
  /**
   * The time by the clock that `list` goes by, in ms since 1970, up to 2 s behind it and never ahead. Missing if that is
   * the clock of this host; undefined as long as the place has said nothing.
   */
  now?(): number | undefined;
  /** Finds out the time that `now` returns, for a place that does not tell it with every answer. */
  settleClock?(): Promise<void>;
  /**
   * Puts a file, the pieces one after another. Returns 'exists' if `config` exists, and leaves that file as it is. Any
   * other name belongs to its bytes, so that a backend may write it again, and return either.
   */
  put(name: string, pieces: readonly Uint8Array[]): Promise<'created' | 'exists'>;
  /** Replaces `config`, the only file whose bytes may change: at any moment the old or the new one exists. */
  replaceConfig(pieces: readonly Uint8Array[]): Promise<void>;
  /**
   * All of a file, or a range of it; fewer bytes if the file ends before. The caller owns the bytes, which share no
   * buffer with others.
   */
  get(name: string, range?: ByteRange): Promise<Uint8Array>;
  /**
   * The SHA-256 of a file, in hexadecimal, and its length in bytes, if the place computes it: then the bytes need not be
   * sent. It is the word of the place.
   */
  digest?(name: string): Promise<{ readonly hash: string; readonly bytes: number }>;
  /** The complete files of a folder, in any order; empty if the folder does not exist. */
  list(folder: StoreFolder): Promise<StoredFile[]>;
  /** Deletes a file durably. A missing file is no error. */
  delete(name: string): Promise<void>;
  /** Frees space that the store can do without, after the disk was found full. Returns true if it freed some. */
  makeRoom?(): Promise<boolean>;
  /** Removes what interrupted calls of `put` left behind, if the backend can leave any. */
  removeLeftovers?(olderThanMs: number): Promise<void>;
}

/**
 * What files on this host allow besides: pages are read in the middle of hashing, without giving up control. For a store
 * elsewhere another thread reads, while this one waits.
 */
export interface LocalFiles {
  /** As `get` of a backend, without giving up control. */
  getNow(name: string, range?: ByteRange): Uint8Array;
  /**
   * Begins to read what a later `getNow` will want. Returns true once that need not wait any more. Missing if nothing is
   * gained.
   *
   * @param fileBytes - the length of the file, if known: nothing beyond it is read ahead.
   */
  expect?(name: string, range: ByteRange, fileBytes?: number): boolean;
  /**
   * Begins to read a range for later calls of `getNow` within it. Nothing is read ahead of these: the caller plans all.
   * Missing if nothing is gained. The caller bounds the bytes to 24 MB that it has not got yet.
   */
  plan?(name: string, range: ByteRange): void;
  /** The path of a file, for reading in another thread; undefined if the files have none. */
  pathOf?(name: string): string;
}

/** A store whose files can be read at once, because they lie on this host or another thread reads them. */
export type LocalBackend = Backend & LocalFiles;

/** Runs `work` for each item, as many at once as the backend does well. Throws what `work` throws. */
export async function severalAtOnce<T>(
  { parallel = 1 }: Backend,
  items: readonly T[],
  work: (item: T) => Promise<unknown>,
): Promise<void> {
  for (let at = 0; at < items.length; at += parallel) {
    // Each ends before an error is thrown: none may still have its effect later.
    const outcomes = await Promise.allSettled(items.slice(at, at + parallel).map((item) => work(item)));
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  }
}

/** Deletes files, several at once. Throws SqlsyncError STORE_UNAVAILABLE; then some may be gone. */
export function deleteAll(backend: Backend, names: readonly string[]): Promise<void> {
  return severalAtOnce(backend, names, (name) => backend.delete(name));
}
