/**
 * What a look at a database found, without any judgement. Plain data, so that it can come from another host, from a
 * file, or from a test.
 */

/** The names of SQLite's locks; see src/sqlite/locks/sqlite-locks.ts. */
export type LockName =
  | 'SHARED'
  | 'RESERVED'
  | 'PENDING'
  | 'EXCLUSIVE'
  | 'WRITE'
  | 'CKPT'
  | 'RECOVER'
  | 'READ0'
  | 'READ1'
  | 'READ2'
  | 'READ3'
  | 'READ4'
  | 'ATTACHED';

export interface LockFacts {
  readonly pid: number;
  readonly name: LockName;
  /** True if no other process can hold the lock meanwhile. */
  readonly isExclusive: boolean;
  /**
   * True if each look showed it, as one hold: no commit came meanwhile for a lock of a writer, and the read mark stayed
   * the same for a lock of a reader.
   */
  readonly isHeldThroughout: boolean;
}

/** A process that has the database open, or holds a lock on it. */
export interface ProcessFacts {
  readonly pid: number;
  /** Its command line; missing if it was withheld or the process is gone. */
  readonly command?: string;
  /** Name and number of its user; missing if withheld. */
  readonly user?: string;
  /** The id of its container; missing for a process that runs where this one runs. */
  readonly container?: string;
  /** When it started, in milliseconds since 1970. */
  readonly startedAtMs?: number;
  /** The kernel's letter for what it does: T is stopped. */
  readonly state?: string;
  /** False if this user may not see which files it has open. */
  readonly isVisible: boolean;
  /** The path by which it opened the file, if that is another name of the file. */
  readonly otherName?: string;
  /** True if its -wal or -shm is another file than the one that lies beside the path. */
  readonly hasOtherWal: boolean;
  /** True if it holds a file that was deleted or replaced under the path. */
  readonly hasDeletedFile: boolean;
  /** True if it has the database itself mapped into its memory (PRAGMA mmap_size). */
  readonly isMapped: boolean;
  /** Files of SQLite libraries in its memory. A SQLite that is linked into its program does not show. */
  readonly libraries: readonly string[];
  /** True if a thread slept in short naps all the time, as SQLite's busy handler does while it waits for a lock. */
  readonly isNapping: boolean;
}

export interface FileFacts {
  readonly bytes: number;
  readonly uid: number;
  readonly user: string;
  /** The permission bits. */
  readonly mode: number;
  /** False for a FIFO, a device or a folder. */
  readonly isRegular: boolean;
}

export interface DatabaseFacts extends FileFacts {
  readonly hardLinks: number;
  /** True if the file is mounted by itself, as containers do, so that its -wal lies in another folder. */
  readonly isMountedAlone: boolean;
  /** The type of the file system; missing if the system does not report it. */
  readonly fileSystem?: string;
  readonly isNetwork: boolean;
  /** Bytes of a block of the file system. */
  readonly blockBytes: number;
  /** True if its first bytes look as chance makes them, as those of an encrypted database do. */
  readonly looksRandom: boolean;
}

/** The fields of the header of page 1 in the file; the WAL may have newer ones. Missing if the file has no header. */
export interface HeaderFacts {
  readonly pageSize: number;
  /** Missing if the header's count does not hold. */
  readonly pageCount?: number;
  readonly isWal: boolean;
  readonly autoVacuum: 'none' | 'full' | 'incremental';
  readonly freePages: number;
  /** A count that grows with each commit in rollback mode. */
  readonly changes: number;
  /** The version number of the SQLite that wrote last, such as 3054001. */
  readonly sqliteVersion: number;
}

/** The WAL, by its files. */
export interface WalFacts {
  /** The -wal; missing if there is none. */
  readonly file?: FileFacts;
  /** The -shm; missing if there is none. */
  readonly index?: FileFacts;
  /** True if a process is seen to have the index open. Otherwise it is a leftover, and its numbers mean nothing. */
  readonly isInUse: boolean;
  /** True if the -wal begins with a frame that SQLite would apply; it ignores any other one. */
  readonly hasFrames: boolean;
  /** What the wal-index says; missing without a valid one that is in use. */
  readonly state?: WalState;
}

