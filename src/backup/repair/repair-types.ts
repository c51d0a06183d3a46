import type { StoreCallOptions, StoreSnapshot } from '../types.ts';

export interface RepairOptions extends StoreCallOptions {
  /** Only say what would be done. What would be written goes to a temporary folder meanwhile. */
  readonly dryRun?: boolean | undefined;
  /** Read all packs, and give up those whose bytes have changed. Else only those are given up that are missing or of another length. */
  readonly readData?: boolean | undefined;
  /** Forget the snapshots that cannot be restored whole. */
  readonly forget?: boolean | undefined;
}

/** A snapshot that cannot be restored whole. */
export interface LostSnapshot {
  readonly id: string;
  /** undefined where the record itself is lost. */
  readonly snapshot: StoreSnapshot | undefined;
  /** Pages that are lost; undefined where the record is. */
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
