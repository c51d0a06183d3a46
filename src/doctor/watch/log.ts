import { sanitizeLine, SqlsyncError } from '../../errors.ts';
import type { CommitCount } from './commits.ts';

/** What one look shows while a database is watched. */
export interface WatchLook {
  /** In milliseconds since 1970, on a clock that is never set. */
  readonly atMs: number;
  /** Who holds the writer's lock. */
  readonly writer?: number | undefined;
  /** Who probably waits for it. */
  readonly waiting: readonly number[];
  /** Who reads in a transaction. */
  readonly readers: readonly Reader[];
  /** The state of the WAL; undefined in rollback mode, or if no program has it open. */
  readonly wal?: (CommitCount & { readonly frames: number; readonly checkpointed: number }) | undefined;
  /** The change counter of a database in rollback mode, which grows with each commit. */
  readonly changes?: number | undefined;
  readonly walBytes: number;
  readonly pageSize: number;
}

/** A process that reads in a transaction. */
export interface Reader {
  readonly pid: number;
  /** The state of the database that it reads, as far as it shows: a transaction keeps it to its end. */
  readonly reads: string;
  /** True if the WAL has newer frames, which it keeps from being checkpointed. */
  readonly isPinning: boolean;
}

/** A time that a process held the writer's lock without a commit, as far as looks can tell. */
export interface Hold {
  readonly pid: number;
  /** When it was first seen, in milliseconds since 1970. */
  readonly sinceMs: number;
  readonly forMs: number;
  /** The most processes that waited meanwhile. */
  readonly waiting: number;
}

/** What happened in one interval; a line of a record. */
export interface WatchSample {
  readonly type: 'sample';
  readonly atMs: number;
  readonly forMs: number;
  readonly looks: number;
  /** In how many looks each process held the writer's lock. */
  readonly heldLooks: Readonly<Record<string, number>>;
  /** In how many looks each process waited. */
  readonly waitedLooks: Readonly<Record<string, number>>;
  /** Holds that ended in the interval. One that a single look saw has 0 ms. */
  readonly holds: readonly Hold[];
  /** The hold that goes on. */
  readonly holder?: Hold | undefined;
  readonly waiting: readonly number[];
  /** The readers now, for how long each has been seen to read the same state, and whether the WAL has a newer one. */
  readonly readers: readonly { readonly pid: number; readonly forMs: number; readonly isPinning: boolean }[];
  /** Undefined if no program has the database in WAL mode open. */
  readonly commits?: number | undefined;
  readonly checkpoints: number;
  /** Bytes that commits added to the WAL. */
  readonly walBytesWritten: number;
  readonly walBytes: number;
}

export interface WatchStart {
  readonly type: 'watch';
  readonly format: 1;
  readonly path: string;
  readonly host: string;
  readonly atMs: number;
  /** What could not be seen, and why, one sentence each. */
  readonly unseen: readonly string[];
}

export interface WatchProcess {
  readonly type: 'process';
  readonly pid: number;
  readonly command: string;
  /** Tells it from another process that had its number; missing if it was gone when it was asked for. */
  readonly startedAtMs?: number | undefined;
}

export type WatchLine = WatchStart | WatchProcess | WatchSample;

/** The lines of a record. A last line without its end was being written. Throws SqlsyncError USAGE. */
export function readRecord(text: string, name: string): WatchLine[] {
  return [...readLines(text.split('\n').slice(0, -1), name)];
}

/** The same for lines that come one by one. Throws SqlsyncError USAGE. */
export function* readLines(texts: Iterable<string>, name: string): Generator<WatchLine> {
  let number = 0;
  for (const text of texts) {
    number++;
    if (text === '') continue;
    let line: WatchLine;
    try {
      line = checked(JSON.parse(text) as WatchLine);
    } catch (error) {
      throw noRecord(name, `line ${number} cannot be read`, error);
    }
    if (number === 1 && line.type !== 'watch') throw noRecord(name, 'its first line is not that of a record');
    yield line;
  }
  if (number === 0) throw noRecord(name, 'it is empty');
}

function checked(line: WatchLine): WatchLine {
  if (line.type === 'watch') {
    if (line.format !== 1) throw new Error(`format ${String(line.format)} is unknown`);
    const unseen = line.unseen.map((each) => sanitizeLine(each));
    return { ...line, path: sanitizeLine(line.path), host: sanitizeLine(line.host), unseen };
  }
  if (line.type === 'process') return { ...line, command: sanitizeLine(line.command, 1000) };
  const numbers = [line.atMs, line.forMs, line.looks, line.walBytes, line.checkpoints, line.walBytesWritten];
  const holds = [...line.holds, ...(line.holder === undefined ? [] : [line.holder])];
  const isSample =
    line.type === 'sample' &&
    [...numbers, ...holds.flatMap((hold) => [hold.pid, hold.sinceMs, hold.forMs, hold.waiting])].every(
      Number.isFinite,
    ) &&
    [...Object.values(line.heldLooks), ...Object.values(line.waitedLooks)].every(Number.isFinite) &&
    line.readers.every(({ pid, forMs }) => Number.isFinite(pid) && Number.isFinite(forMs)) &&
    line.waiting.every(Number.isFinite) &&
    (line.commits === undefined || Number.isFinite(line.commits));
  if (!isSample) throw new Error('it is no sample');
  return line;
}

function noRecord(name: string, why: string, cause?: unknown): SqlsyncError {
  return new SqlsyncError('USAGE', `${sanitizeLine(name, 200)} is no record of sqlsync doctor: ${why}`, {
    hint: 'Make one with: sqlsync doctor --watch --record FILE DATABASE',
    cause,
  });
}
