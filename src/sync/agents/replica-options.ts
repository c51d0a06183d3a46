import type { StagingRule } from '../../replica/spool/staging.ts';
import type { FollowedReplica } from '../quick/followed-replica.ts';
import type { AnnouncedSnapshot } from '../request/announcements.ts';
import type { CopyRequest } from '../request/copy-request.ts';
import type { CopyProgress } from './page-copy.ts';
import type { AccessCheck } from '../request/restriction.ts';

export interface CopyOptions extends CopyRequest {
  /** The path that `open` names; an origin agent with its own database ignores it. */
  readonly originPath: string;
  /** Takes the warning about an origin that lost nearly everything; by default it is among those in `done`. */
  readonly onAlarm?: ((warning: string) => void) | undefined;
  /** The path of the origin's file, if it is on this host: a new replica gets its owner. */
  readonly originFile?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** What is kept from one step to the next, if the replica follows the origin. */
  readonly followed?: FollowedReplica | undefined;
  readonly onSnapshot?: (snapshot: AnnouncedSnapshot & { readonly pageCount: number }) => void;
  readonly onProgress?: (progress: CopyProgress) => void;
  /** Details for users who ask for them. */
  readonly onNote?: ((note: string) => void) | undefined;
}

export interface ReplicaOptions extends CopyOptions {
  readonly path: string;
  /** True for a new replica, made in this process, that shares the blocks of the origin. */
  readonly reflink?: boolean | undefined;
  /** Checks what was opened at `path`. */
  readonly access?: AccessCheck | undefined;
  /** The origin as the user named it. */
  readonly originName: string;
  /** Ends the check of the replica, as `signal` does: the peer is gone, and waits for no findings. */
  readonly over?: AbortSignal | undefined;
  /** True if the origin is a backup store's snapshot: the replica is restored, and gets no mark. */
  readonly restores?: boolean;
  /** When pages of a replica in WAL mode wait in the spool; by default never. With limits always. */
  readonly staging?: StagingRule | undefined;
}
