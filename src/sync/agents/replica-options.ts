import type { StagingRule } from '../../replica/spool/staging.ts';
import type { AnnouncedSnapshot } from './announcements.ts';
import type { CopyRequest } from './copy-request.ts';
import type { CopyProgress } from './page-copy.ts';
import type { AccessCheck } from './restriction.ts';

export interface CopyOptions extends CopyRequest {
  /** What `open` is to name; ignored by an origin agent that has a database of its own. */
  readonly originPath: string;
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
  /** Ends the check of the replica, as `signal` does: nobody waits for what it finds. */
  readonly over?: AbortSignal | undefined;
  /** The origin is what a backup store kept: the replica is restored, and gets no mark. */
  readonly restores?: boolean;
  /** When pages of a replica in WAL mode wait in the spool; by default never. With limits always. */
  readonly staging?: StagingRule | undefined;
}
