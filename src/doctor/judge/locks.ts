import type { Facts } from '../facts.ts';
import type { Finding } from '../finding.ts';
import {
  finding,
  holdersOf,
  locksNamed,
  mayUseWal,
  processInWords,
  processOf,
  processesInWords,
} from './words.ts';

/** The locks of which a database has one: who holds one is its writer. */
const WRITER_LOCKS = ['WRITE', 'RESERVED', 'PENDING', 'EXCLUSIVE'] as const;
const READER_LOCKS = ['READ0', 'READ1', 'READ2', 'READ3', 'READ4'] as const;

/** Who blocks whom. */
export function judgeLocks(facts: Facts): Finding[] {
  return [
    ...stopped(facts),
    ...exclusive(facts),
    ...checkpointWaits(facts),
    ...writerWaitsForReaders(facts),
    ...writer(facts),
  ];
}

/** The processes that wait for the writer's lock: pools say so, and SQLite's busy handler sleeps in naps. */
export function waitersOf(facts: Facts): number[] {
  const holders = new Set(holdersOf(facts, WRITER_LOCKS, true));
  if (holders.size === 0) return [];
  return facts.processes
    .filter(({ pid, isNapping }) => (isNapping || poolWaits(facts, pid)) && !holders.has(pid))
    .map(({ pid }) => pid);
}

/** True if the process says that its pools wait for another process. */
export function poolWaits({ pools }: Facts, pid: number): boolean {
  return pools.some((pool) => pool.pid === pid && pool.writer === undefined && pool.waitingCount > 0);
}

/** In rollback mode every lock keeps somebody waiting; in WAL mode each idle connection has SHARED. */
function stopped(facts: Facts): Finding[] {
  const names = [
    ...WRITER_LOCKS,
    ...READER_LOCKS,
    'CKPT' as const,
    'RECOVER' as const,
    ...(facts.wal.isInUse ? [] : (['SHARED'] as const)),
  ];
  return holdersOf(facts, names, true)
    .filter((pid) => processOf(facts, pid)?.state === 'T')
    .map((pid) => {
      const held = locksNamed(facts, names, true).filter((lock) => lock.pid === pid);
      return finding(
        'blocked',
        'holder-stopped',
        `${processInWords(facts, pid)} is stopped, and holds ${held.map(({ name }) => name).join(', ')}`,
        {
          meaning:
            'A stopped process keeps its locks for ever: those who need them wait until it goes on or ends.',
          mend: `kill -CONT ${pid}`,
        },
      );
    });
}

function exclusive(facts: Facts): Finding[] {
  return holdersOf(facts, ['EXCLUSIVE'], true).map((pid) =>
    finding('blocked', 'exclusive', `${processInWords(facts, pid)} holds the whole database (EXCLUSIVE)`, {
      meaning: `No other process can read or write.${waiting(facts)}`,
      mend: 'In that program: PRAGMA locking_mode = NORMAL, then read once; or end its transaction (BEGIN EXCLUSIVE, or a commit that takes long).',
    }),
  );
}

/** FULL, RESTART and TRUNCATE wait for readers while they hold the writer's lock. */
function checkpointWaits(facts: Facts): Finding[] {
  const pid = checkpointer(facts);
  if (pid === undefined) return [];
  const readers = holdersOf(facts, READER_LOCKS, true).filter((reader) => reader !== pid);
  if (readers.length === 0) return [];
  return [
    finding(
      'blocked',
      'checkpoint-waits',
      `A checkpoint of ${processInWords(facts, pid)} waits for readers, and holds the writer's lock meanwhile`,
      {
        meaning: `wal_checkpoint(FULL, RESTART or TRUNCATE) waits for ${processesInWords(facts, readers)}; no one can write until then.`,
        mend: 'In that program: PRAGMA wal_checkpoint(PASSIVE), or PRAGMA busy_timeout = 0 before the checkpoint; and end the read transactions.',
      },
    ),
  ];
}

function checkpointer(facts: Facts): number | undefined {
  const writers = holdersOf(facts, ['WRITE'], true);
  return holdersOf(facts, ['CKPT'], true).find((pid) => writers.includes(pid));
}

function writerWaitsForReaders(facts: Facts): Finding[] {
  return holdersOf(facts, ['PENDING'], true).map((pid) => {
    const readers = holdersOf(facts, ['SHARED'], true).filter((reader) => reader !== pid);
    return finding(
      'blocked',
      'readers-block-writer',
      `${processInWords(facts, pid)} wants to commit, and waits for readers`,
      {
        meaning: `In rollback mode a commit waits until no one reads, and meanwhile no new reader may begin. It waits for ${readers.length === 0 ? 'readers that were not seen' : processesInWords(facts, readers)}.`,
        mend: `End the read transactions (also statements that were not read to their end)${mayUseWal(facts) ? '; or use WAL mode, where readers and writers do not wait for each other' : ''}.`,
      },
    );
  });
}

function writer(facts: Facts): Finding[] {
  return holdersOf(facts, ['WRITE', 'RESERVED'], true)
    .filter((pid) => pid !== checkpointer(facts))
    .map((pid) => {
      const waiters = waitersOf(facts);
      const how = `for all of the ${facts.lookedForMs} ms that doctor looked, and committed nothing`;
      return finding(
        waiters.length > 0 ? 'blocked' : 'advice',
        'write-lock-held',
        `${processInWords(facts, pid)} holds the writer's lock`,
        {
          meaning: `It held the lock ${how}. Other writers wait, and get "database is locked" when their busy_timeout is over.${waiting(facts)}`,
          mend: 'Do in a transaction only what belongs to the database: no requests, no waiting for users. Bulk work commits about once a second (`write.bulk` of the pools).',
        },
      );
    });
}

function waiting(facts: Facts): string {
  const waiters = waitersOf(facts);
  if (waiters.length === 0) return '';
  const wait = waiters.length === 1 ? 'waits' : 'wait';
  const probably = waiters.every((pid) => poolWaits(facts, pid)) ? '' : 'Probably ';
  return ` ${probably}${processesInWords(facts, waiters)} ${wait} for it.`;
}
