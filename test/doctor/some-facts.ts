import type { Facts, FileFacts, LockFacts, ProcessFacts } from '../../src/doctor/facts.ts';

export const A_FILE: FileFacts = {
  bytes: 4096 * 100,
  uid: 1000,
  user: 'app (uid 1000)',
  mode: 0o644,
  isRegular: true,
};

/** The facts of an idle database in WAL mode with which nothing is wrong. */
export const FACTS: Facts = {
  path: '/srv/app.db',
  host: 'db1',
  database: {
    ...A_FILE,
    hardLinks: 1,
    isMountedAlone: false,
    fileSystem: 'ext4',
    isNetwork: false,
    blockBytes: 4096,
    looksRandom: false,
  },
  header: {
    pageSize: 4096,
    pageCount: 100,
    isWal: true,
    autoVacuum: 'none',
    freePages: 0,
    changes: 1,
    sqliteVersion: 3_054_001,
  },
  wal: { isInUse: false, hasFrames: false },
  processes: [],
  locks: [],
  pools: [],
  lookedForMs: 300,
  sight: 'all',
  health: { problems: [] },
  unseen: [],
};

export const HEADER: NonNullable<Facts['header']> = FACTS.header as NonNullable<Facts['header']>;

export function aProcess(pid: number, more: Partial<ProcessFacts> = {}): ProcessFacts {
  return {
    pid,
    command: 'node worker.js',
    isVisible: true,
    hasOtherWal: false,
    hasDeletedFile: false,
    isMapped: false,
    libraries: [],
    isNapping: false,
    ...more,
  };
}

export function aLock(pid: number, name: LockFacts['name'], isExclusive = true): LockFacts {
  return { pid, name, isExclusive, isHeldThroughout: true };
}
