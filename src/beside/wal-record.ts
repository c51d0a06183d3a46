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
import { syncFolder } from '../files/durable.ts';
import { besideReplica } from './mark.ts';

/** An inode is a number. */
const MAX_BYTES = 32;

/**
 * Records durably that the replica at `path` is in WAL mode. Its page size can only change in rollback mode, and a run
 * that is killed meanwhile must not leave it there. The caller holds the replica's lock.
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

/** True if a run recorded WAL mode for the very file at `path`, and has not removed the record. */
export function hasWalRecord(path: string): boolean {
  const recordPath = besideReplica(path, '-mode');
  const stats = lstatSync(recordPath, { throwIfNoEntry: false });
  if (stats?.isFile() !== true || stats.nlink !== 1 || stats.size > MAX_BYTES || !isOwn(stats.uid))
    return false;
  return readFileSync(recordPath, 'utf8') === inodeAt(path);
}

/** Never throws: the next run removes a record that stays. */
export function removeWalRecord(path: string): void {
  try {
    rmSync(besideReplica(path, '-mode'), { force: true });
  } catch {
    // The next run removes it.
  }
}

/**
 * Puts a replica that a killed run left in rollback mode back into WAL mode. Returns true if it did so. If another run
 * holds the lock, or a program has the replica open, it leaves that to a later run.
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
