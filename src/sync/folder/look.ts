import { closeSync, constants, fstatSync, openSync, statSync } from 'node:fs';
import { hasJournal } from '../../beside/leftovers.ts';
import type { Mount } from '../../files/mounts.ts';
import { mounts, timesEveryWrite } from '../../files/mounts.ts';
import { readFully } from '../../files/read-fully.ts';
import { StampTaker } from '../../pages/database-stamp.ts';
import { HEADER_BYTES, parseHeader } from '../../pages/header.ts';
import { DatabaseReader } from '../../sqlite/database-reader.ts';
import { LockTable } from '../../sqlite/locks/lock-holders.ts';

/** What a look at a database shows. */
export interface Look {
  /** To compare with a stamp that was kept; see `StampTaker.compare`. */
  readonly stamp: Uint8Array;
  /** Bytes. */
  readonly pageSize: number;
  readonly pageCount: number;
}

/**
 * Looks at many databases, to tell which are as they were: each look gives the stamp that a sync of that database alone
 * would compare. It writes nothing to the disk, and opens only databases whose -wal has content. This process must have
 * none of them open: closing a descriptor drops its locks. Use a new one after a second or so, because it reads the locks
 * and mounts of the system once.
 */
export class Looker {
  // The locks come first: a database that no process had open then, and that is as it was later, was so at that moment.
  readonly #locks = new LockTable();
  readonly #mounts: readonly Mount[] = mounts();

  /** `path` is absolute and real. Undefined if nothing can prove that the database is as it was. Never throws. */
  look(path: string): Look | undefined {
    try {
      if (!timesEveryWrite(path, this.#mounts)) return undefined;
      // Only SQLite knows whether a journal is hot.
      if (hasJournal(path, statSync(path).size)) return undefined;
      return this.#look(path);
    } catch {
      return undefined;
    }
  }

  #look(path: string): Look | undefined {
    // As in a list, another program may have put a link or a pipe there.
    const descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const taker = new StampTaker(path, descriptor);
      const start = Buffer.alloc(HEADER_BYTES);
      readFully(descriptor, start, 0);
      const header = parseHeader(start);
      if (header === undefined || (header.wal && this.#locks.mayBeReadByAnotherName(path))) return undefined;
      const stamp = taker.compareUnopened();
      if (stamp === undefined) return attachedLook(path, taker);
      const { pageSize } = header;
      const pageCount = header.pageCount ?? Math.floor(fstatSync(descriptor).size / pageSize);
      return { stamp, pageSize, pageCount };
    } finally {
      closeSync(descriptor);
    }
  }
}

/** For a database whose -wal has content: only SQLite can tell what counts in it. Throws the errors of SQLite. */
function attachedLook(path: string, taker: StampTaker): Look | undefined {
  const isThere = (suffix: string): boolean =>
    statSync(path + suffix, { throwIfNoEntry: false }) !== undefined;
  // SQLite would make the -shm anew, perhaps as another user than the application's.
  if (!isThere('-wal') || !isThere('-shm')) return undefined;
  const reader = new DatabaseReader(path);
  try {
    reader.attach();
    taker.attached();
    const { pageSize, pageCount } = reader.begin();
    const stamp = taker.compare();
    return stamp && { stamp, pageSize, pageCount };
  } finally {
    reader.close();
    taker.close();
  }
}
