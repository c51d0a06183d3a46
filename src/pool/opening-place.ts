import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { SqlsyncError } from '../errors.ts';
import { realPath } from '../files/path-names.ts';
import { hasOwnJournal, hasSeveralNames, journalByAnotherName } from '../files/file-names.ts';
import { isIndexInUse, lastingReadersByAnotherName } from '../sqlite/locks/lock-holders.ts';
import { isMountedAlone, networkFileSystem } from '../files/mounts.ts';

/**
 * Checks the place of a database before it is opened. Does not open the file: this process may have it open already,
 * and would lose its locks. Throws DATABASE_UNUSABLE on a network file system, and if a program uses the file by
 * another name, so that its commits cannot be found from this one.
 */
export async function checkPlace(
  path: string,
  { allowNetworkFileSystem }: { readonly allowNetworkFileSystem: boolean },
): Promise<void> {
  const real = realPlace(path);
  const type = networkFileSystem(real);
  if (type !== undefined && !allowNetworkFileSystem) {
    throw new SqlsyncError('DATABASE_UNUSABLE', `${path}: it is on a network file system (${type})`, {
      hint: 'WAL needs shared memory, which machines do not share there: use a local disk. If no other machine ever opens the file, set allowNetworkFileSystem.',
    });
  }
  if (existsSync(real)) await checkNames(real);
}

async function checkNames(path: string): Promise<void> {
  const isAlone = isMountedAlone(path);
  if (!isAlone && !hasSeveralNames(path)) return;
  const journal = journalByAnotherName(path);
  if (journal !== undefined) {
    throw usedByAnotherName(path, `${journal.journal} holds changes, beside its other name`, journal.name);
  }
  if ((await lastingReadersByAnotherName(path)).length > 0) {
    throw usedByAnotherName(path, 'another program has it open by another name', 'the name that it uses');
  }
  if (hasOwnJournal(path) || isIndexInUse(path)) return;
  const how = isAlone ? 'is mounted as a single file' : 'has several names (hard links)';
  process.emitWarning(
    `${path} ${how}: a program that opens it by another one does not see the commits of this one, and damages it`,
    { code: 'SQLSYNC_SEVERAL_NAMES' },
  );
}

function usedByAnotherName(path: string, how: string, name: string): SqlsyncError {
  return new SqlsyncError('DATABASE_UNUSABLE', `${path}: ${how}`, {
    hint: `Open it by ${name}: SQLite keeps its -wal file beside the name by which a program opened it.`,
  });
}

/** For a file that does not exist yet, the place in its folder; opening reports what is wrong with the folder. */
function realPlace(path: string): string {
  for (const real of [() => realPath(path), () => join(realPath(dirname(path)), basename(path))]) {
    try {
      return real();
    } catch (error) {
      if (error instanceof SqlsyncError) throw error;
    }
  }
  return path;
}
