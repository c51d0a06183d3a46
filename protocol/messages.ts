import { MAX_BODY_BYTES, MAX_SMALL_BODY_BYTES } from './limits.ts';

/**
 * The wire types of a field. All integers are little-endian. `u64` is limited to 2^53-1. `text` is UTF-8, `bytes` raw,
 * both behind a u32 length. `varints` is a u32 count and that many LEB128 numbers below 2^53. `texts` is a u32 count
 * and that many texts.
 */
export type FieldType = 'u8' | 'u16' | 'u32' | 'u64' | 'bool' | 'text' | 'bytes' | 'varints' | 'texts';

export interface MessageDefinition {
  readonly code: number;
  /** Which limit holds for the body: {@link maxBodyBytes}. */
  readonly size: 'small' | 'large';
  readonly fields: Readonly<Record<string, FieldType>>;
}

/**
 * Every message of protocol version 2. SPEC.md describes them in the same tables, and tests hold the two together:
 * a change here without a new version fails.
 */
export const MESSAGES = {
  /** The first message in either direction: the versions that the sender speaks. */
  hello: {
    code: 1,
    size: 'small',
    fields: { minVersion: 'u16', maxVersion: 'u16', program: 'text' },
  },
  /** near → far: be the replica agent for `path`, and drive; the near side is the origin agent. */
  replicate: {
    code: 2,
    size: 'small',
    fields: {
      path: 'text',
      /** The origin as the user named it; goes into the mark. */
      originName: 'text',
      hash: 'u8',
      compression: 'u8',
      dryRun: 'bool',
      overwrite: 'bool',
      replace: 'bool',
      followLinks: 'bool',
      /** Let SQLite check the replica before `done`. */
      check: 'bool',
      /** Compare all pages, even if both sides are as the last comparison left them. */
      full: 'bool',
      /** How long a comparison of all pages counts; 0 means that this run makes one. */
      fullEveryMs: 'u32',
      /** The origin is a snapshot of a backup store. */
      restore: 'bool',
      reader: 'u8',
      busyTimeoutMs: 'u32',
      idleTimeoutMs: 'u32',
      maxTimeMs: 'u32',
      /** Pages wait beside the replica until all have arrived, even if they are few. */
      stage: 'bool',
      maxSnapshotMs: 'u32',
      maxWalGrowthBytes: 'u64',
      /** The part of the replica's pages that the origin may have lost; NO_SHRINK_LIMIT if the user set no limit. */
      maxShrinkPercent: 'u8',
      /** As in `open`. */
      lookEveryMs: 'u32',
      /** Make the folders that lead to the replica. */
      makeFolders: 'bool',
    },
  },
  /** replica → origin: begin a snapshot. An origin agent with a database of its own ignores `path`. */
  open: {
    code: 3,
    size: 'small',
    fields: {
      path: 'text',
      /** 16 secret random bytes: the key of every hash of this snapshot. */
      key: 'bytes',
      hash: 'u8',
      compression: 'u8',
      /** Host name and absolute path of the replica, to notice swapped arguments and one file on both sides. */
      replicaHost: 'text',
      replicaPath: 'text',
      replicaFileId: 'text',
      /** The user confirmed that the replica may lose its content, so a restore from a replica is intended. */
      overwrite: 'bool',
      /** The stamp of the state that the replica is known to be a copy of; 0 bytes if no such state is known. */
      knownStamp: 'bytes',
      reader: 'u8',
      busyTimeoutMs: 'u32',
      idleTimeoutMs: 'u32',
      maxTimeMs: 'u32',
      /** Age of the snapshot, and growth of the origin's WAL, that end the round; 0 means no limit. */
      maxSnapshotMs: 'u32',
      maxWalGrowthBytes: 'u64',
      /** How often to look whether the origin has changed since its last snapshot; 0 means no wait for a change. */
      lookEveryMs: 'u32',
    },
  },
  /** origin → replica: the snapshot that the agent holds from now on. */
  snapshot: {
    code: 4,
    size: 'small',
    fields: {
      pageSize: 'u32',
      pageCount: 'u32',
      hashBytes: 'u8',
      /** Permission bits of the origin's file. */
      fileMode: 'u32',
      wal: 'bool',
      originHost: 'text',
      originPath: 'text',
      /** The origin is itself a copy of this replica: a restore, which leaves no mark. */
      restoring: 'bool',
      /** Another snapshot of this database with the same stamp has the same content; 0 bytes if nothing proves that. */
      stamp: 'bytes',
      /** What the user should know before the copying starts. */
      warnings: 'texts',
      /** Details for users who ask for them. */
      notes: 'texts',
    },
  },
  /** replica → origin: node hashes `first` … of `level`; `count` 0 means all of them, level 255 the top level. */
  getHashes: {
    code: 5,
    size: 'small',
    fields: { id: 'u32', level: 'u8', first: 'u32', count: 'u32' },
  },
  /**
   * replica → origin: the hashes (their first `CHILD_HASH_BYTES` each) of all children, at `level`, of the listed nodes
   * (gaps, ascending) of `level + 1`.
   */
  getChildren: {
    code: 6,
    size: 'small',
    fields: { id: 'u32', level: 'u8', parents: 'varints' },
  },
  /** origin → replica: consecutive hashes of the answer to request `id`, from its `first`-th on. */
  hashes: {
    code: 7,
    size: 'large',
    fields: { id: 'u32', first: 'u32', data: 'bytes' },
  },
  /** replica → origin: pages wanted, ascending, each (gap × 2 + has block hashes); then the block hashes. */
  getPages: {
    code: 8,
    size: 'large',
    fields: { id: 'u32', pages: 'varints', blockHashes: 'bytes' },
  },
  /** origin → replica: the pages of request `id` in its order, as a batch (SPEC.md, "Page batch"). */
  pages: {
    code: 9,
    size: 'large',
    fields: { id: 'u32', encoding: 'u8', rawBytes: 'u32', data: 'bytes' },
  },
  /** replica → origin: the root hash of the snapshot. */
  getRoot: { code: 10, size: 'small', fields: {} },
  /** origin → replica */
  root: {
    code: 11,
    size: 'small',
    fields: { hash: 'bytes', snapshotHeldMs: 'u32', walGrowthBytes: 'u64' },
  },
  /** replica → origin: which tables and indexes own these pages (gaps, ascending)? For `verify`. */
  getOwners: { code: 12, size: 'large', fields: { id: 'u32', pages: 'varints' } },
  /** origin → replica: `counts[i]` of the pages belong to `names[i]`. */
  owners: { code: 13, size: 'large', fields: { id: 'u32', names: 'texts', counts: 'varints' } },
  /** replica → origin: this database is finished; after a commit, the confirmation of it. */
  done: {
    code: 14,
    size: 'large',
    fields: {
      outcome: 'u8',
      pageSize: 'u32',
      pageCount: 'u32',
      pagesCompared: 'u32',
      pagesChanged: 'u32',
      pagesTransferred: 'u32',
      pagesDelta: 'u32',
      created: 'bool',
      resumed: 'bool',
      /** Nothing was compared: both sides have the stamps of an earlier comparison. */
      quick: 'bool',
      warnings: 'texts',
      /** What `integrity_check` found wrong with the replica, if the check was requested. */
      findings: 'texts',
    },
  },
  /** replica → origin: the progress, for the near side's display. */
  progress: {
    code: 15,
    size: 'small',
    fields: {
      phase: 'u8',
      pageSize: 'u32',
      pageCount: 'u32',
      pagesCompared: 'u32',
      pagesWanted: 'u32',
      pagesReceived: 'u32',
    },
  },
  /** either → either: the conversation ends here; nothing is committed unless `done` was sent before. */
  error: {
    code: 16,
    size: 'small',
    fields: { errorCode: 'text', message: 'text', hint: 'text' },
  },
  /** near → far: nothing more will come. Only this message ends a stream well. */
  close: { code: 17, size: 'small', fields: {} },
  /** replica → origin: every page has arrived and was checked; the snapshot is not needed any more. */
  release: { code: 18, size: 'small', fields: {} },
  /** either → either: a sign of life from a side that has nothing else to send; `busy`: it may be silent for longer. */
  alive: { code: 19, size: 'small', fields: { busy: 'bool' } },
  /** origin → replica: the snapshot reached its limit and was released; open questions get no answer. */
  roundOver: {
    code: 20,
    size: 'small',
    fields: { snapshotHeldMs: 'u32', walGrowthBytes: 'u64' },
  },
  /** replica → origin: answer `open` now, even if nothing has changed. */
  wake: { code: 21, size: 'small', fields: {} },
  /** near → far: look at the database at `path`, for `sqlsync doctor`. */
  examine: {
    code: 22,
    size: 'small',
    fields: {
      path: 'text',
      /** Read the whole database, too. */
      full: 'bool',
      /** How often to look at the locks; 0 is the far side's choice. */
      looks: 'u8',
      idleTimeoutMs: 'u32',
      maxTimeMs: 'u32',
    },
  },
  /** far → near: what was found, as JSON in UTF-8. */
  examined: { code: 23, size: 'large', fields: { facts: 'bytes' } },
  /** near → far: which databases are in the folder at `path`? */
  list: {
    code: 24,
    size: 'large',
    fields: {
      path: 'text',
      /** Patterns, as of rsync; those that include come first. */
      include: 'texts',
      exclude: 'texts',
      /** Look at each database, too. */
      stamps: 'bool',
      idleTimeoutMs: 'u32',
      maxTimeMs: 'u32',
    },
  },
  /** far → near: a part of the answer to `list`. */
  listed: {
    code: 25,
    size: 'large',
    fields: {
      databases: 'texts',
      /** If asked for, the stamp of each database; zeros for one without a stamp. */
      stamps: 'bytes',
      omitted: 'texts',
      isLast: 'bool',
    },
  },
  /** near → far: which of these replicas are known as exact copies of the origins with these stamps? */
  recognize: {
    code: 26,
    size: 'large',
    fields: {
      /** The folder of the replicas. */
      path: 'text',
      /** The folder of the origins, as in `replicate`. */
      originName: 'text',
      /** Places of databases in both folders. */
      databases: 'texts',
      stamps: 'bytes',
      hash: 'u8',
      fullEveryMs: 'u32',
      idleTimeoutMs: 'u32',
      maxTimeMs: 'u32',
    },
  },
  /** far → near: the answer; `known` as gaps. */
  recognized: { code: 27, size: 'large', fields: { known: 'varints', warnings: 'texts' } },
  /** near → far: serve the files of the backup store at `path`, until `close`. */
  openStore: {
    code: 28,
    size: 'small',
    fields: { path: 'text', idleTimeoutMs: 'u32', maxTimeMs: 'u32' },
  },
  /** far → near: the answer; `isThere`: the store has a config. */
  storeOpened: { code: 29, size: 'small', fields: { isThere: 'bool', nowMs: 'u64' } },
  /** near → far: a range of a file, or what the file has of it. */
  getFile: { code: 30, size: 'small', fields: { id: 'u32', name: 'text', offset: 'u64', length: 'u64' } },
  /** either → either: the next bytes of a file, which answer `getFile` or follow `putFile`. */
  filePart: { code: 31, size: 'large', fields: { id: 'u32', isLast: 'bool', data: 'bytes' } },
  /** near → far: put the file whose bytes follow; `replace`: in the place of `config`. */
  putFile: { code: 32, size: 'small', fields: { id: 'u32', name: 'text', replace: 'bool' } },
  deleteFile: { code: 33, size: 'small', fields: { id: 'u32', name: 'text' } },
  /** near → far: remove what interrupted puts left behind that long ago. */
  removeLeftovers: { code: 34, size: 'small', fields: { id: 'u32', olderThanMs: 'u64' } },
  /** far → near: request `id` is done; `created`: the file that was put did not exist. */
  fileDone: { code: 35, size: 'small', fields: { id: 'u32', created: 'bool' } },
  /** near → far: the SHA-256 of a file. */
  digestFile: { code: 36, size: 'small', fields: { id: 'u32', name: 'text' } },
  fileDigest: { code: 37, size: 'small', fields: { id: 'u32', hash: 'bytes', bytes: 'u64' } },
  /** near → far: the files in a folder of the store. */
  listFiles: { code: 38, size: 'small', fields: { id: 'u32', folder: 'text' } },
  /** far → near: a part of the answer. */
  filesListed: {
    code: 39,
    size: 'large',
    fields: {
      id: 'u32',
      names: 'texts',
      /** Of each file: its bytes, and when it was put, in milliseconds since 1970. */
      sizes: 'varints',
      timesMs: 'varints',
      nowMs: 'u64',
      isLast: 'bool',
    },
  },
  /** far → near: request `id` had no effect. */
  fileFailed: {
    code: 40,
    size: 'small',
    fields: {
      id: 'u32',
      /** There is no such file. */
      isMissing: 'bool',
      message: 'text',
      /** The code of the system's error, such as ENOSPC; empty if there is none. */
      systemCode: 'text',
      hint: 'text',
    },
  },
} as const;

