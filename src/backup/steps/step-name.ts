import type { StoredFile } from '../backends/backend.ts';

/** The digits of a snapshot's id that the steps after it carry in their names. */
export const BASE_DIGITS = 16;

/** What LEVEL says in the name of a file. */
export const LEVELS = {
  /** One step. */
  single: 0,
  /** Several steps that were put together. */
  merged: 1,
  /** A part of a change that is too large for one file. With it alone the database was never in that state. */
  part: 2,
} as const;

/**
 * A file of `steps`, from its name: `STREAM-LEVEL-FROM-TO-TIME-HASH`. It makes state TO of state FROM - 1; state 0 is
 * the snapshot with which the stream begins.
 */
export interface StepFile {
  /** Name within the folder. */
  readonly name: string;
  readonly bytes: number;
  /** When it was put, by the clock of its place; undefined if that is not known. */
  readonly modified?: Date | undefined;
  /** Begins with `BASE_DIGITS` digits of the id of the snapshot. */
  readonly stream: string;
  readonly level: number;
  readonly from: number;
  readonly to: number;
  /** When the read transaction of state `to` began, in ms since 1970. */
  readonly timeMs: number;
  /** SHA-256 of the file, in hexadecimal digits. */
  readonly hash: string;
}

const NAME = /^([0-9a-f]{24})-([012])-(\d{8})-(\d{8})-(\d{13})-([0-9a-f]{64})$/;

/** The most steps of a stream. */
export const MAX_STEPS = 99_999_999;

/** undefined for a file that is none of ours. */
export function parseStep({
  name,
  bytes,
  modified,
}: Pick<StoredFile, 'name' | 'bytes'> & Partial<StoredFile>): StepFile | undefined {
  const [, stream, level, from, to, time, hash] = NAME.exec(name) ?? [];
  if (stream === undefined || hash === undefined) return undefined;
  const file = {
    name,
    bytes,
    modified,
    stream,
    level: Number(level),
    from: Number(from),
    to: Number(to),
    timeMs: Number(time),
    hash,
  };
  return file.from >= 1 && file.from <= file.to ? file : undefined;
}

/** The name without the hash: what a sealed file is bound to. */
export function stepLabel({
  stream,
  level,
  from,
  to,
  timeMs,
}: Pick<StepFile, 'stream' | 'level' | 'from' | 'to' | 'timeMs'>): string {
  const [first, last] = [from, to].map((number) => String(number).padStart(8, '0'));
  return `${stream}-${level}-${first}-${last}-${String(timeMs).padStart(13, '0')}`;
}

/** By stream, each in the order of its states. */
export function byStream(files: readonly StepFile[]): Map<string, StepFile[]> {
  const sorted = files.toSorted((a, b) => a.to - b.to || a.from - b.from);
  return Map.groupBy(sorted, ({ stream }) => stream);
}

/**
 * How each state of a stream can be reached from its snapshot: by state, the file that makes it, which is the one that
 * goes back furthest. `files` are in the order of their states.
 */
export function reachableStates(files: readonly StepFile[]): Map<number, StepFile> {
  const via = new Map<number, StepFile>();
  for (const file of files) {
    if (file.from !== 1 && !via.has(file.from - 1)) continue;
    const other = via.get(file.to);
    if (other === undefined || file.from < other.from) via.set(file.to, file);
  }
  return via;
}

export function mergedAmong(files: readonly StepFile[]): StepFile[] {
  return files.filter(({ level }) => level === LEVELS.merged);
}

/** The files that make a state, in their order; undefined if it cannot be reached. */
export function pathTo(via: ReadonlyMap<number, StepFile>, state: number): StepFile[] | undefined {
  const path: StepFile[] = [];
  for (let at = state; at > 0;) {
    const file = via.get(at);
    if (file === undefined) return undefined;
    path.unshift(file);
    at = file.from - 1;
  }
  return path;
}

/**
 * The single steps that a longer file covers which ended before `beforeMs`: nobody needs them any more. All of such a
 * file or none, because a single step cannot be reached without those before it.
 */
export function coveredSteps(files: readonly StepFile[], beforeMs: number): StepFile[] {
  const doomed: StepFile[] = [];
  for (const stream of byStream(files).values()) {
    const longer = mergedAmong(stream).filter(({ timeMs }) => timeMs < beforeMs);
    for (const file of stream)
      if (file.level !== LEVELS.merged && longer.some(({ from, to }) => from <= file.from && file.to <= to))
        doomed.push(file);
  }
  return doomed;
}
