import { closeSync, fstatSync, lstatSync, openSync, rmSync } from 'node:fs';
import { SqlsyncError, systemErrorCode } from '../errors.ts';
import { tryExclusiveLock } from '../sqlite/locks/exclusive-lock.ts';
import { userName } from '../files/file-owner.ts';
import { fileBytes } from '../pages/database-file.ts';
import { besideReplica } from './mark.ts';
import { readFully } from '../files/read-fully.ts';

/** The first bytes of a rollback journal (https://www.sqlite.org/fileformat2.html#the_rollback_journal). */
const JOURNAL_MAGIC = Buffer.from('d9d505f920a163d7', 'hex');
const JOURNAL_HEADER_BYTES = 28;

/** A -wal or -journal with content beside a database that does not exist or has 0 bytes. */
export interface Leftover {
  readonly path: string;
  readonly bytes: number;
}

export function findLeftover(path: string): Leftover | undefined {
  for (const suffix of ['-wal', '-journal']) {
    const bytes = fileBytes(path + suffix);
    if (bytes > 0) return { path: path + suffix, bytes };
  }
  return undefined;
}

/**
 * Refuses such a leftover: SQLite would replay it into the new content or delete it, and it may hold the only copy of a
 * user's data.
 */
export function refuseLeftover(path: string, state: 'does not exist' | 'has 0 bytes'): void {
  const leftover = findLeftover(path);
  if (leftover === undefined) return;
  const exists = state === 'does not exist' ? 'does' : 'has not';
  const message = `${path} ${state}, but ${leftover.path} ${exists}, with ${leftover.bytes} bytes`;
  throw new SqlsyncError('REPLICA_LEFTOVER', message, {
    hint: 'SQLite would replay it into the new replica. Remove it if it is not needed, or name another replica.',
  });
}

/**
 * True if a transaction that may have been killed left its journal beside the database of `databaseBytes` bytes; only
 * SQLite knows whether it is hot. Beside 0 bytes, only the journal of a file's first transaction counts, whose recovery
 * leads back to 0 bytes. SQLite deletes any other one, with the only copy of the pages in it. Until such a journal is
 * synced, its magic and its count are zeros.
 */
export function hasJournal(path: string, databaseBytes: number): boolean {
  const journal = readJournal(path);
  return journal !== undefined && isUnfinished(journal, databaseBytes);
}

/**
 * A -wal or -journal whose content cannot belong to a database of 0 bytes: another program cut the database off. Looks
 * once at each file, because the journal of a first transaction comes and goes at any time. Throws the system's errors.
 */
export function findForeignLeftover(path: string): Leftover | undefined {
  const walBytes = fileBytes(`${path}-wal`);
  if (walBytes > 0) return { path: `${path}-wal`, bytes: walBytes };
  const journal = readJournal(path);
  if (journal === undefined || journal.header.length === 0 || isUnfinished(journal, 0)) return undefined;
  return { path: `${path}-journal`, bytes: journal.bytes };
}

interface Journal {
  readonly bytes: number;
  /** At most the first bytes of the file: fewer if it is shorter. */
  readonly header: Buffer;
}

/**
 * Reads the journal beside `path`; undefined without a journal. Trusts what it reads and not the size, since the writer
 * may fill or cut the file at any time. One descriptor stays with one journal, even if the writer removes it.
 */
function readJournal(path: string): Journal | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(`${path}-journal`, 'r');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const header = Buffer.alloc(JOURNAL_HEADER_BYTES);
    const length = readFully(descriptor, header, 0);
    return { bytes: fstatSync(descriptor).size, header: header.subarray(0, length) };
  } finally {
    closeSync(descriptor);
  }
}

function isUnfinished({ header }: Journal, databaseBytes: number): boolean {
  if (header.length < JOURNAL_HEADER_BYTES) return false;
  const isComplete = header.subarray(0, 8).equals(JOURNAL_MAGIC);
  if (databaseBytes > 0) return isComplete;
  const isUnsynced = header.subarray(0, 12).every((byte) => byte === 0);
  const [pagesBefore, sectorBytes] = [header.readUInt32BE(16), header.readUInt32BE(20)];
  return (isComplete || isUnsynced) && pagesBefore === 0 && sectorBytes >= 32;
}

/**
 * Removes a file in the place of a part file or spool that no run can continue from; the caller holds the lock. Throws
 * SqlsyncError REPLICA_LEFTOVER, with the file's owner, if this user may not remove it.
 */
export function removeUnusable(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch (error) {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (stats === undefined) throw error;
    const text = error instanceof Error ? error.message : String(error);
    const kind = stats.isDirectory() ? 'is a folder, ' : '';
    throw new SqlsyncError(
      'REPLICA_LEFTOVER',
      `${path} ${kind}belongs to ${userName(stats.uid)} and cannot be removed: ${text}`,
      {
        hint: `If no other run is under way here, remove it: rm ${kind === '' ? '' : '-r '}${path}`,
        cause: error,
      },
    );
  }
}

/**
 * Removes what killed runs left beside a replica that is now up to date. Leaves what another run uses: that run holds
 * the lock. Never throws: a later run tries again.
 */
export function removeOwnLeftovers(path: string): void {
  const [part, spool, lockPath] = (['-part', '-spool', '-lock'] as const).map((suffix) =>
    besideReplica(path, suffix),
  ) as [string, string, string];
  try {
    const isThere = (name: string): boolean => lstatSync(name, { throwIfNoEntry: false }) !== undefined;
    if (![part, spool, lockPath].some(isThere)) return;
    const lock = tryExclusiveLock(lockPath);
    if (lock === undefined) return;
    try {
      rmSync(part, { force: true });
      rmSync(spool, { force: true });
    } finally {
      lock.release();
    }
  } catch {
    // A later run tries again.
  }
}
