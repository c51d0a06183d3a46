import { closeSync, openSync } from 'node:fs';
import { shortageError, systemErrorCode } from '../errors.ts';
import type { SqlsyncError } from '../errors.ts';

/**
 * As `shortageError`, also where SQLite was refused a file, which does not say why: SQLITE_CANTOPEN may mean that the
 * process has no descriptor left.
 */
export function shortageOf(doing: string, error: unknown): SqlsyncError | undefined {
  const isUnsaid = systemErrorCode(error)?.startsWith('SQLITE_CANTOPEN') === true;
  return shortageError(doing, isUnsaid ? refusalOfAnyFile() : error);
}

/** What the system says to the opening of a file that everybody may open. */
function refusalOfAnyFile(): unknown {
  try {
    closeSync(openSync('/', 'r'));
    return undefined;
  } catch (error) {
    return error;
  }
}
