import { setTimeout as delay } from 'node:timers/promises';
import { nappingThreads } from '../../files/processes.ts';
import { sqliteLocks } from '../../sqlite/locks/sqlite-locks.ts';
import type { SqliteLock } from '../../sqlite/locks/sqlite-locks.ts';
import type { LockFacts } from '../facts.ts';
import { readStart } from './files.ts';
import { isBusyHandler } from './naps.ts';
import { lookAtIndex } from './wal.ts';
import type { WalLook } from './wal.ts';

/** Several looks at locks and naps: what one look shows may have been true for a microsecond. */
export interface Looks {
  readonly locks: readonly LockFacts[];
  readonly firstWal: WalLook | undefined;
  readonly lastWal: WalLook | undefined;
  readonly lookedForMs: number;
  /** True if a thread of the process slept in short naps all the time. */
  isNapping(pid: number): boolean;
}

const LOOKS = 6;
const PAUSE_MS = 60;

/** Where the header has 2 in WAL mode. */
const READ_VERSION_AT = 19;
/** Where the header has the change counter, which grows with each commit in rollback mode. */
const CHANGE_COUNTER_AT = 24;

interface Look {
  readonly locks: readonly SqliteLock[];
  readonly isWal: boolean;
  /** The change counter of the header. */
  readonly counter: string;
  /** Differs after each commit in any mode. */
  readonly commits: string;
  readonly wal: WalLook | undefined;
}

/** Looks `looks` times at the database at `path`; `pids` are the processes that may wait. */
export async function lookSeveralTimes(
  path: string,
  pids: () => Iterable<number>,
  looks: number = LOOKS,
): Promise<Looks> {
  const startedAt = performance.now();
  const all: Look[] = [];
  const naps = new Map<string, number[]>();
  for (let look = 1; look <= looks; look++) {
    if (look > 1) await delay(PAUSE_MS);
    all.push(lookOnce(path));
    for (const pid of pids())
      for (const { thread, sleeps } of nappingThreads(pid)) {
        const key = `${pid}/${thread}`;
        naps.set(key, [...(naps.get(key) ?? []), sleeps]);
      }
  }
  const lookedForMs = Math.round(performance.now() - startedAt);
  const isNap = (sleeps: readonly number[]): boolean =>
    sleeps.length >= looks - 1 && isBusyHandler((sleeps.at(-1) ?? 0) - (sleeps[0] ?? 0), lookedForMs);
  const napping = new Set(
    [...naps].filter(([, sleeps]) => isNap(sleeps)).map(([key]) => Number(key.split('/')[0])),
  );
  return {
    locks: summaryOf(all),
    firstWal: all[0]?.wal,
    lastWal: all.at(-1)?.wal,
    lookedForMs,
    isNapping: (pid) => napping.has(pid),
  };
}

/** Opens the database and its -shm for an instant. */
function lookOnce(path: string): Look {
  const header = readStart(path, CHANGE_COUNTER_AT + 4);
  const counter = header?.subarray(CHANGE_COUNTER_AT).toString('hex') ?? '';
  const isWal = header?.[READ_VERSION_AT] === 2;
  const wal = lookAtIndex(path);
  return {
    locks: sqliteLocks(path),
    isWal,
    wal,
    counter,
    commits: `${counter} ${wal?.index ?? ''} ${wal?.commits ?? ''}`,
  };
}

/** The locks of the last look, each with whether it was held all the time. */
function summaryOf(looks: readonly Look[]): LockFacts[] {
  return (looks.at(-1)?.locks ?? []).map((lock) => ({
    pid: lock.pid,
    name: lock.name,
    isExclusive: lock.isExclusive,
    isHeldThroughout:
      looks.length > 1 &&
      looks.every(({ locks }) =>
        locks.some(
          ({ pid, name, isExclusive }) =>
            pid === lock.pid && name === lock.name && isExclusive === lock.isExclusive,
        ),
      ) &&
      isOneHold(lock, looks),
  }));
}

/**
 * False if the process may have given up the lock between two looks that showed it. A commit ends the hold of a writer.
 * A reader keeps its read mark, which a later reader of the slot moves to the newest commit.
 */
function isOneHold({ name, isExclusive }: SqliteLock, looks: readonly Look[]): boolean {
  const isSame = (of: (look: Look) => unknown): boolean => new Set(looks.map(of)).size === 1;
  switch (name) {
    case 'WRITE':
    case 'RESERVED':
    case 'PENDING':
      return isSame(({ commits }) => commits);
    case 'EXCLUSIVE':
      // In WAL mode only locking_mode=EXCLUSIVE holds it for longer than an instant, and commits go on meanwhile. In
      // rollback mode that setting keeps SQLite from counting its commits.
      return looks.every(({ isWal }) => isWal) || isSame(({ counter }) => counter);
    case 'READ0':
      // Its readers stop each checkpoint.
      return isExclusive || isSame(({ wal }) => wal?.checkpointed);
    case 'READ1':
    case 'READ2':
    case 'READ3':
    case 'READ4':
      return isExclusive || isSame(({ wal }) => wal?.readMarks[Number(name.slice(-1))]);
    default:
      return true;
  }
}
