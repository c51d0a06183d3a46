import { setTimeout as delay } from 'node:timers/promises';
import { systemErrorCode } from '../errors.ts';
import { isBusy } from '../sqlite/busy.ts';

/** The longest wait between two attempts: with a cap, an old waiter is as likely to get the lock as a new one. */
const MAX_DELAY_MS = 10;

/** How long the last attempt before a deadline may block, waiting within SQLite, which notices the moment better. */
export const PATIENT_ATTEMPT_MS = 15;

/**
 * How long to wait after the `refusals`-th refusal in a row (from 1), in milliseconds: 1, 2, 4, 8, 10, 10, … less up
 * to a half, so that two who were refused together do not come again together.
 */
export function retryDelayMs(refusals: number, random: () => number = Math.random): number {
  const longest = Math.min(2 ** Math.min(refusals - 1, 10), MAX_DELAY_MS);
  return longest * (0.5 + 0.5 * random());
}

export interface RetryPlan {
  readonly timeoutMs: number;
  onBusy?(code: string): void;
  /** The error for the one who gave up. */
  timedOut(waitedMs: number, cause: unknown): Error;
}

/** Tries until `attempt` is not refused as busy, never blocking the event loop in between. */
export async function retryWhileBusy<T>(attempt: () => T, plan: RetryPlan): Promise<T> {
  const beganMs = performance.now();
  for (let refusals = 1; ; refusals += 1) {
    try {
      return attempt();
    } catch (error) {
      if (!isBusy(error)) throw error;
      plan.onBusy?.(systemErrorCode(error) ?? '');
      const waitedMs = performance.now() - beganMs;
      if (waitedMs >= plan.timeoutMs) throw plan.timedOut(waitedMs, error);
    }
    await delay(retryDelayMs(refusals));
  }
}
