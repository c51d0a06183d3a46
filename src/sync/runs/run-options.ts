import type { CompressionMode, HashAlgorithm } from '../../../protocol/messages.ts';
import type { Location } from '../../transport/location.ts';
import type { WarningKind } from '../agents/announcements.ts';
import { COPY_REQUEST } from '../agents/copy-request.ts';
import type { CopyProgress } from '../agents/page-copy.ts';
import type { RemoteOptions } from '../link/start-agent.ts';

/** What every run with an agent can be told. */
export interface RunOptions extends RemoteOptions {
  /**
   * How pages are compared: 'nh-siphash' (default; of `verify` 'sha256'), 'sha256', or 'xxh64' where nobody hostile
   * writes the origin.
   */
  readonly hash?: HashAlgorithm;
  /** How long to wait for locks of other programs, in milliseconds; default 10,000. */
  readonly busyTimeoutMs?: number;
  /**
   * Silence of the other side after which it counts as lost, in milliseconds; default 30,000, 0 is for ever. Ten times
   * as long after it said that it opens a database or commits.
   */
  readonly idleTimeoutMs?: number;
  /** What the far agent is told of the caller's own limit for the run, in milliseconds, so that it keeps it too. */
  readonly maxTimeMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** What the user should know, as it becomes known; the summary repeats it. */
  readonly onWarning?: ((warning: string, kind: WarningKind) => void) | undefined;
  /** Detail for those who ask for it. */
  readonly onNote?: ((note: string) => void) | undefined;
}

/** What every run that copies pages can be told besides. */
export interface CopyRunOptions extends RunOptions {
  /** 'auto' (default): all pages over SSH, only deltas between local files. */
  readonly compress?: CompressionMode;
  readonly onProgress?: ((progress: CopyProgress) => void) | undefined;
}

export const DEFAULT_BUSY_TIMEOUT_MS: number = COPY_REQUEST.busyTimeoutMs.default;
export const DEFAULT_IDLE_TIMEOUT_MS = 30_000;

/** What an agent at `far` is told: 'auto' is everything where a network is between. */
export function compressionTo(far: Location, compress: CompressionMode = 'auto'): CompressionMode {
  return compress === 'auto' && far.kind === 'ssh' ? 'zstd' : compress;
}
