import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { SqlsyncError } from '../../errors.ts';
import { makePrivateFolder, userCacheFolder } from '../../files/user-cache.ts';
import { tryExclusiveLock } from '../../sqlite/locks/exclusive-lock.ts';
import type { ExclusiveLock } from '../../sqlite/locks/exclusive-lock.ts';
import { LockFileError } from '../../sqlite/locks/lock-file.ts';
import { formatDuration } from '../terminal/format.ts';

/** The pause between two attempts, in milliseconds: the first, and the longest. */
const FIRST_PAUSE_MS = 20;
const LAST_PAUSE_MS = 1000;

/**
 * Waits up to `waitMs` until no other run of the job that `name` identifies is under way. Keeps others out until it is
 * released or the process dies. Runs of one user see each other.
 *
 * Throws SqlsyncError LOCKED if the other run takes longer, INTERRUPTED if `signal` aborts, and USAGE if the lock
 * cannot be made.
 */
export async function lockJob(
  name: readonly string[],
  waitMs: number,
  { signal, onWaiting }: { readonly signal: AbortSignal; readonly onWaiting: () => void },
): Promise<ExclusiveLock> {
  const path = lockPath(name);
  const deadline = performance.now() + waitMs;
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, LAST_PAUSE_MS)) {
    const lock = tryLock(path);
    if (lock !== undefined) return lock;
    const leftMs = deadline - performance.now();
    if (leftMs <= 0) throw stillRunning(waitMs);
    if (pauseMs === FIRST_PAUSE_MS) onWaiting();
    await pause(Math.min(pauseMs, leftMs), signal);
  }
}

function lockPath(name: readonly string[]): string {
  const digest = createHash('sha256').update(JSON.stringify(name)).digest('hex').slice(0, 32);
  return join(userCacheFolder('jobs'), `${digest}.lock`);
}

function tryLock(path: string): ExclusiveLock | undefined {
  try {
    makePrivateFolder(dirname(path));
    return tryExclusiveLock(path);
  } catch (error) {
    if (error instanceof SqlsyncError) throw error;
    if (error instanceof LockFileError && existsSync(path)) {
      throw new SqlsyncError('USAGE', `--lock-wait: ${error.message}`, { hint: error.hint, cause: error });
    }
    const why = error instanceof Error ? error.message : String(error);
    throw new SqlsyncError('USAGE', `--lock-wait: the lock ${path} cannot be made: ${why}`, {
      hint: 'Set XDG_CACHE_HOME to a folder that this user can write; in a systemd unit, CacheDirectory= makes one.',
      cause: error,
    });
  }
}

function stillRunning(waitMs: number): SqlsyncError {
  const waited = waitMs === 0 ? '' : `, after ${formatDuration(waitMs)}`;
  return new SqlsyncError(
    'LOCKED',
    `Another run of this job is still under way${waited}; this one did nothing`,
    {
      hint: 'Wait until it ends, or allow more time with --lock-wait.',
    },
  );
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await delay(ms, undefined, { signal });
  } catch (error) {
    throw new SqlsyncError('INTERRUPTED', 'Interrupted while another run of this job was under way', {
      hint: 'Nothing was done.',
      cause: error,
    });
  }
}
