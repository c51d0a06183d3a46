import { constants, accessSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { SqlsyncError, systemErrorCode } from '../errors.ts';

/** DATABASE_UNUSABLE for a file that SQLite could not open, with the reason that the file system shows. */
export function openingError(path: string, create: boolean, cause: unknown): SqlsyncError {
  const code = systemErrorCode(cause) ?? '';
  const [reason, hint] = code === 'SQLITE_NOTADB' ? NOT_A_DATABASE : (obstacle(path, create) ?? UNKNOWN);
  const said = cause instanceof Error ? `${cause.message} (${code})` : code;
  return new SqlsyncError('DATABASE_UNUSABLE', `${path}: ${reason}: ${said}`, { hint, cause });
}

/**
 * Throws DATABASE_UNUSABLE for a file that SQLite has opened for reading only, which it does silently. `access` opens
 * no descriptor: closing one would drop this process's locks on some systems.
 */
export function requireWritable(path: string): void {
  try {
    accessSync(path, constants.W_OK);
  } catch (error) {
    throw new SqlsyncError('DATABASE_UNUSABLE', `${path}: this process may not write the file`, {
      hint: 'Check the owner of the file and its permissions: the pools must be able to write it.',
      cause: error,
    });
  }
}

const NOT_A_DATABASE = ['not a database', 'It is a file of another kind, or it is encrypted.'] as const;

const UNKNOWN = [
  'it could not be opened',
  'Check the permissions of the file and of its folder: SQLite keeps two files beside it. If no database can be opened, ' +
    'build the binding on this machine: `sqlsync build-binding`.',
] as const;

/** The obstacle, and what to do about it; undefined if none is visible. */
function obstacle(path: string, create: boolean): readonly [string, string] | undefined {
  const folder = dirname(path);
  const folderState = stateOf(folder);
  if (folderState === 'denied') return [`no permission for the folder ${folder}`, 'Check the permissions.'];
  if (folderState !== 'folder') return [`the folder ${folder} does not exist`, 'Make the folder first.'];
  const state = stateOf(path);
  if (state === 'folder') return ['it is a folder', 'Give the path of a file.'];
  if (state === 'missing' && !create) {
    return [
      'it does not exist, and `create` is false',
      'Check the path, or let sqlsync create the file with `create`.',
    ];
  }
  if (state === 'denied' || (state === 'file' && !isAllowed(path))) {
    return ['no permission for the file', 'Check the owner of the file and its permissions.'];
  }
  if (isAllowed(folder)) return undefined;
  return [
    `no permission to write in the folder ${folder}`,
    'Check the permissions of the folder: SQLite keeps two files beside a database.',
  ];
}

function stateOf(path: string): 'missing' | 'denied' | 'folder' | 'file' {
  try {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat === undefined) return 'missing';
    return stat.isDirectory() ? 'folder' : 'file';
  } catch (error) {
    // ENOTDIR: a parent of the path is not a folder.
    return systemErrorCode(error) === 'EACCES' ? 'denied' : 'missing';
  }
}

function isAllowed(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
