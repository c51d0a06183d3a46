import type { CompressionMode, HashAlgorithm } from '../../../protocol/messages.ts';
import type { WarningKind } from '../request/announcements.ts';
import { COPY_REQUEST } from '../request/copy-request.ts';
import type { CopyProgress } from '../agents/page-copy.ts';
import type { RemoteOptions } from '../link/start-agent.ts';

/** The options of every run with an agent. */
export interface RunOptions extends RemoteOptions {
  /**
   * How to compare pages: 'nh-siphash' (default; for `verify` 'sha256'), 'sha256', or 'xxh64' if no adversary writes
   * the origin.
   */
  readonly hash?: HashAlgorithm | undefined;
  /** How long to wait for locks of other programs, in milliseconds; default 10,000. */
  readonly busyTimeoutMs?: number | undefined;
  /**
   * Silence of the other side after which it counts as lost, in milliseconds; default 30,000, 0 means no limit. Ten
   * times as long after it said that it opens a database or commits.
   */
  readonly idleTimeoutMs?: number;
  /** The caller's own limit for the run, in milliseconds. The far agent gets it, to keep it too. */
  readonly maxTimeMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** What the user should know, as soon as it is known; the summary repeats it. */
  readonly onWarning?: ((warning: string, kind: WarningKind) => void) | undefined;
  /** Details for users who ask for them. */
  readonly onNote?: ((note: string) => void) | undefined;
}

/** Further options of every run that copies pages. */
export interface CopyRunOptions extends RunOptions {
  /** 'auto' (default): what is faster, measured while pages are sent; deltas always. */
  readonly compress?: CompressionMode;
  readonly onProgress?: ((progress: CopyProgress) => void) | undefined;
}

export const DEFAULT_BUSY_TIMEOUT_MS: number = COPY_REQUEST.busyTimeoutMs.default;
export const DEFAULT_IDLE_TIMEOUT_MS = 30_000;
