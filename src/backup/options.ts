import type { Outcome } from '../../protocol/messages.ts';
import type { CopyRunOptions } from '../sync/runs/run-options.ts';
import type { Password, PasswordSource } from './keys/password.ts';
import type { SalvageReport, StoreMoment, StoreSnapshot } from './types.ts';

interface StoreRunOptions extends CopyRunOptions {
  /** Folder of the store, `[user@]host:path`, `s3:…` or `sftp:…`. */
  readonly store: string;
  /** The password of an encrypted store; for another one it is an error. A function is called when it is needed. */
  readonly password?: PasswordSource | Password | undefined;
  /** True to accept another store than the encrypted one that was here, or an older state of it. */
  readonly acceptNewStore?: boolean | undefined;
}

export interface BackupOptions extends StoreRunOptions {
  /** Path, `[user@]host:path` or `ssh://…` of the database. */
  readonly origin: string;
  readonly tags?: readonly string[];
  /** Recorded instead of the origin's host name. */
  readonly host?: string | undefined;
  /**
   * True to restore the new snapshot to a temporary file, compare it with the origin's hashes, and run integrity_check.
   */
  readonly verify?: boolean | undefined;
  /**
   * False to keep nothing in the user's cache folder. By default the hashes of the blocks of a local origin are kept
   * there, 6 % of its size, so that the next backup need not read old versions.
   */
  readonly cache?: boolean | undefined;
  /** True to make no snapshot if the newest one of this database has the same pages; `unchanged` then says so. */
  readonly skipUnchanged?: boolean | undefined;
  /**
   * The part of its pages that the origin may have lost since its last snapshot, in percent; beyond it the backup fails
   * with ORIGIN_SHRUNK. By default it only warns if the origin is empty or nearly so.
   */
  readonly maxShrinkPercent?: number | undefined;
}

export interface BackupSummary {
  readonly origin: string;
  /** The new snapshot, or the earlier one that has the same pages. */
  readonly snapshot: StoreSnapshot;
  /** True if no snapshot was made, because `skipUnchanged` was requested and nothing changed. */
  readonly unchanged: boolean;
  readonly pagesTransferred: number;
  readonly pagesDelta: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly durationMs: number;
  /** The longest that the origin's read transaction was open, and the most that its -wal file grew meanwhile. */
  readonly snapshotHeldMs: number;
  readonly walGrowthBytes: number;
  /** True if `verify` was requested, and found nothing wrong. */
  readonly verified: boolean;
  /** True if the origin was empty, or nearly so, and its last snapshot was not; a warning says more. */
  readonly shrunk: boolean;
  readonly warnings: readonly string[];
}

export interface RestoreOptions extends StoreRunOptions {
  /** Id of a snapshot, or the beginning of one, or `latest` in a store of one database. */
  readonly snapshot: string;
  /** A state between two snapshots, which `snapshot` then begins: see `Store.momentAfter`. */
  readonly moment?: Pick<StoreMoment, 'stream' | 'step' | 'time'> | undefined;
  /** Path, `[user@]host:path` or `ssh://…` of the database to create, or to make equal to the snapshot. */
  readonly target: string;
  /** True if the target may be an existing database. */
  readonly overwrite?: boolean | undefined;
  /** True to replace a target of another page size as a whole. */
  readonly replace?: boolean | undefined;
  /** True to follow a symbolic link in the place of the target. */
  readonly followLinks?: boolean | undefined;
  /** True to compare only. */
  readonly dryRun?: boolean | undefined;
  /** False to use and keep no copies of the files of a store elsewhere in the user's cache folder. */
  readonly cache?: boolean | undefined;
  /** True to write what is left of a damaged snapshot to a new file on this host. */
  readonly salvage?: boolean;
}

export interface RestoreSummary {
  /** With the time and the number of pages of what was restored. */
  readonly snapshot: StoreSnapshot;
  /** How many steps after the snapshot were added to it. */
  readonly step: number;
  readonly target: string;
  readonly outcome: Outcome;
  readonly pagesChanged: number;
  readonly pagesTransferred: number;
  readonly pagesDelta: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly durationMs: number;
  /** True if the target did not exist before. */
  readonly created: boolean;
  /** What the target lacks; undefined if it is the whole snapshot. Only with `salvage`. */
  readonly salvaged?: SalvageReport | undefined;
  readonly warnings: readonly string[];
}
