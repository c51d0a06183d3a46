import { closeSync, openSync } from 'node:fs';
import { shortageError, systemErrorCode } from '../errors.ts';
import type { SqlsyncError } from '../errors.ts';

/**
 * As `shortageError`, and also for a file that SQLite could not open: SQLITE_CANTOPEN does not say why, and may mean
 * that the process has no descriptor left.
 */
export function shortageOf(doing: string, error: unknown): SqlsyncError | undefined {
  const isUnsaid = systemErrorCode(error)?.startsWith('SQLITE_CANTOPEN') === true;
  return shortageError(doing, isUnsaid ? refusalOfAnyFile() : error);
}

/** The system's error for opening a file that every user may open; undefined if it opens. */
function refusalOfAnyFile(): unknown {
  try {
    closeSync(openSync('/', 'r'));
    return undefined;
  } catch (error) {
    return error;
  }
}
