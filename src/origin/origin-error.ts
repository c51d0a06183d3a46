import { sanitizeText, SqlsyncError, systemErrorCode } from '../errors.ts';
import { shortageOf } from '../files/shortage.ts';
import type { PageNumber } from '../pages/page-types.ts';

export function originReplaced(path: string): SqlsyncError {
  return new SqlsyncError('ORIGIN_REPLACED', `Another file took the name ${path} during the sync`, {
    hint: 'Nothing was changed. Run sqlsync again to copy the new file.',
  });
}

/** SQLite's own readers would read zeros for the page, and so would a copy. */
export function originTruncated(path: string, page: PageNumber): SqlsyncError {
  return new SqlsyncError(
    'ORIGIN_UNREADABLE',
    `Another program cut off origin ${path} during the sync: page ${page} is neither in it nor in its -wal`,
    {
      hint: 'Nothing was changed. Restore the origin from a backup, such as its replica, then run sqlsync again.',
    },
  );
}

export function originNotFound(path: string, cause?: unknown): SqlsyncError {
  return new SqlsyncError('ORIGIN_NOT_FOUND', `Origin ${path} does not exist`, {
    hint: 'Check the path; the origin is the first argument.',
    cause,
  });
}

export function originNotADatabase(path: string, cause?: unknown): SqlsyncError {
  return new SqlsyncError(
    'ORIGIN_NOT_A_DATABASE',
    `Origin ${path} is not an SQLite database, or is encrypted`,
    {
      hint: 'Check the path. The first 16 bytes of an SQLite database read "SQLite format 3".',
      cause,
    },
  );
}

/** Turns an error of the system or of SQLite on the origin into an error for the user. */
export function originError(path: string, error: unknown): SqlsyncError {
  if (error instanceof SqlsyncError) return error;
  const code = systemErrorCode(error) ?? '';
  const text = error instanceof Error ? error.message : String(error);
  const shortage = shortageOf(`Origin ${path} cannot be read`, error);
  if (shortage !== undefined) return shortage;
  if (code === 'ENOENT' || code === 'ENOTDIR') return originNotFound(path, error);
  if (code === 'SQLITE_NOTADB') return originNotADatabase(path, error);
  if (code === 'ENAMETOOLONG') {
    const shown = sanitizeText(path, 200);
    return new SqlsyncError('ORIGIN_UNREADABLE', `Origin ${shown} has a name that is too long (${code})`, {
      hint: 'No file can have a name of that length: check the path.',
      cause: error,
    });
  }
  if (code === 'ABORT_ERR') return new SqlsyncError('INTERRUPTED', 'Interrupted', { cause: error });
  if (code === 'SQLITE_READONLY_ROLLBACK') {
    return new SqlsyncError(
      'ORIGIN_HOT_JOURNAL',
      `Origin ${path} has a hot journal: a program was killed while it wrote`,
      {
        hint: 'Open it once with the application or `sqlite3`: SQLite then rolls the transaction back.',
        cause: error,
      },
    );
  }
  if (
    ['EACCES', 'EPERM', 'SQLITE_CANTOPEN', 'SQLITE_PERM', 'SQLITE_AUTH'].includes(code) ||
    code.startsWith('SQLITE_READONLY')
  ) {
    return new SqlsyncError('ORIGIN_PERMISSION', `Origin ${path} cannot be opened: ${text} (${code})`, {
      hint: 'Allow this user to read the file, its -wal and -shm files, and to enter its folder.',
      cause: error,
    });
  }
  return new SqlsyncError(
    'ORIGIN_UNREADABLE',
    `Origin ${path} cannot be read: ${text}${code === '' ? '' : ` (${code})`}`,
    {
      hint: 'Check it with `sqlite3 FILE "PRAGMA integrity_check"` and the system log for disk errors.',
      cause: error,
    },
  );
}
