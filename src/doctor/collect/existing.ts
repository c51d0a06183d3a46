import { statSync } from 'node:fs';
import { SqlsyncError, sanitizeText, systemErrorCode } from '../../errors.ts';
import { realPath } from '../../files/path-names.ts';

/** The real path of a regular file. Throws SqlsyncError. */
export function existing(path: string): string {
  let real: string;
  try {
    real = realPath(path);
  } catch (error) {
    throw refusal(path, error);
  }
  if (statSync(real).isFile()) return real;
  throw new SqlsyncError('ORIGIN_NOT_A_DATABASE', `${sanitizeText(path, 200)} is not a regular file`, {
    hint: 'Name the database file itself.',
  });
}

/** The error of sqlsync for an error of the system about the database at `path`. */
export function refusal(path: string, error: unknown): unknown {
  const name = sanitizeText(path, 200);
  switch (systemErrorCode(error)) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new SqlsyncError('ORIGIN_NOT_FOUND', `${name} does not exist`, {
        hint: 'Check how the path is spelled; a relative path begins in the working directory.',
        cause: error,
      });
    case 'EACCES':
    case 'EPERM':
      return new SqlsyncError('ORIGIN_PERMISSION', `${name} may not be read by this user`, {
        hint: 'Run sqlsync doctor as the owner of the database, or as root.',
        cause: error,
      });
    default:
      return error;
  }
}
