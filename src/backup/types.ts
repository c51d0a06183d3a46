/**
 * What a store is to those who use it: records, options and summaries. docs/store-format.md describes the bytes.
 * A snapshot's `id` is 64 hexadecimal digits; times are `Date`s; sizes are in bytes.
 */

/** One snapshot of one database, as its record in the store says. */
export interface StoreSnapshot {
  readonly id: string;
  /** When the read transaction on the origin began. */
  readonly time: Date;
  /** Host of the origin, or what the user gave instead. */
  readonly host: string;
  /** Absolute path of the origin on its host. */
  readonly path: string;
  readonly tags: readonly string[];
  readonly pageSize: number;
  readonly pageCount: number;
  /** Permission bits of the origin's file. */
  readonly fileMode: number;
  /**
   * Whom the origin's file belonged to, on the host of that name; undefined if the backup was made from another host.
   */
  readonly fileOwner?: SnapshotOwner | undefined;
  /** Id of the root node; undefined for a database without pages. */
  readonly root: string | undefined;
  /** The snapshot that it was compared with. */
  readonly parent: string | undefined;
  /**
   * One more than the highest of the snapshots that were in the store when it was made; older programs recorded none.
   */
  readonly generation?: number | undefined;
  /** Name and version of the program that wrote it. */
  readonly program: string;
  readonly statistics: SnapshotStatistics;
}

/** A user of one host. */
export interface SnapshotOwner {
  /** The name that the host itself had, whatever the snapshot is said to be of. */
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

/** What is told while something long runs. */
export interface StoreProgress {
  readonly phase: 'read' | 'write' | 'delete';
  /** Of what the phase counts (pages, packs or snapshots) how many are done, and of how many. */
  readonly done: number;
  readonly total: number;
}

export interface StoreCallOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: StoreProgress) => void) | undefined;
}

export interface ForgetSummary {
  /** Snapshots that were taken away; one that was gone already is not among them. */
  readonly forgotten: readonly string[];
}

export interface PruneOptions extends StoreCallOptions {
  /** Only say what would be done. */
  readonly dryRun?: boolean | undefined;
  /** Part of a pack, 0 to 1, that may be garbage before it is repacked; default 0.2. */
  readonly maxUnusedRatio?: number | undefined;
  /**
   * Age of a mark, in seconds, from which its packs are deleted; default: the store's grace period. Less is only safe
   * while nobody else uses the store. With 0, packs that hold nothing needed are deleted without a mark.
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
  /** Marked packs whose grace period is not over, and their bytes: a later prune deletes them. */
  readonly packsWaiting: number;
  readonly bytesWaiting: number;
  /** Not all could be copied and marked, since there is no space left. Run it again: this one may have made some. */
  readonly outOfSpace: boolean;
}

export interface CheckOptions extends StoreCallOptions {
  /** Read and check every object, not only the records and trees. */
  readonly readData?: boolean | undefined;
  /** Read only a part of the packs. */
  readonly readDataSubset?: DataSubset | undefined;
}

/** The n-th of m parts, which together are all packs; or packs chosen at random that make up so much. */
export type DataSubset =
  { readonly n: number; readonly m: number } | { readonly percent: number } | { readonly bytes: number };

/** Something that is wrong with one file of a store. */
export interface CheckProblem {
  /** Name in the store, such as `packs/ID`. */
  readonly file: string;
  /** One sentence. */
  readonly message: string;
}

export interface CheckSummary {
  readonly problems: readonly CheckProblem[];
  /** Snapshots that cannot be restored, with the number of their pages that are lost. */
  readonly damaged: readonly { readonly snapshot: StoreSnapshot; readonly pagesLost: number }[];
  /** Snapshots that can be restored, as far as was read. */
  readonly intact: readonly StoreSnapshot[];
  /** What was read of packs besides trees: only then is it known that no byte of it changed. */
  readonly dataRead: 'none' | 'part' | 'all';
  readonly packsRead: number;
  readonly bytesRead: number;
  /** All packs that are there, and their bytes. */
  readonly packs: number;
  readonly packBytes: number;
}

/** What of a database a salvaged file lacks. */
export interface SalvageReport {
  readonly pagesLost: number;
  /** To whom the lost pages belonged, the most first. */
  readonly objects: readonly SalvagedObject[];
  /** Tables and indexes of which no page is lost. */
  readonly objectsWhole: number;
  /** Page 1, which has the schema, is lost, and is that of this other snapshot; undefined if it is not. */
  readonly schemaOf: string | undefined;
  /** Page 1 is lost, and no other snapshot has one: no table has a name. */
  readonly isSchemaLost: boolean;
  /** False if the schema may have been another one than that of `schemaOf`. */
  readonly isSchemaCertain: boolean;
}

