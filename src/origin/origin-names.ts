import { SqlsyncError } from '../errors.ts';
import { hasOwnJournal, journalByAnotherName } from '../files/file-names.ts';
import { isIndexInUse, lastingReadersByAnotherName } from '../sqlite/locks/lock-holders.ts';
import { isMountedAlone } from '../files/mounts.ts';
import type { DatabaseFile } from '../pages/database-file.ts';

/** What sqlsync found out from the names of an origin's file. */
export interface OriginNames {
  /** What the user should know, one sentence each. */
  readonly warnings: readonly string[];
  /** No process uses this name, and the file has another name: a program may write it by that name while we read. */
  readonly mayBeWrittenByAnotherName: boolean;
}

/**
 * SQLite keeps the changes that are not yet in the file (-wal, -journal) beside the name by which a program opened it.
 * If a file has several names (hard links, a file mounted alone), some commits may lie beside another name. Throws
 * ORIGIN_ALIAS if that is certain, and returns a warning if it is possible. Call it before the database is opened,
 * because opening makes files beside this name.
 */
export async function checkOriginNames({ path, stats, header }: DatabaseFile): Promise<OriginNames> {
  const isWal = header?.wal === true;
  if (isWal) await refuseOtherReaders(path);
  const isMounted = isMountedAlone(path);
  const quiet = { warnings: [], mayBeWrittenByAnotherName: false };
  if (stats.nlink < 2 && !isMounted) return quiet;
  const hasJournal = hasOwnJournal(path);
  const elsewhere = journalByAnotherName(path);
  if (elsewhere !== undefined) {
    throw new SqlsyncError(
      'ORIGIN_ALIAS',
      `Origin ${path} has the other name ${elsewhere.name}, beside which ${elsewhere.journal} holds changes that this name does not lead to`,
      {
        hint: hasJournal
          ? 'Both names have changes of their own. Find out which name the application uses, open the database once by that name with the application or `sqlite3`, and remove the other name with its files.'
          : `Name ${elsewhere.name} instead.`,
      },
    );
  }
  if (hasJournal || (isWal && isIndexInUse(path))) return quiet;
  if (isMounted && isWal) {
    throw new SqlsyncError(
      'ORIGIN_ALIAS',
      `Origin ${path} is in WAL mode and mounted as a single file, so that the -wal file with its newest commits stays outside`,
      { hint: 'Mount the folder of the database, and name the database in it.' },
    );
  }
  const how = isMounted ? 'is mounted as a single file' : `has ${stats.nlink} names (hard links)`;
  const warning = `${path} ${how}. Changes that a program made by another name may be missing, since SQLite keeps its ${isWal ? '-wal' : '-journal'} file beside the name that the program uses: name that one.`;
  return { warnings: [warning], mayBeWrittenByAnotherName: true };
}

async function refuseOtherReaders(path: string): Promise<void> {
  const readers = await lastingReadersByAnotherName(path);
  if (readers.length === 0) return;
  throw new SqlsyncError(
    'ORIGIN_ALIAS',
    `Origin ${path} is open in process ${readers.join(', ')} by another name, or its -wal file was removed: commits are kept in a -wal file that this name does not lead to`,
    {
      hint: 'Name the database as that program does (`ls -l /proc/PID/fd` shows it), not a hard link or a single mounted file. After a -wal file was removed, end the program.',
    },
  );
}
