/**
 * The store as its users see it: records, options and summaries. docs/store-format.md describes the bytes. A snapshot's
 * `id` is 64 hexadecimal digits; times are `Date`s; sizes are in bytes.
 */

import type { Password, PasswordSource } from './keys/password.ts';
import type { StoreKey } from './keys/store-keys.ts';

/** One snapshot of one database, from its record in the store. */
export interface StoreSnapshot {
  readonly id: string;
  /** When the read transaction on the origin began. */
  readonly time: Date;
  /** Host of the origin, or the name that the user gave instead. */
  readonly host: string;
  /** Absolute path of the origin on its host. */
  readonly path: string;
  readonly tags: readonly string[];
  readonly pageSize: number;
  readonly pageCount: number;
  /** Permission bits of the origin's file. */
  readonly fileMode: number;
  /** The owner of the origin's file, on the host named there; undefined if the backup was made from another host. */
  readonly fileOwner?: SnapshotOwner | undefined;
  /** Id of the root node; undefined for a database without pages. */
  readonly root: string | undefined;
  /** The snapshot that this one was compared with. */
  readonly parent: string | undefined;
  /**
   * One more than the highest of the snapshots that were in the store when it was made; older programs recorded none.
   */
  readonly generation?: number | undefined;
  /** The id of the snapshot that this one is a copy of, in another store; undefined if it is no copy. */
  readonly original?: string | undefined;
  /** When its record was put, by the clock of the place where the store lies; undefined until it was listed there. */
  readonly stored?: Date | undefined;
  /** Name and version of the program that wrote it. */
  readonly program: string;
  readonly statistics: SnapshotStatistics;
}

/** A user of one host. */
export interface SnapshotOwner {
  /** The host's own name, whatever host the snapshot names. */
  readonly host: string;
  readonly uid: number;
  readonly gid: number;
}

export interface SnapshotStatistics {
  /** Pages that differed from the parent's. */
  readonly pagesChanged: number;
  /** Objects that were not in the store yet. */
  readonly pagesAdded: number;
  readonly nodesAdded: number;
  /** Bytes of packs and indexes written. */
  readonly bytesAdded: number;
  /** Bytes that the origin's agent sent. */
  readonly bytesReceived: number;
  readonly durationMs: number;
}

/** A state of a database between two snapshots, as `sqlsync follow ORIGIN STORE` adds them. */
export interface StoreMoment {
  /** Id of the snapshot with which its stream begins. */
  readonly snapshot: string;
  readonly stream: string;
  /** From 1, in each stream. */
  readonly step: number;
  /** When the read transaction on the origin began. */
  readonly time: Date;
}

/** A progress report of a long operation. */
export interface StoreProgress {
  readonly phase: 'read' | 'write' | 'delete';
  /** How many items of the phase (pages, packs or snapshots) are done, and how many there are. */
  readonly done: number;
  readonly total: number;
}

export interface StoreCallOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: StoreProgress) => void) | undefined;
}

export interface CopyOptions extends StoreCallOptions {
  /** Ids of the snapshots to copy, or how they begin; by default all. */
  readonly ids?: readonly string[] | undefined;
  /** True to copy from an encrypted store to one that is not encrypted, which otherwise is an error. */
  readonly plain?: boolean | undefined;
  /** True to only report what would be copied. */
  readonly dryRun?: boolean | undefined;
  readonly onWarning?: ((warning: string) => void) | undefined;
}

export interface CopySummary {
  readonly dryRun: boolean;
  /** What was copied, oldest first, with the id of each copy; undefined with `dryRun`. */
  readonly copied: readonly { readonly from: StoreSnapshot; readonly to: string | undefined }[];
  /** Chosen snapshots that the other store has already. */
  readonly skipped: readonly StoreSnapshot[];
  /** Bytes of packs and indexes written. */
  readonly bytesAdded: number;
}

export interface ForgetSummary {
  /** Snapshots that were taken away; not those that were already gone. */
  readonly forgotten: readonly string[];
}

export interface PruneOptions extends StoreCallOptions {
  /** True to only report what would be done. */
  readonly dryRun?: boolean | undefined;
  /** The part of a pack, 0 to 1, that may be garbage before the pack is repacked; default 0.2. */
  readonly maxUnusedRatio?: number | undefined;
  /**
   * Age of a mark, in seconds, from which its packs are deleted; default: the store's grace period. Less is only safe
   * while no other program uses the store. With 0, packs that hold nothing needed are deleted without a mark.
   */
  readonly graceSeconds?: number | undefined;
}

