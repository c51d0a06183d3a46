import { statSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { sqliteLocks } from '../../sqlite/locks/sqlite-locks.ts';
import type { JournalFacts } from '../facts.ts';
import { fileFacts, journalAt, unreadableBeside } from './files.ts';
import { lookAtIndex } from './wal.ts';

/** True if the file by itself holds the whole database: no writer, no journal, no newer pages in a WAL. */
export function isFileWhole(path: string): boolean {
  if (isBeingWritten(path) || journalAt(path)?.isUnfinished === true) return false;
  if (unreadableBeside(path).includes('-journal')) return false;
  if ((fileFacts(`${path}-wal`)?.bytes ?? 0) === 0) return true;
  // A -shm that no process has open is a leftover, and may be older than the -wal.
  if (!sqliteLocks(path).some(({ name }) => name === 'ATTACHED')) return false;
  const wal = lookAtIndex(path);
  return wal !== undefined && wal.frames === wal.checkpointed;
}

function isBeingWritten(path: string): boolean {
  return sqliteLocks(path).some(({ isExclusive }) => isExclusive);
}

/** A writer that was alive in the first look has its lock, or another journal, in one of these. */
const LOOKS = 4;
const PAUSE_MS = 40;

/** The journal beside `path`, and whether it is hot; undefined if there is none. Throws the system's errors. */
export async function journalFacts(path: string): Promise<JournalFacts | undefined> {
  const journal = journalAt(path);
  if (journal?.isUnfinished !== true) return journal === undefined ? undefined : { ...journal, isHot: false };
  const first = identityOf(path);
  for (let look = 1; look <= LOOKS; look++) {
    if (isBeingWritten(path) || identityOf(path) !== first || journalAt(path)?.isUnfinished !== true)
      return { ...journal, isHot: false };
    await delay(PAUSE_MS);
  }
  return { ...journal, isHot: true };
}

function identityOf(path: string): string {
  const stats = statSync(`${path}-journal`, { throwIfNoEntry: false, bigint: true });
  return stats === undefined ? '' : `${stats.ino} ${stats.size} ${stats.mtimeNs}`;
}
