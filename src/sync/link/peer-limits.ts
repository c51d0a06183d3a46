/** The near side's limits in `open` and `replicate`, in milliseconds; 0 means no limit. */
export interface PeerLimits {
  readonly idleTimeoutMs: number;
  readonly maxTimeMs: number;
}

/**
 * A far agent allows this much beyond the near side's limit for the whole run, so that the near side reports the
 * timeout.
 */
const MAX_TIME_GRACE_MS = 5000;

/** Node.js turns a longer timer into one of 1 ms. */
export const MAX_TIMER_MS: number = 2 ** 31 - 1;

/** A far agent is twice as patient as the near one, so that the near one, and so the user, learns of the timeout. */
export function farIdleTimeoutMs(idleTimeoutMs: number): number {
  return Math.min(idleTimeoutMs * 2, MAX_TIMER_MS);
}

/** The shorter of two limits; 0 means no limit. */
function shorter(a: number, b: number): number {
  return Math.min(a === 0 || b === 0 ? a + b : Math.min(a, b), MAX_TIMER_MS);
}

/**
 * How long one database may take on the far side, in milliseconds; 0 means no limit. `own` is the far side's own limit.
 */
export function farMaxTimeMs(near: number, own: number): number {
  return shorter(near === 0 ? 0 : near + MAX_TIME_GRACE_MS, own);
}

export interface ConnectionOptions {
  /**
   * Silence of the peer, in milliseconds, after which it counts as lost; 0 means no limit. Ten times as long after it
   * said that it is busy (SPEC.md, "Signs of life").
   */
  readonly idleTimeoutMs: number;
  /**
   * How long the peer's greeting may take, in milliseconds; 0 means no limit. By default the limit of silence holds.
   */
  readonly greetingTimeoutMs?: number | undefined;
  /** The time left for the whole run, in milliseconds, to be sent to the peer; undefined or 0 means no limit. */
  readonly maxTimeMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** True if the peer is a child process of this one: its errors are reported as our own. */
  readonly isPeerOurs?: boolean;
}