export interface WalState {
  /** Frames that count: commits since the WAL was last restarted. */
  readonly frames: number;
  /** Frames that checkpoints have copied into the database. */
  readonly checkpointed: number;
  /** For each of the five read marks, up to which frame its readers read; null for a mark that is not in use. */
  readonly readMarks: readonly (number | null)[];
  /** A count that grows by one with each commit, and begins at 0 with each new index. */
  readonly commits: number;
  /** Differs from that of another -shm. */
  readonly index: string;
  readonly pageCount: number;
  /** Frames and commits that came between the first look and the last. */
  readonly newFrames: number;
  readonly newCommits: number;
}

export interface JournalFacts extends FileFacts {
  /** True if it has the header of a transaction that is under way, or was killed. */
  readonly isUnfinished: boolean;
  /** True if it is unfinished, and no process is seen to have the lock of a writer: then the writer was killed. */
  readonly isHot: boolean;
}

export interface HealthFacts {
  /** What is wrong, one sentence each. */
  readonly problems: readonly string[];
  /** Why the list of free pages was not followed; missing if it was. */
  readonly unchecked?: string;
}

/** The part of a table or an index in the file. */
export interface SizeFacts {
  readonly name: string;
  /** The table of an index; a table's own name. */
  readonly table: string;
  readonly pages: number;
  readonly bytes: number;
  /** Bytes in these pages that hold nothing. */
  readonly unusedBytes: number;
}

/** What `--full` found. */
export interface FullFacts {
  /** What integrity_check found wrong, one sentence each. */
  readonly faults: readonly string[];
  /** What was not checked, and why, one sentence each. */
  readonly unchecked: readonly string[];
  /** Rows whose foreign keys lead nowhere, by table and the table that they refer to. */
  readonly brokenReferences: readonly {
    readonly table: string;
    readonly parent: string;
    readonly rows: number;
  }[];
  /** The largest first. */
  readonly sizes: readonly SizeFacts[];
  /** About how many bytes the file would lose by VACUUM. */
  readonly vacuumBytes: number;
}

/** A read or write of a pool. */
export interface PoolWork {
  readonly label: string;
  /** How long it has held or waited, in milliseconds. */
  readonly forMs: number;
}

/** What a process says of its pools on the database. */
export interface PoolFacts {
  readonly pid: number;
  /** Missing while none of its writes has SQLite's lock. */
  readonly writer?: PoolWork;
  readonly waitingCount: number;
  /** The first of the writes that wait; `readers` likewise. */
  readonly waiting: readonly PoolWork[];
  readonly readers: readonly PoolWork[];
}

/**
 * Whose locks were seen: those of all processes; of some, because processes of other namespaces or machines may use the
 * file; or of none, because only files were looked at.
 */
export type Sight = 'all' | 'some' | 'files';

export interface Facts {
  /** Absolute, with its links resolved. */
  readonly path: string;
  /** The host of the database. */
  readonly host: string;
  readonly database: DatabaseFacts;
  readonly header?: HeaderFacts;
  readonly wal: WalFacts;
  readonly journal?: JournalFacts;
  readonly processes: readonly ProcessFacts[];
  readonly locks: readonly LockFacts[];
  /** Processes that use the pools of sqlsync, and that answered. */
  readonly pools: readonly PoolFacts[];
  /** How long the looks took together, in milliseconds. */
  readonly lookedForMs: number;
  /** The processor time that all this took, in milliseconds. */
  readonly busyMs?: number;
  /** Unless it is `all`, a lock or process that was not seen may exist all the same. */
  readonly sight: Sight;
  readonly health: HealthFacts;
  readonly full?: FullFacts;
  /** What could not be seen, and why, one sentence each. */
  readonly unseen: readonly string[];
}