export interface PruneSummary {
  readonly dryRun: boolean;
  readonly packsMarked: number;
  readonly bytesMarked: number;
  readonly packsRepacked: number;
  readonly packsDeleted: number;
  readonly bytesDeleted: number;
  /** Steps whose snapshot is gone, and that were deleted. */
  readonly stepsDeleted: number;
  /** Marked packs whose grace period is not over, and their bytes: a later prune deletes them. */
  readonly packsWaiting: number;
  readonly bytesWaiting: number;
  /**
   * True if not everything could be copied and marked, because the disk is full. Prune again: this prune may have freed
   * some space.
   */
  readonly outOfSpace: boolean;
}

export interface CheckOptions extends StoreCallOptions {
  /** True to read and check every object, not only the records and trees. */
  readonly readData?: boolean | undefined;
  /** Read only a part of the packs. */
  readonly readDataSubset?: DataSubset | undefined;
  /** True to read all of it on this host, also where the host of the store could read it. */
  readonly readHere?: boolean | undefined;
}

/** The n-th of m parts, which together are all packs; or packs chosen at random up to this size. */
export type DataSubset =
  { readonly n: number; readonly m: number } | { readonly percent: number } | { readonly bytes: number };

/** A fault of one file of a store. */
export interface CheckProblem {
  /** Name in the store, such as `packs/ID`. */
  readonly file: string;
  /** One sentence. */
  readonly message: string;
}

export interface CheckSummary {
  readonly problems: readonly CheckProblem[];
  /** Snapshots that cannot be restored, with the number of their lost pages. */
  readonly damaged: readonly { readonly snapshot: StoreSnapshot; readonly pagesLost: number }[];
  /** Snapshots that can be restored, judging by what was read. */
  readonly intact: readonly StoreSnapshot[];
  /**
   * How much was read of packs besides trees: 'all' proves that no byte of them changed. With 'there' the host of the
   * store read all, and says so.
   */
  readonly dataRead: 'none' | 'part' | 'there' | 'all';
  readonly packsRead: number;
  readonly bytesRead: number;
  /** All existing packs, and their bytes. */
  readonly packs: number;
  readonly packBytes: number;
}

/** What a salvaged file lacks of its database. */
export interface SalvageReport {
  readonly pagesLost: number;
  /** The owners of the lost pages, the most affected first. */
  readonly objects: readonly SalvagedObject[];
  /** Tables and indexes without a lost page. */
  readonly objectsWhole: number;
  /**
   * The snapshot that page 1, which begins the schema, was taken from; undefined if page 1 was not lost, or none has
   * it.
   */
  readonly schemaOf: string | undefined;
  /** True if page 1 is lost and no other snapshot has it: then no table has a name. */
  readonly isSchemaLost: boolean;
  /** False if the schema may have differed from that of `schemaOf`. */
  readonly isSchemaCertain: boolean;
}

export interface SalvagedObject {
  /**
   * Name of a table or index; 'sqlite_schema', '(free)' for pages without content, '(unknown)' for pages below other
   * lost pages.
   */
  readonly name: string;
  readonly type: 'table' | 'index' | 'schema' | 'free' | 'unknown';
  /** The table that it belongs to. */
  readonly table: string | undefined;
  readonly pagesLost: number;
  /** True for an index that was rebuilt from its table, so that nothing of it is lost. */
  readonly isRebuilt: boolean;
}

export interface RepairOptions extends StoreCallOptions {
  /** True to only report what would be done. New files go to a temporary folder meanwhile. */
  readonly dryRun?: boolean | undefined;
  /**
   * True to read all packs, and give up those whose bytes have changed. By default a repair only gives up packs that
   * are missing or have the wrong length.
   */
  readonly readData?: boolean | undefined;
  /** True to forget the snapshots that cannot be restored completely. */
  readonly forget?: boolean | undefined;
}

/** A snapshot that cannot be restored completely. */
export interface LostSnapshot {
  readonly id: string;
  /** undefined if the record itself is lost. */
  readonly snapshot: StoreSnapshot | undefined;
  /** The number of lost pages; undefined if the record is lost. */
  readonly pagesLost: number | undefined;
}

export interface RepairSummary {
  readonly dryRun: boolean;
  /** True if the file `config` was written anew. */
  readonly configWritten: boolean;
  /** The grace period of the store, as `config` says it now. */
  readonly graceSeconds: number;
  /** Index files that could not be read, and were removed. */
  readonly indexesRemoved: number;
  /** Packs that no index named before. */
  readonly packsIndexed: number;
  /** Missing or damaged packs that no index names any more. */
  readonly packsGivenUp: number;
  /** Damaged packs that still exist, by id, until prune deletes them. */
  readonly packsDamaged: readonly string[];
  /** Objects that were written again because only damaged packs held them. */
  readonly objectsSaved: number;
  /** Marks that could not be read, and were removed. */
  readonly marksRemoved: number;
  /** Notes on forgotten snapshots that could not be read, and were rewritten; in an encrypted store, removed. */
  readonly notesWritten: number;
  /** Snapshots that still cannot be restored completely, or that are gone and were not forgotten. */
  readonly lost: readonly LostSnapshot[];
  /** Those of `lost` that were forgotten, by id. */
  readonly forgotten: readonly string[];
}

