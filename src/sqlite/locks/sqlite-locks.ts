import { locksOn } from './lock-holders.ts';
import type { PosixLock } from './proc-locks.ts';

/**
 * The locks of SQLite by their names: those of the database file (https://www.sqlite.org/lockingv3.html), and those of
 * the wal-index, which lie in the -shm (https://www.sqlite.org/walformat.html#locks). ATTACHED is the lock that every
 * process with an open wal-index holds.
 */
export type SqliteLockName = (typeof DATABASE_LOCKS)[number] | (typeof INDEX_LOCKS)[number];

/** A lock that a process holds. */
export interface SqliteLock {
  readonly pid: number;
  readonly name: SqliteLockName;
  /** True if no other process can hold the lock meanwhile. */
  readonly isExclusive: boolean;
}

/** From the weakest to the strongest: a process that holds one of them holds those before it, too. */
const DATABASE_LOCKS = ['SHARED', 'RESERVED', 'PENDING', 'EXCLUSIVE'] as const;

const PENDING_BYTE = 0x40000000;
const RESERVED_BYTE = PENDING_BYTE + 1;
const FIRST_SHARED_BYTE = PENDING_BYTE + 2;
const LAST_SHARED_BYTE = PENDING_BYTE + 511;

/** In the order of their bytes in the -shm. */
const INDEX_LOCKS = [
  'WRITE',
  'CKPT',
  'RECOVER',
  'READ0',
  'READ1',
  'READ2',
  'READ3',
  'READ4',
  'ATTACHED',
] as const;
const FIRST_INDEX_BYTE = 120;

/**
 * The locks of SQLite on the database at `path` (absolute and real), as one look shows them. Opens neither the database
 * nor its -shm. Empty if the system does not list locks.
 */
export function sqliteLocks(path: string): SqliteLock[] {
  const [ofDatabase, ofIndex] = locksOn(path, `${path}-shm`) as [PosixLock[], PosixLock[]];
  return locksByName(ofDatabase, ofIndex);
}

/** The locks of SQLite among those of a database file and of its -shm. */
export function locksByName(ofDatabase: readonly PosixLock[], ofIndex: readonly PosixLock[]): SqliteLock[] {
  return [...databaseLocks(ofDatabase), ...ofIndex.flatMap(indexLocks)];
}

/** The strongest lock of each process. */
function databaseLocks(locks: readonly PosixLock[]): SqliteLock[] {
  const strongest = new Map<number, SqliteLock>();
  for (const lock of locks) {
    for (const name of databaseLockNames(lock)) {
      const known = strongest.get(lock.processId);
      if (known !== undefined && rank(known.name) >= rank(name)) continue;
      strongest.set(lock.processId, { pid: lock.processId, name, isExclusive: lock.isWrite });
    }
  }
  return [...strongest.values()];
}

function rank(name: SqliteLockName): number {
  return (DATABASE_LOCKS as readonly string[]).indexOf(name);
}

/** A read lock on PENDING alone is a reader that is just coming. */
function databaseLockNames({ isWrite, first, last }: PosixLock): SqliteLockName[] {
  const covers = (from: number, to: number): boolean => first <= to && last >= from;
  const isShared = covers(FIRST_SHARED_BYTE, LAST_SHARED_BYTE);
  if (!isWrite) return isShared ? ['SHARED'] : [];
  return [
    ...(covers(RESERVED_BYTE, RESERVED_BYTE) ? (['RESERVED'] as const) : []),
    ...(covers(PENDING_BYTE, PENDING_BYTE) ? (['PENDING'] as const) : []),
    ...(isShared ? (['EXCLUSIVE'] as const) : []),
  ];
}

function indexLocks({ processId, isWrite, first, last }: PosixLock): SqliteLock[] {
  return INDEX_LOCKS.filter((_, i) => first <= FIRST_INDEX_BYTE + i && last >= FIRST_INDEX_BYTE + i).map(
    (name) => ({ pid: processId, name, isExclusive: isWrite }),
  );
}