export interface SalvagedObject {
  /**
   * Of a table or index; 'sqlite_schema', '(free)' for pages without content, '(unknown)' for what lay below other lost
   * pages.
   */
  readonly name: string;
  readonly type: 'table' | 'index' | 'schema' | 'free' | 'unknown';
  /** The table that it belongs to. */
  readonly table: string | undefined;
  readonly pagesLost: number;
  /** An index that was made anew from its table, so that nothing of it is lost. */
  readonly isRebuilt: boolean;
}

export interface RepairOptions extends StoreCallOptions {
  /** Only say what would be done. What would be written goes to a temporary folder meanwhile. */
  readonly dryRun?: boolean | undefined;
  /**
   * Read all packs, and give up those whose bytes have changed. Else only those are given up that are missing or of
   * another length.
   */
  readonly readData?: boolean | undefined;
  /** Forget the snapshots that cannot be restored whole. */
  readonly forget?: boolean | undefined;
}

/** A snapshot that cannot be restored whole. */
export interface LostSnapshot {
  readonly id: string;
  /** undefined if the record itself is lost. */
  readonly snapshot: StoreSnapshot | undefined;
  /** Pages that are lost; undefined if the record is. */
  readonly pagesLost: number | undefined;
}

export interface RepairSummary {
  readonly dryRun: boolean;
  /** The file `config` was written anew. */
  readonly configWritten: boolean;
  /** Of the store, as `config` says it now. */
  readonly graceSeconds: number;
  /** Index files that could not be read, and were removed. */
  readonly indexesRemoved: number;
  /** Packs that no index named, and one does now. */
  readonly packsIndexed: number;
  /** Packs that are missing or damaged, and that no index names any more. */
  readonly packsGivenUp: number;
  /** Damaged packs that are still there, by id, until prune deletes them. */
  readonly packsDamaged: readonly string[];
  /** Objects that were written again, since they were in damaged packs only. */
  readonly objectsSaved: number;
  /** Marks that could not be read, and were removed. */
  readonly marksRemoved: number;
  /** Notes on forgotten snapshots that could not be read, and were written anew. */
  readonly notesWritten: number;
  /** Snapshots that still cannot be restored whole, or that nobody forgot and that are gone. */
  readonly lost: readonly LostSnapshot[];
  /** Of `lost` those that were forgotten, by id. */
  readonly forgotten: readonly string[];
}

export interface StoreStats {
  readonly snapshots: number;
  readonly databases: number;
  /** All snapshots as if each were a file. */
  readonly rawBytes: number;
  /** Different pages, whole. */
  readonly uniqueBytes: number;
  /** All files of the store. */
  readonly storedBytes: number;
  readonly packs: number;
  readonly objects: number;
  /** `rawBytes` for each stored byte. */
  readonly ratio: number;
}

export interface SnapshotDiff {
  /** Pages that differ or exist on one side only, as ranges of first and last, ascending. */
  readonly differingPages: readonly (readonly [first: number, last: number])[];
  readonly pagesInA: number;
  readonly pagesInB: number;
  /** Tables and indexes with pages that differ, largest first; '(free)' is what none of them owns. */
  readonly objects: readonly {
    readonly name: string;
    readonly pagesInA: number;
    readonly pagesInB: number;
  }[];
}

export interface SnapshotListeners {
  readonly onWarning?: ((warning: string) => void) | undefined;
  /** Is told the id of each snapshot whose record is damaged. */
  readonly onUnreadable?: ((id: string) => void) | undefined;
}

/** An open store. All methods throw SqlsyncError: STORE_* and INTERRUPTED. */
export interface Store {
  /** For people: the folder or address. */
  readonly description: string;
  readonly id: string;
  /**
   * All snapshots in the order in which they were made, the oldest first. Damaged records are left out and told by
   * `onWarning`, and by `onUnreadable` with their ids.
   */
  snapshots(options?: SnapshotListeners): Promise<StoreSnapshot[]>;
  /**
   * The one snapshot whose id begins with `prefix` (at least 4 digits); for `latest` the newest, if all are of one
   * database.
   */
  find(prefix: string): Promise<StoreSnapshot>;
  /** Takes snapshots away, also such as cannot be read. Their pages stay until `prune`. */
  forget(ids: readonly string[]): Promise<ForgetSummary>;
  prune(options?: PruneOptions): Promise<PruneSummary>;
  check(options?: CheckOptions): Promise<CheckSummary>;
  /** After damage, makes a store that backups and prune accept again. Not beside a prune. */
  repair(options?: RepairOptions): Promise<RepairSummary>;
  stats(options?: StoreCallOptions): Promise<StoreStats>;
  /** What differs between two snapshots; with `owners` by table and index, which takes a temporary copy of both. */
  diff(
    a: StoreSnapshot,
    b: StoreSnapshot,
    options?: StoreCallOptions & { readonly owners?: boolean | undefined },
  ): Promise<SnapshotDiff>;
  /** A copy of a snapshot in a temporary folder of this host, to be queried. The caller removes it. */
  localCopy(
    snapshot: StoreSnapshot,
    options?: StoreCallOptions,
  ): Promise<{ readonly path: string; remove(): void }>;
}
