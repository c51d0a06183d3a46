import { setTimeout as delay } from 'node:timers/promises';
import { SqlsyncError, systemErrorCode } from '../errors.ts';

/** SQLite's structured codes (5, 261, 517, 773) decide, never the text of a message. */
const BUSY_CODES: ReadonlySet<string | undefined> = new Set([
  'SQLITE_BUSY',
  'SQLITE_BUSY_RECOVERY',
  'SQLITE_BUSY_SNAPSHOT',
  'SQLITE_BUSY_TIMEOUT',
]);

/** Longest pause between two attempts. A cap keeps a long waiter as likely to get the lock as a new one. */
const MAX_DELAY_MS = 10;

export function isBusy(error: unknown): boolean {
  return BUSY_CODES.has(systemErrorCode(error));
}

/** Who holds the lock that is waited for. */
export interface LockHolder {
  /** Called after each refusal. */
  look(): void;
  /** The holder, as a part of a sentence; undefined if it is not known. */
  inWords(): string | undefined;
}

export interface RetryOptions {
  /** How long to go on trying, in milliseconds. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly holder?: LockHolder | undefined;
}

/**
 * Runs `action` until SQLite does not refuse it as busy. Waits between attempts without blocking the event loop, so
 * that signals are handled and messages sent meanwhile. Throws SqlsyncError BUSY after `timeoutMs`, naming `what` was
 * waited for and who holds it; throws other errors at once.
 */
export async function retryBusy<T>(
  what: string,
  action: () => T | Promise<T>,
  options: RetryOptions,
): Promise<T> {
  const deadline = performance.now() + options.timeoutMs;
  for (let delayMs = 1; ; delayMs = Math.min(delayMs * 2, MAX_DELAY_MS)) {
    try {
      return await action();
    } catch (error) {
      if (!isBusy(error)) throw error;
      options.holder?.look();
      if (performance.now() >= deadline) {
        const holder = options.holder?.inWords();
        throw new SqlsyncError(
          'BUSY',
          `${what}: still locked by another program after ${options.timeoutMs} ms${holder === undefined ? '' : `: ${holder}`}`,
          {
            hint: 'Nothing was changed. Run sqlsync again when the other program is done, or allow more time with --busy-timeout.',
            cause: error,
          },
        );
      }
    }
    await delay(delayMs, undefined, options.signal === undefined ? {} : { signal: options.signal });
  }
}
