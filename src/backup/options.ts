import type { Outcome } from '../../protocol/messages.ts';
import type { CopyRunOptions } from '../sync/runs/run-options.ts';
import type { SalvageReport, StoreSnapshot } from './types.ts';

interface StoreRunOptions extends CopyRunOptions {
  /** Folder of the store. */
  readonly store: string;
}

export interface BackupOptions extends StoreRunOptions {
  /** Path, `[user@]host:path` or `ssh://…` of the database. */
  readonly origin: string;
  readonly tags?: readonly string[];
  /** Stands for the origin's host name in the record. */
  readonly host?: string | undefined;
  /** Restore the new snapshot to a temporary file, compare it with what the origin had, and run integrity_check. */
  readonly verify?: boolean | undefined;
  /**
   * The part of its pages that the origin may have lost since its last snapshot, in percent; the backup fails with
   * ORIGIN_SHRUNK where it is more. By default there is a warning where the origin is empty or nearly so.
   */
  readonly maxShrinkPercent?: number | undefined;
}

export interface BackupSummary {
  readonly origin: string;
  readonly snapshot: StoreSnapshot;
  readonly pagesTransferred: number;
  readonly pagesDelta: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly durationMs: number;
  /** How long the origin's read transaction was open, and by how much its -wal file grew meanwhile. */
  readonly snapshotHeldMs: number;
  readonly walGrowthBytes: number;
  /** True if `verify` was asked for, and found nothing wrong. */
  readonly verified: boolean;
  /** True if the origin was empty, or nearly so, and its last snapshot was not; a warning says more. */
  readonly shrunk: boolean;
  readonly warnings: readonly string[];
}

export interface RestoreOptions extends StoreRunOptions {
  /** Id of a snapshot, or how it begins, or `latest` in a store of one database. */
  readonly snapshot: string;
  /** Path, `[user@]host:path` or `ssh://…` of the database to make, or to make equal to the snapshot. */
  readonly target: string;
  /** The target may be an existing database. */
  readonly overwrite?: boolean;
  /** A target of another page size is replaced as a whole. */
  readonly replace?: boolean;
  /** A symbolic link in the place of the target is followed. */
  readonly followLinks?: boolean;
  /** Compare only. */
  readonly dryRun?: boolean;
  /** Where not all of the snapshot is left, write to a new file of this host what is. */
  readonly salvage?: boolean;
}

export interface RestoreSummary {
  readonly snapshot: StoreSnapshot;
  readonly target: string;
  readonly outcome: Outcome;
  readonly pagesChanged: number;
  readonly pagesTransferred: number;
  readonly pagesDelta: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly durationMs: number;
  /** The target did not exist before. */
  readonly created: boolean;
  /** What the target lacks; undefined if it is the whole snapshot. Only with `salvage`. */
  readonly salvaged?: SalvageReport | undefined;
  readonly warnings: readonly string[];
}
