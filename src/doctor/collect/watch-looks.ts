import { statSync } from 'node:fs';
import { sanitizeText, SqlsyncError } from '../../errors.ts';
import { nappingThreads, processInfo } from '../../files/processes.ts';
import type { HeaderFacts, LockName } from '../facts.ts';
import type { Reader, WatchLook } from '../watch/log.ts';
import { existing, refusal } from './existing.ts';
import { isBusyHandler } from './naps.ts';
import { fileFacts, headerFacts } from './files.ts';
import { LockLooks } from './lock-looks.ts';
import { processesWith } from './processes.ts';
import { sightOn } from './sight.ts';
import { lookAtIndex } from './wal.ts';
import type { WalLook } from './wal.ts';

/** A look at all processes of the system takes milliseconds, or with thousands of them seconds. */
const PROCESSES_EVERY_MS = 5000;
/** The busy handler of SQLite sleeps 100 ms at most. */
const NAPS_EVERY_MS = 250;

const WRITER_LOCKS = new Set(['WRITE', 'RESERVED', 'PENDING', 'EXCLUSIVE']);

/** The readers in one look: each READ lock of the wal-index, or SHARED in rollback mode. */
export function readersOf(
  locks: readonly { pid: number; name: LockName; isExclusive: boolean }[],
  { isWal, wal }: { isWal: boolean; wal: Omit<WalLook, 'index'> | undefined },
): Reader[] {
  return locks
    .filter(({ name, isExclusive }) => !isExclusive && (isWal ? name.startsWith('READ') : name === 'SHARED'))
    .map(({ pid, name }) => {
      const slot = Number(name.slice(-1));
      // The readers of slot 0 read the file alone, up to the frames that are in it.
      const frame =
        !isWal || wal === undefined ? undefined : slot === 0 ? wal.checkpointed : wal.readMarks[slot];
      const isPinning = typeof frame === 'number' && frame < (wal?.frames ?? 0);
      return { pid, reads: `${name}@${frame ?? ''}`, isPinning };
    });
}

export function walOf({ commits, index, frames, checkpointed }: WalLook): NonNullable<WatchLook['wal']> {
  return { commits, index, frames, checkpointed };
}

/** In milliseconds since 1970; goes on evenly when the clock of the system is set. */
export function nowOnSteadyClock(): number {
  return Math.round(performance.timeOrigin + performance.now());
}

/**
 * Looks at a database again and again. A look takes the longer the more locks and processes the system has. Only for a
 * process that has no connection to this database.
 */
export class WatchLooks {
  readonly #path: string;
  /** The file that had the name at first. */
  readonly #file: string;
  /** What this process cannot see, one sentence each. */
  readonly limits: readonly string[];
  readonly #locks: LockLooks;
  #pids: number[] = [];
  #processesAtMs = -Infinity;
  #napsAtMs = -Infinity;
  #sleeps = new Map<string, number>();
  #napping: number[] = [];

  /** Throws SqlsyncError ORIGIN_*. */
  constructor(path: string) {
    this.#path = existing(path);
    this.#locks = new LockLooks(this.#path);
    this.#file = this.#identity();
    this.#header();
    this.limits = [
      ...sightOn(this.#path).limits,
      ...(process.getuid?.() === 0
        ? []
        : ['Who waits is seen only of the processes of this user (run doctor as root).']),
    ];
  }

  /** Throws SqlsyncError ORIGIN_*. */
  look(): WatchLook {
    if (this.#identity() !== this.#file)
      throw new SqlsyncError(
        'ORIGIN_REPLACED',
        `${sanitizeText(this.#path, 200)} was deleted, or replaced by another file`,
        {
          hint: 'Programs may still have the old file open: run sqlsync doctor without --watch.',
        },
      );
    const nowMs = performance.now();
    if (nowMs - this.#processesAtMs >= PROCESSES_EVERY_MS) {
      this.#processesAtMs = nowMs;
      this.#pids = [...processesWith(this.#path).open.keys()];
    }
    const locks = this.#locks.look(this.#pids).filter(({ pid }) => pid !== process.pid);
    const pids = new Set([...this.#pids, ...locks.map(({ pid }) => pid)]);
    if (nowMs - this.#napsAtMs >= NAPS_EVERY_MS) this.#lookAtNaps(pids, nowMs);
    const writer = locks.find(({ name, isExclusive }) => isExclusive && WRITER_LOCKS.has(name))?.pid;
    const wal = locks.some(({ name }) => name === 'ATTACHED') ? lookAtIndex(this.#path) : undefined;
    const header = this.#header();
    return {
      atMs: nowOnSteadyClock(),
      ...(writer === undefined ? {} : { writer }),
      waiting: writer === undefined ? [] : this.#napping.filter((pid) => pid !== writer),
      readers: readersOf(locks, { isWal: header?.isWal === true, wal }).filter(({ pid }) => pid !== writer),
      ...(wal === undefined ? {} : { wal: walOf(wal) }),
      ...(header === undefined || header.isWal ? {} : { changes: header.changes }),
      walBytes: fileFacts(`${this.#path}-wal`)?.bytes ?? 0,
      pageSize: header?.pageSize ?? 4096,
    };
  }

  /** What the next look costs, in milliseconds, if it has to read a long list of locks; else 0. */
  get longListMs(): number {
    return this.#locks.longListMs;
  }

  /** The command line of a process, '' if it is gone, and when it started. */
  process(pid: number): { readonly command: string; readonly startedAtMs: number | undefined } {
    const info = processInfo(pid);
    return { command: info?.command ?? '', startedAtMs: info?.startedAtMs };
  }

  /** Throws SqlsyncError ORIGIN_*. */
  #header(): HeaderFacts | undefined {
    try {
      return headerFacts(this.#path);
    } catch (error) {
      throw refusal(this.#path, error);
    }
  }

  #identity(): string {
    const stats = statSync(this.#path, { throwIfNoEntry: false, bigint: true });
    return `${stats?.dev}:${stats?.ino}`;
  }

  #lookAtNaps(pids: ReadonlySet<number>, nowMs: number): void {
    const forMs = nowMs - this.#napsAtMs;
    this.#napsAtMs = nowMs;
    const sleeps = new Map<string, number>();
    const napping = new Set<number>();
    for (const pid of pids)
      for (const { thread, sleeps: count } of nappingThreads(pid)) {
        const key = `${pid}/${thread}`;
        sleeps.set(key, count);
        if (isBusyHandler(count - (this.#sleeps.get(key) ?? count), forMs)) napping.add(pid);
      }
    this.#sleeps = sleeps;
    this.#napping = [...napping];
  }
}
