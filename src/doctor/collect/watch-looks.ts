import { realPath } from '../../files/path-names.ts';
import { nappingThreads, processInfo } from '../../files/processes.ts';
import { sqliteLocks } from '../../sqlite/locks/sqlite-locks.ts';
import type { WatchLook } from '../watch/log.ts';
import { fileFacts, headerFacts } from './files.ts';
import { processesWith } from './processes.ts';
import { lookAtIndex } from './wal.ts';

/** A look at all processes of the system takes some milliseconds. */
const PROCESSES_EVERY_MS = 5000;
/** The busy handler of SQLite sleeps 100 ms at most. */
const NAPS_EVERY_MS = 250;

const WRITER_LOCKS = new Set(['WRITE', 'RESERVED', 'PENDING', 'EXCLUSIVE']);
const LEAST_NAPS = 2;

/**
 * Looks at a database again and again, each time in well under a millisecond. Only for a process that has no connection
 * to this database.
 */
export class WatchLooks {
  readonly #path: string;
  readonly #pageSize: number;
  readonly #isWal: boolean;
  #pids: number[] = [];
  #processesAtMs = -Infinity;
  #napsAtMs = -Infinity;
  #sleeps = new Map<string, number>();
  #napping: number[] = [];

  /** Throws the system's errors if there is no such file. */
  constructor(path: string) {
    this.#path = realPath(path);
    const header = headerFacts(this.#path);
    this.#pageSize = header?.pageSize ?? 4096;
    this.#isWal = header?.isWal === true;
  }

  look(): WatchLook {
    const nowMs = performance.now();
    const locks = sqliteLocks(this.#path).filter(({ pid }) => pid !== process.pid);
    if (nowMs - this.#processesAtMs >= PROCESSES_EVERY_MS) {
      this.#processesAtMs = nowMs;
      this.#pids = [...processesWith(this.#path).open.keys()];
    }
    const pids = new Set([...this.#pids, ...locks.map(({ pid }) => pid)]);
    if (nowMs - this.#napsAtMs >= NAPS_EVERY_MS) this.#lookAtNaps(pids, nowMs);
    const writer = locks.find(({ name, isExclusive }) => isExclusive && WRITER_LOCKS.has(name))?.pid;
    const isReading = (name: string): boolean => (this.#isWal ? name.startsWith('READ') : name === 'SHARED');
    const readers = locks
      .filter(({ name, isExclusive }) => !isExclusive && isReading(name))
      .map(({ pid }) => pid);
    const wal = locks.some(({ name }) => name === 'ATTACHED') ? lookAtIndex(this.#path) : undefined;
    return {
      atMs: Date.now(),
      ...(writer === undefined ? {} : { writer }),
      waiting: writer === undefined ? [] : this.#napping.filter((pid) => pid !== writer),
      readers: [...new Set(readers)].filter((pid) => pid !== writer),
      ...(wal === undefined
        ? {}
        : { wal: { commits: wal.commits, frames: wal.frames, checkpointed: wal.checkpointed } }),
      walBytes: fileFacts(`${this.#path}-wal`)?.bytes ?? 0,
      pageSize: this.#pageSize,
    };
  }

  /** The command line of a process; '' if it is gone. */
  commandOf(pid: number): string {
    return processInfo(pid)?.command ?? '';
  }

  #lookAtNaps(pids: ReadonlySet<number>, nowMs: number): void {
    this.#napsAtMs = nowMs;
    const sleeps = new Map<string, number>();
    const napping = new Set<number>();
    for (const pid of pids)
      for (const { thread, sleeps: count } of nappingThreads(pid)) {
        const key = `${pid}/${thread}`;
        sleeps.set(key, count);
        if (count - (this.#sleeps.get(key) ?? count) >= LEAST_NAPS) napping.add(pid);
      }
    this.#sleeps = sleeps;
    this.#napping = [...napping];
  }
}
