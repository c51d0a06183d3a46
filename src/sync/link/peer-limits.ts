/** What the near side says of its limits in `open` and `replicate`, in milliseconds; 0 is for ever. */
export interface PeerLimits {
  readonly idleTimeoutMs: number;
  readonly maxTimeMs: number;
}

/** What a far agent allows beyond the near one's limit for the whole run, so that it is the near one that is told. */
const MAX_TIME_GRACE_MS = 5000;

/** Timers of Node.js take a longer time for one millisecond. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** A far agent is twice as patient as the near one, so that it is the near one, and so the user, who is told. */
export function farIdleTimeoutMs(idleTimeoutMs: number): number {
  return Math.min(idleTimeoutMs * 2, MAX_TIMER_MS);
}

/** The shorter of two limits, of which 0 is none. */
function shorter(a: number, b: number): number {
  return Math.min(a === 0 || b === 0 ? a + b : Math.min(a, b), MAX_TIMER_MS);
}

/** How long one database may take on the far side, in milliseconds; 0 is for ever. `own` is what it allows itself. */
export function farMaxTimeMs(near: number, own: number): number {
  return shorter(near === 0 ? 0 : near + MAX_TIME_GRACE_MS, own);
}
