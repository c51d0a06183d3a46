import { setTimeout as delay } from 'node:timers/promises';
import { systemErrorCode } from '../errors.ts';
import { isBusy } from '../sqlite/busy.ts';
import type { MaybePromise } from './types.ts';

/** The longest pause between two attempts: a cap keeps a long waiter as likely to get the lock as a new one. */
const MAX_DELAY_MS = 10;

/** How long the last attempt before a deadline may block within SQLite, which notices a free lock better. */
export const PATIENT_ATTEMPT_MS = 15;

/**
 * The pause after the `refusals`-th refusal in a row (from 1), in milliseconds: 1, 2, 4, 8, 10, 10, …, each reduced by
 * up to a half, so that two refused callers do not come back together.
 */
export function retryDelayMs(refusals: number, random: () => number = Math.random): number {
  const longest = Math.min(2 ** Math.min(refusals - 1, 10), MAX_DELAY_MS);
  return longest * (0.5 + 0.5 * random());
}

/** The longest time for setTimeout. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/** How long a timer for an event in `ms` may run at most: setTimeout turns a longer time into none at all. */
export function timerMs(ms: number): number {
  return Math.min(Math.max(0, Math.ceil(ms)), TIMER_MAX_MS);
}

export interface RetryPlan {
  readonly timeoutMs: number;
  onBusy?(code: string): void;
  /** The error for a caller that gave up. */
  timedOut(waitedMs: number, cause: unknown): Error;
}

/** Tries until `attempt` is not refused as busy, never blocking the event loop in between. */
export async function retryWhileBusy<T>(attempt: () => MaybePromise<T>, plan: RetryPlan): Promise<T> {
  const beganMs = performance.now();
  for (let refusals = 1; ; refusals += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (!isBusy(error)) throw error;
      plan.onBusy?.(systemErrorCode(error) ?? '');
      const waitedMs = performance.now() - beganMs;
      if (waitedMs >= plan.timeoutMs) throw plan.timedOut(waitedMs, error);
    }
    await delay(retryDelayMs(refusals));
  }
}
