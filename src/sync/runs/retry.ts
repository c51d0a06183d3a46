import { setTimeout as delay } from 'node:timers/promises';
import { SqlsyncError, systemErrorCode, toSqlsyncError } from '../../errors.ts';
import type { ErrorCode } from '../../errors.ts';
import { SilentExit } from '../../transport/silent-exit.ts';
import { outcomeUnknown } from '../link/connection-error.ts';

/** Failures of the link, which may pass in a moment. */
export const LINK_FAILURES: ReadonlySet<ErrorCode> = new Set([
  'CONNECT_FAILED',
  'CONNECTION_LOST',
  'TIMEOUT',
]);

/** A missing program will still be missing in a moment. */
const LASTING_CAUSES: ReadonlySet<string | undefined> = new Set(['ENOENT', 'EACCES']);

export const FIRST_PAUSE_MS: number = Number(process.env['SQLSYNC_RETRY_FIRST_PAUSE_MS'] ?? 1000);
export const MAX_PAUSE_MS = 60_000;

export interface RetryOptions {
  /** The most retries. */
  readonly retries: number;
  /** True if the failed attempt has moved anything. */
  readonly hasProgressed: () => boolean;
  /** Called before each pause. */
  readonly onRetry: (retry: Retry) => void;
  readonly signal?: AbortSignal | undefined;
  /** A random number from 0 up to 1. */
  readonly random?: () => number;
  readonly firstPauseMs?: number;
}

export interface Retry {
  readonly failure: SqlsyncError;
  readonly pauseMs: number;
  /** The number of the attempt after the pause; the very first attempt is 1. */
  readonly attempt: number;
}

/**
 * Runs `work`, and again after failures of the link. The pause doubles up to a minute, and starts again after an
 * attempt that moved something. Each is shortened at random, so that many clients of one host do not return at once. Rejects with the
 * last failure, or with INTERRUPTED if the signal aborts a pause. Its outcome is unknown if that of any attempt is
 * unknown.
 */
export async function withRetries<T>(
  work: (attempt: number) => Promise<T>,
  options: RetryOptions,
): Promise<{ result: T; attempts: number }> {
  const { random = Math.random, firstPauseMs = FIRST_PAUSE_MS } = options;
  let nextPauseMs = firstPauseMs;
  let isUnknown = false;
  for (let attempt = 1; ; attempt++) {
    try {
      return { result: await work(attempt), attempts: attempt };
    } catch (error) {
      const failure = toSqlsyncError(error);
      isUnknown ||= failure.outcome === 'unknown';
      if (attempt > options.retries || !mayPass(failure, attempt)) {
        throw isUnknown ? outcomeUnknown(error) : error;
      }
      if (options.hasProgressed()) nextPauseMs = firstPauseMs;
      const pauseMs = Math.round(nextPauseMs * (1 - random() / 2));
      nextPauseMs = Math.min(nextPauseMs * 2, MAX_PAUSE_MS);
      options.onRetry({ failure, pauseMs, attempt: attempt + 1 });
      await pause(pauseMs, options.signal, isUnknown);
    }
  }
}

/**
 * A remote shell that fails silently may succeed if it worked before. After a lost link, BUSY may come from the far
 * agent that has not noticed the loss and still holds its locks.
 */
function mayPass({ code, cause }: SqlsyncError, attempt: number): boolean {
  if (code === 'BUSY') return attempt > 1;
  if (cause instanceof SilentExit && attempt === 1) return false;
  return LINK_FAILURES.has(code) && !LASTING_CAUSES.has(systemErrorCode(cause));
}

async function pause(pauseMs: number, signal: AbortSignal | undefined, isUnknown: boolean): Promise<void> {
  try {
    await delay(pauseMs, undefined, signal === undefined ? {} : { signal });
  } catch (error) {
    const interrupted = new SqlsyncError('INTERRUPTED', 'Interrupted while waiting to try again', {
      hint: 'Run sqlsync again: it continues from what has arrived.',
      cause: error,
    });
    throw isUnknown ? outcomeUnknown(interrupted) : interrupted;
  }
}