export interface StoreStats {
  readonly snapshots: number;
  readonly databases: number;
  /** The size of all snapshots, as if each were a file. */
  readonly rawBytes: number;
  /** The size of all different pages, whole. */
  readonly uniqueBytes: number;
  /** The size of all files of the store. */
  readonly storedBytes: number;
  readonly packs: number;
  readonly objects: number;
  /** `rawBytes` per stored byte. */
  readonly ratio: number;
}

export interface SnapshotDiff {
  /** Pages that differ or exist on one side only, as ascending ranges of first and last. */
  readonly differingPages: readonly (readonly [first: number, last: number])[];
  readonly pagesInA: number;
  readonly pagesInB: number;
  /** Tables and indexes with differing pages, largest first; '(free)' stands for pages that none of them owns. */
  readonly objects: readonly {
    readonly name: string;
    readonly pagesInA: number;
    readonly pagesInB: number;
  }[];
}

export interface SnapshotListeners {
  readonly onWarning?: ((warning: string) => void) | undefined;
  /** Called with the id of each snapshot whose record is damaged. */
  readonly onUnreadable?: ((id: string) => void) | undefined;
}

/** An open store. All methods throw SqlsyncError: STORE_* and INTERRUPTED. */
export interface Store {
  /** The folder or address, for messages. */
  readonly description: string;
  readonly id: string;
  readonly isEncrypted: boolean;
  /**
   * All snapshots in the order in which they were made, the oldest first. Leaves out damaged records, and reports them
   * to `onWarning`, and their ids to `onUnreadable`.
   */
  snapshots(options?: SnapshotListeners): Promise<StoreSnapshot[]>;
  /**
   * The one snapshot whose id begins with `prefix` (at least 4 digits); for `latest` the newest, if all are of one
   * database.
   */
  find(prefix: string): Promise<StoreSnapshot>;
  /**
   * The newest state of its database that `sqlsync follow` has added after this snapshot, until a time in ms since 1970;
   * undefined if there is none.
   */
  momentAfter(snapshot: StoreSnapshot, untilMs?: number): Promise<StoreMoment | undefined>;
  /**
   * The ids of the snapshots that begin a state which `sqlsync follow` has added, newer than the newest snapshot of the
   * same database: with the snapshot that state is lost. For `planForget`.
   */
  newestFollowed(): Promise<ReadonlySet<string>>;
  /** Takes snapshots away, including those that cannot be read. Their pages stay until `prune`. */
  forget(ids: readonly string[]): Promise<ForgetSummary>;
  prune(options?: PruneOptions): Promise<PruneSummary>;
  check(options?: CheckOptions): Promise<CheckSummary>;
  /** Makes a damaged store one that backups and prune accept again. Must not run beside a prune. */
  repair(options?: RepairOptions): Promise<RepairSummary>;
  stats(options?: StoreCallOptions): Promise<StoreStats>;
  /**
   * The keys of an encrypted store, the oldest first: each opens with a password of its own. Leaves out damaged key
   * files, and reports them to `onWarning`. This and the next three throw USAGE for a store that is not encrypted.
   */
  keys(options?: Pick<SnapshotListeners, 'onWarning'>): Promise<StoreKey[]>;
  /** Adds a key for another password; returns its id. */
  addKey(password: PasswordSource | Password): Promise<string>;
  /**
   * Removes the key whose id begins so, but not that of the password that opened the store; returns its id. The master
   * key stays the same: who read it before can still read all that the store gets. A copy into a new store cannot be
   * read with it.
   */
  removeKey(prefix: string): Promise<string>;
  /** Gives the key that opened the store another password; returns its new id. The master key stays the same. */
  changePassword(password: PasswordSource | Password): Promise<string>;
  /** Copies snapshots, and what the other store lacks of their pages. */
  copyTo(other: Store, options?: CopyOptions): Promise<CopySummary>;
  /** What differs between two snapshots; with `owners` by table and index, which takes a temporary copy of both. */
  diff(
    a: StoreSnapshot,
    b: StoreSnapshot,
    options?: StoreCallOptions & { readonly owners?: boolean | undefined },
  ): Promise<SnapshotDiff>;
  /** A copy of a snapshot in a temporary folder of this host, to query it. The caller removes it. */
  localCopy(
    snapshot: StoreSnapshot,
    options?: StoreCallOptions,
  ): Promise<{ readonly path: string; remove(): void }>;
}
