import type { CompressionMode, HashAlgorithm, Reader } from '../../../protocol/messages.ts';
import type { StagingRule } from '../../replica/spool/staging.ts';
import type { AnnouncedSnapshot } from './announcements.ts';
import type { CopyProgress } from './page-copy.ts';
import type { AccessCheck } from './restriction.ts';
import type { SnapshotLimits } from './snapshot-limit.ts';

export interface CopyOptions {
  /** What `open` is to name; ignored by an origin agent that has a database of its own. */
  readonly originPath: string;
  readonly hash: HashAlgorithm;
  readonly compression: CompressionMode;
  readonly dryRun: boolean;
  readonly overwrite: boolean;
  /** How both agents read their databases. */
  readonly reader: Reader;
  readonly busyTimeoutMs: number;
  /** What ends a round; by default nothing does. */
  readonly limits?: SnapshotLimits | undefined;
  /** The part of the copy's pages that the origin may have lost, in percent; undefined warns of what looks like an accident. */
  readonly maxShrinkPercent?: number | undefined;
  /** Takes the warning of an origin that lost nearly everything; by default it is one of those in `done`. */
  readonly onAlarm?: ((warning: string) => void) | undefined;
  /** The path of the origin's file, where it is one of this host: a new replica gets its owner. */
  readonly originFile?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onSnapshot?: (snapshot: AnnouncedSnapshot & { readonly pageCount: number }) => void;
  readonly onProgress?: (progress: CopyProgress) => void;
}

export interface ReplicaOptions extends CopyOptions {
  readonly path: string;
  /** Is told what was opened at `path`. */
  readonly access?: AccessCheck | undefined;
  /** How the user named the origin. */
  readonly originName: string;
  readonly replace: boolean;
  /** A symbolic link in the place of the replica is followed. */
  readonly followLinks: boolean;
  /** SQLite checks the replica at the end; what it finds goes into `done`. */
  readonly check: boolean;
  /** Ends that check, as `signal` does: nobody waits for what it finds. */
  readonly over?: AbortSignal | undefined;
  /** The origin is what a backup store kept: the replica is restored, and gets no mark. */
  readonly restores?: boolean;
  /** When pages of a replica in WAL mode wait in the spool; by default never. With limits always. */
  readonly staging?: StagingRule | undefined;
}