/** The largest body of a message of this definition, in bytes. */
export function maxBodyBytes(definition: MessageDefinition): number {
  return definition.size === 'small' ? MAX_SMALL_BODY_BYTES : MAX_BODY_BYTES;
}

export type MessageName = keyof typeof MESSAGES;

interface FieldValues {
  u8: number;
  u16: number;
  u32: number;
  u64: number;
  bool: boolean;
  text: string;
  bytes: Uint8Array;
  varints: readonly number[];
  texts: readonly string[];
}

type Fields<F> = { -readonly [K in keyof F]: F[K] extends FieldType ? FieldValues[F[K]] : never };

/** One message by its name, as `MessageOf<'hello'>`. */
export type MessageOf<N extends MessageName> = { type: N } & Fields<(typeof MESSAGES)[N]['fields']>;

export type Message = { [N in MessageName]: MessageOf<N> }[MessageName];

/** Values of `hash` in `open` and `replicate`. */
export const HASH_ALGORITHMS = { xxh64: 1, sha256: 2, 'nh-siphash': 3 } as const;
export type HashAlgorithm = keyof typeof HASH_ALGORITHMS;

/** The algorithm that is used unless the user chooses another. */
export const DEFAULT_HASH: HashAlgorithm = 'nh-siphash';

/** Values of `compression` in `open` and `replicate`: what the origin may do to page batches. */
export const COMPRESSION_MODES = { none: 0, auto: 1, zstd: 2 } as const;
export type CompressionMode = keyof typeof COMPRESSION_MODES;

/** Values of `reader` in `open` and `replicate`: how an agent reads its database. */
export const READERS = { file: 0, dbpage: 1 } as const;
export type Reader = keyof typeof READERS;

/** Value of `maxShrinkPercent` in `replicate`: the replica agent warns of a great loss, but refuses none. */
export const NO_SHRINK_LIMIT = 255;
export const MAX_SHRINK_PERCENT = 100;

/** Values of `encoding` in `pages`. */
export const BATCH_ENCODINGS = { raw: 0, zstd: 1 } as const;

/** Values of `outcome` in `done`. */
export const OUTCOMES = { unchanged: 0, committed: 1, dryRun: 2 } as const;
export type Outcome = keyof typeof OUTCOMES;

/** Values of `phase` in `progress`. */
export const PHASES = { compare: 1, transfer: 2, commit: 3 } as const;
export type Phase = keyof typeof PHASES;

/** The level in `getHashes` that stands for `topLevel(pageCount)`. */
export const LEVEL_TOP = 255;

/** The name of `value` in one of the tables above, or undefined. */
export function nameOf<T extends Readonly<Record<string, number>>>(
  table: T,
  value: number,
): keyof T | undefined {
  return Object.keys(table).find((name) => table[name] === value);
}
