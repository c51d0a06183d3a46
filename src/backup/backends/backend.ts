/** A part of a file. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

export interface StoredFile {
  /** Name within the folder that was listed. */
  readonly name: string;
  readonly bytes: number;
  /** When it was put, by the clock of the place where it lies. */
  readonly modified: Date;
}

/** The folders of a store; `config` alone lies beside them. */
export const STORE_FOLDERS = ['packs', 'indexes', 'snapshots', 'marks', 'forgotten'] as const;
export type StoreFolder = (typeof STORE_FOLDERS)[number];

/** Folder within a store in a folder that is no part of it. */
export const CACHE_FOLDER = 'cache';

/** Begins the name of what is not finished yet. */
export const TEMPORARY_PREFIX = '.tmp-';

/**
 * Where the files of a store lie. Names are `config` or `FOLDER/NAME`, where NAME is of `[0-9a-f-]`.
 *
 * Contract, so narrow that SFTP (exclusive create and rename) and S3 (`If-None-Match: *`) can keep it:
 * - a file is never changed, but `config` by a repair; it appears whole, and is durable when `put` resolves;
 * - of two `put` under one name at once, exactly one is 'created';
 * - what was put is seen by every `get` and `list` that begins later, from any process;
 * - every operation may be repeated after a failure that leaves open whether it took effect.
 *
 * All throw SqlsyncError: STORE_FILE_MISSING where `get` finds no such file, STORE_UNAVAILABLE for the system's errors.
 */
export interface Backend {
  /** For people: the folder or address. */
  readonly description: string;
  /** Puts a file, the pieces one after another. 'exists' where there is one of that name, which then stays as it is. */
  put(name: string, pieces: readonly Uint8Array[]): Promise<'created' | 'exists'>;
  /**
   * Puts `config` in the place of what has that name, the one file of which the bytes may change: at any moment the one
   * or the other is there.
   */
  replaceConfig(pieces: readonly Uint8Array[]): Promise<void>;
  /**
   * All of a file, or a range of it; fewer bytes where the file ends before. They are the caller's own, and in no
   * buffer with others.
   */
  get(name: string, range?: ByteRange): Promise<Uint8Array>;
  /** The same without giving up control: pages are read in the middle of hashing. */
  getNow(name: string, range?: ByteRange): Uint8Array;
  /** The path of a file, for whoever reads in another thread, where it is one of this host. */
  pathOf?(name: string): string;
  /** What is in a folder whole, in any order; nothing where there is no such folder. */
  list(folder: StoreFolder): Promise<StoredFile[]>;
  /** Deletes a file, durably; one that is not there is no error. */
  delete(name: string): Promise<void>;
  /** Where no space is left: gives up what can be had again. True if there was such. */
  makeRoom?(): Promise<boolean>;
  /** Removes what interrupted calls of `put` left behind, where there can be such. */
  removeLeftovers?(olderThanMs: number): Promise<void>;
}
