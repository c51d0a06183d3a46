import {
  closeSync,
  fsyncSync,
  lstatSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';

/**
 * The mark: a small file `.NAME.sqlsync` beside a replica that says "this is a copy, made by sqlsync". A database
 * without one is never overwritten unasked, so that swapped arguments cannot destroy a production database.
 */
export interface Mark {
  readonly format: 1;
  /** The origin as the user named it, for people to read. */
  readonly originName: string;
  /** Host name and absolute path of the origin, to recognize swapped arguments. */
  readonly originHost: string;
  readonly originPath: string;
  /** When the mark was written, ISO 8601. */
  readonly time: string;
}

/** A mark holds two paths and two names; anything larger is not ours. */
const MAX_MARK_BYTES = 64 * 1024;

/** Path of a file that sqlsync keeps beside the database at `path`. */
export function besideReplica(path: string, suffix: '' | '-part' | '-spool' | '-lock'): string {
  return join(dirname(path), `.${basename(path)}.sqlsync${suffix}`);
}

/** The name by which hosts are told apart. */
export function hostName(): string {
  return hostname();
}

/** The mark of the database at `path`; undefined where there is none that this version understands. */
export function readMark(path: string): Mark | undefined {
  const markPath = besideReplica(path, '');
  const stats = lstatSync(markPath, { throwIfNoEntry: false });
  if (stats === undefined || !stats.isFile() || stats.size > MAX_MARK_BYTES) return undefined;
  try {
    const mark: unknown = JSON.parse(readFileSync(markPath, 'utf8'));
    return isMark(mark) ? mark : undefined;
  } catch {
    return undefined;
  }
}

/** Writes the mark durably: it is there whole or not at all. */
export function writeMark(path: string, mark: Omit<Mark, 'format' | 'time'>): void {
  const markPath = besideReplica(path, '');
  const temporary = `${markPath}.new`;
  rmSync(temporary, { force: true });
  const descriptor = openSync(temporary, 'wx', 0o644);
  try {
    writeSync(descriptor, `${JSON.stringify({ format: 1, ...mark, time: new Date().toISOString() })}\n`);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
  renameSync(temporary, markPath);
}

/** Takes the mark away from what is at `path` now. */
export function removeMark(path: string): void {
  rmSync(besideReplica(path, ''), { force: true });
}

/** True where `mark` already says what would be written, so that nothing has to change. */
export function marksSameOrigin(mark: Mark | undefined, origin: Omit<Mark, 'format' | 'time'>): boolean {
  return mark?.originHost === origin.originHost && mark.originPath === origin.originPath;
}

function isMark(value: unknown): value is Mark {
  if (typeof value !== 'object' || value === null) return false;
  const mark = value as Partial<Record<keyof Mark, unknown>>;
  const texts = [mark.originName, mark.originHost, mark.originPath, mark.time];
  return mark.format === 1 && texts.every((text) => typeof text === 'string');
}
