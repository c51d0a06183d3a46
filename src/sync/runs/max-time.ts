import { SqlsyncError } from '../../errors.ts';

const HINT = 'Run sqlsync again: it continues from what has arrived. Or allow more time with --max-time.';

/**
 * Runs `work` with a signal that aborts with `signal`, or after `maxTimeMs` (undefined: never). Work that the limit
 * interrupts cleans up as for INTERRUPTED and fails with TIMEOUT; its outcome stays what it was.
 */
export async function withMaxTime<T>(
  maxTimeMs: number | undefined,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal | undefined) => Promise<T>,
): Promise<T> {
  if (maxTimeMs === undefined) return work(signal);
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), maxTimeMs);
  try {
    return await work(signal === undefined ? limit.signal : AbortSignal.any([signal, limit.signal]));
  } catch (error) {
    const isOurs = error instanceof SqlsyncError && error.code === 'INTERRUPTED';
    if (!isOurs || !limit.signal.aborted || signal?.aborted === true) throw error;
    throw new SqlsyncError('TIMEOUT', `Not done after the ${maxTimeMs / 1000} s of --max-time`, {
      hint: (error.outcome === undefined ? undefined : error.hint) ?? HINT,
      cause: error,
      outcome: error.outcome,
    });
  } finally {
    clearTimeout(timer);
  }
}
