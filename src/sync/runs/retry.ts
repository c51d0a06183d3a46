import { setTimeout as delay } from 'node:timers/promises';
import { SqlsyncError, systemErrorCode, toSqlsyncError } from '../../errors.ts';
import type { ErrorCode } from '../../errors.ts';
import { SilentExit } from '../../transport/silent-exit.ts';
import { outcomeUnknown } from '../link/connection-error.ts';

/** Failures of the link: what they say may not be so in a moment. */
const LINK_FAILURES: ReadonlySet<ErrorCode> = new Set(['CONNECT_FAILED', 'CONNECTION_LOST', 'TIMEOUT']);

/** A program that is not there will not be there in a moment. */
const LASTING_CAUSES: ReadonlySet<string | undefined> = new Set(['ENOENT', 'EACCES']);

const FIRST_PAUSE_MS = Number(process.env['SQLSYNC_RETRY_FIRST_PAUSE_MS'] ?? 1000);
const MAX_PAUSE_MS = 60_000;

export interface RetryOptions {
  /** How often it may be tried again. */
  readonly retries: number;
  /** Whether the attempt that has just failed has moved anything. */
  readonly hasProgressed: () => boolean;
  /** Is told before each pause. */
  readonly onRetry: (retry: Retry) => void;
  readonly signal?: AbortSignal | undefined;
  /** From 0 up to 1. */
  readonly random?: () => number;
  readonly firstPauseMs?: number;
}

export interface Retry {
  readonly failure: SqlsyncError;
  readonly pauseMs: number;
  /** The attempt that comes after the pause; the first attempt of all is 1. */
  readonly attempt: number;
}

/**
 * Runs `work`, and again where the link failed it: after a pause that doubles up to a minute and begins anew when an
 * attempt has moved something, shortened by chance so that many who lost the same host do not come back at once.
 * Rejects with the last failure, and with INTERRUPTED where the signal aborts a pause; either has an unknown outcome
 * where that of any attempt is unknown.
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
 * A remote shell that fails in silence may pass once it has worked. After a loss of the link, BUSY may be the far agent
 * that has not noticed it yet and still has its locks.
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
      hint: 'Run it again: it goes on from what is there.',
      cause: error,
    });
    throw isUnknown ? outcomeUnknown(interrupted) : interrupted;
  }
}
