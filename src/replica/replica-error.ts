import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { sanitizeText, SqlsyncError, systemErrorCode } from '../errors.ts';
import { shortageOf } from '../files/shortage.ts';
import { isBusy } from '../sqlite/busy.ts';
import { WriterThreadLost } from '../sqlite/writer/thread-page-writer.ts';
import { LockFileError } from '../sqlite/locks/lock-file.ts';

/** Error codes of the system and of SQLite for a full disk. */
const NO_ROOM: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT', 'SQLITE_FULL']);

export function isDiskFull(error: unknown): boolean {
  return NO_ROOM.has(systemErrorCode(error) ?? '');
}

/**
 * Asks for a new comparison with a new snapshot: another program changed the replica meanwhile, or it must be written
 * in another way.
 */
export class ReplicaMovedError extends Error {
  constructor(path: string, why = 'was changed by another program during the sync') {
    super(`${path} ${why}`);
    this.name = 'ReplicaMovedError';
  }
}

/** Turns an error of the system or of SQLite on the replica into an error for the user. */
export function replicaError(path: string, error: unknown): Error {
  if (error instanceof SqlsyncError || error instanceof ReplicaMovedError) return error;
  if (error instanceof LockFileError) {
    const { message, hint, isLeftover } = error;
    if (isLeftover) return new SqlsyncError('REPLICA_LEFTOVER', message, { hint, cause: error });
    const why = message.replace(/^The /, 'the ');
    return new SqlsyncError('REPLICA_UNWRITABLE', `Replica ${path} cannot be written: ${why}`, {
      hint,
      cause: error,
    });
  }
  if (error instanceof WriterThreadLost) return writerLost(path, error);
  const code = systemErrorCode(error) ?? '';
  const text = error instanceof Error ? error.message : String(error);
  const shortage = shortageOf(`Replica ${path} cannot be written`, error);
  if (shortage !== undefined) return shortage;
  if (code === 'ABORT_ERR') return new SqlsyncError('INTERRUPTED', 'Interrupted', { cause: error });
  if (code === 'SQLITE_READONLY_DBMOVED') return replicaReplaced(path, error);
  if (isBusy(error)) {
    return new SqlsyncError('BUSY', `Replica ${path} is locked by another program`, {
      hint: 'Nothing was changed. Run sqlsync again when the other program is done, or allow more time with --busy-timeout.',
      cause: error,
    });
  }
  const folder = dirname(path);
  if ((code === 'ENOENT' || code === 'ENOTDIR') && !existsSync(folder)) {
    return new SqlsyncError(
      'REPLICA_UNWRITABLE',
      `Replica ${path} cannot be written: its folder ${folder} does not exist (${code})`,
      { hint: 'Make the folder first.', cause: error },
    );
  }
  if (code === 'ENAMETOOLONG') {
    const shown = sanitizeText(path, 200);
    return new SqlsyncError('REPLICA_UNWRITABLE', `Replica ${shown} has a name that is too long (${code})`, {
      hint: 'Name a shorter path: sqlsync also makes files with longer names beside it, such as .NAME.sqlsync-part.',
      cause: error,
    });
  }
  if (code === 'SQLITE_NOTADB') {
    return new SqlsyncError(
      'REPLICA_NOT_A_DATABASE',
      `Replica ${path} is not an SQLite database, or is encrypted`,
      {
        hint: 'Name another file, or remove it if it is of no use.',
        cause: error,
      },
    );
  }
  return new SqlsyncError(
    'REPLICA_UNWRITABLE',
    `Replica ${path} cannot be written: ${text}${code === '' ? '' : ` (${code})`}`,
    {
      hint: hintFor(code),
      cause: error,
    },
  );
}

function writerLost(path: string, error: WriterThreadLost): SqlsyncError {
  const state = error.mayHaveCommitted ? 'The replica is as it was or an exact copy' : 'Nothing was changed';
  return new SqlsyncError('REPLICA_UNWRITABLE', `Replica ${path} cannot be written: ${error.message}`, {
    hint: `${state}. Check that this host has enough memory, threads and file descriptors, then run sqlsync again.`,
    cause: error,
  });
}

export function replicaReplaced(path: string, cause?: unknown): SqlsyncError {
  return new SqlsyncError('REPLICA_REPLACED', `Another file took the name ${path} during the sync`, {
    hint: 'Nothing was changed. Run sqlsync again if that file is to become the replica.',
    cause,
  });
}

/** A program removed the WAL that SQLite was writing. */
export function walRemoved(path: string): SqlsyncError {
  return new SqlsyncError('REPLICA_REPLACED', `${path}-wal was removed or replaced during the sync`, {
    hint: 'The replica may have lost commits with it, including this one. Run sqlsync again: it repairs the replica.',
  });
}

/** A dry run found the journal of a killed transaction. */
export function needsRecovery(path: string, cause?: unknown): SqlsyncError {
  return new SqlsyncError(
    'REPLICA_UNWRITABLE',
    `Replica ${path} has a hot journal: SQLite must undo the changes of a killed program before it can be read`,
    { hint: 'Run sqlsync without --dry-run: a dry run changes nothing, and so cannot undo them.', cause },
  );
}

function hintFor(code: string): string {
  if (NO_ROOM.has(code)) {
    return 'Free some space: a new replica needs room for the whole database, an existing one for what changed.';
  }
  if (['EACCES', 'EPERM', 'EROFS', 'SQLITE_CANTOPEN'].includes(code) || code.startsWith('SQLITE_READONLY')) {
    return 'Allow this user to write the file and its folder.';
  }
  // The hint does not say "nothing was changed": if the COMMIT itself failed, only SQLite's recovery decides.
  return 'Check the file system and the system log. The replica is as it was or an exact copy: run it again.';
}
