import {
  closeSync,
  constants,
  fsyncSync,
  lstatSync,
  openSync,
  readFileSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { switchJournalMode } from '../sqlite/backup-copy.ts';
import { isBusy } from '../sqlite/busy.ts';
import { tryExclusiveLock } from '../sqlite/locks/exclusive-lock.ts';
import { isOwn } from '../files/file-owner.ts';
import { inodeAt, inspectDatabase } from '../pages/database-file.ts';
import { besideReplica, syncFolder } from './mark.ts';

/** An inode is a number. */
const MAX_BYTES = 32;

/**
 * Notes durably that the replica at `path` is in WAL mode: its page size can be changed in rollback mode only, and a
 * run that is killed before it is back in WAL mode must not leave it so. To be called with the replica's lock held.
 */
export function recordWal(path: string): void {
  const recordPath = besideReplica(path, '-mode');
  rmSync(recordPath, { force: true });
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
  const descriptor = openSync(recordPath, flags, 0o600);
  try {
    writeSync(descriptor, inodeAt(path) ?? '');
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
  syncFolder(path);
}

/** True where a run recorded WAL mode for the very file at `path`, and did not come to remove its record. */
export function hasWalRecord(path: string): boolean {
  const recordPath = besideReplica(path, '-mode');
  const stats = lstatSync(recordPath, { throwIfNoEntry: false });
  if (stats?.isFile() !== true || stats.nlink !== 1 || stats.size > MAX_BYTES || !isOwn(stats.uid))
    return false;
  return readFileSync(recordPath, 'utf8') === inodeAt(path);
}

/** Never throws: a record that stays is removed by the next run. */
export function removeWalRecord(path: string): void {
  try {
    rmSync(besideReplica(path, '-mode'), { force: true });
  } catch {
    // See above.
  }
}

/**
 * Puts a replica back into WAL mode that a killed run left in rollback mode. Returns true where it did. Another run
 * that holds the lock, and a program that has the replica open, leave that to a later run.
 */
export function restoreWal(path: string): boolean {
  if (lstatSync(besideReplica(path, '-mode'), { throwIfNoEntry: false }) === undefined) return false;
  const lock = tryExclusiveLock(besideReplica(path, '-lock'));
  if (lock === undefined) return false;
  try {
    const isLeft = hasWalRecord(path) && inspectDatabase(path)?.header?.wal === false;
    if (isLeft) switchJournalMode(path, 'wal');
    removeWalRecord(path);
    return isLeft;
  } catch (error) {
    if (isBusy(error)) return false;
    throw error;
  } finally {
    lock.release();
  }
}
