import { closeSync, openSync, readFileSync, readSync } from 'node:fs';

/** A POSIX lock, as `/proc/locks` lists it. */
export interface PosixLock {
  readonly processId: number;
  readonly isWrite: boolean;
  readonly first: number;
  /** The last byte; Infinity if the lock has no end. */
  readonly last: number;
  /** `major:minor:inode`, all of them decimal. */
  readonly file: string;
}

/** The kernel returns at most one page per read, filled with whole lines. */
const MIN_READ_BYTES = 2048;
const MAX_READ_BYTES = 4096;

/** This many passes must bring nothing new; each misses a given lock with less than one chance in ten. */
const QUIET_PASSES = 6;
const MAX_PASSES = 100;

/**
 * The POSIX locks of all processes on the files for which `concerns` is true; empty if the system does not list locks.
 *
 * One read shows one instant, but only some 60 locks. The next read continues at a count of locks: if another process
 * has released locks meanwhile, those behind them move up, and some are not listed at all. Every listed lock was held.
 * So a long list is read again, in reads of other lengths, until that brings nothing new.
 */
export function posixLocks(concerns: (file: string) => boolean): PosixLock[] {
  const found = new Map<string, PosixLock>();
  let quiet = 0;
  for (let pass = 1; pass <= MAX_PASSES && quiet < QUIET_PASSES; pass++) {
    const { text, isOfOneInstant } = readLocks(pass);
    quiet++;
    for (const lock of parseLocks(text)) {
      const key = Object.values(lock).join(' ');
      if (found.has(key) || !concerns(lock.file)) continue;
      found.set(key, lock);
      quiet = 0;
    }
    if (isOfOneInstant) break;
  }
  return [...found.values()];
}

/** Reads the whole list once. An end of the list does not prove that all of it came: locks may have gone meanwhile. */
function readLocks(pass: number): { readonly text: string; readonly isOfOneInstant: boolean } {
  let descriptor: number;
  try {
    descriptor = openSync('/proc/locks', 'r');
  } catch {
    return { text: '', isOfOneInstant: true };
  }
  try {
    const bytes = pass === 1 ? MAX_READ_BYTES : randomBetween(MIN_READ_BYTES, MAX_READ_BYTES);
    const pieces: Buffer[] = [];
    for (;;) {
      const piece = Buffer.alloc(bytes);
      const length = readSync(descriptor, piece, 0, bytes, null);
      if (length === 0) break;
      pieces.push(piece.subarray(0, length));
    }
    // A read that had room for more lines, and brought none, reached the end.
    const isOfOneInstant = (pieces[0]?.length ?? 0) <= bytes / 2;
    return { text: Buffer.concat(pieces).toString('latin1'), isOfOneInstant };
  } catch {
    return { text: '', isOfOneInstant: true };
  } finally {
    closeSync(descriptor);
  }
}

function randomBetween(min: number, max: number): number {
  return min + Math.floor(Math.random() * (max - min + 1));
}

/**
 * The POSIX locks that a process took by one of its descriptors; undefined if that was closed, is of another file than
 * `inode`, or may not be seen. Looks at the locks of this file alone, so it keeps no lock of another from being taken.
 */
export function locksOfDescriptor(
  processId: number,
  descriptor: string,
  inode: string,
): PosixLock[] | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${processId}/fdinfo/${descriptor}`, 'latin1');
  } catch {
    return undefined;
  }
  return /^ino:\s*(\d+)$/m.exec(text)?.[1] === inode
    ? parseLocks(text.replaceAll(/^lock:\s*/gm, ''))
    : undefined;
}

/** `1: POSIX  ADVISORY  READ 1234 08:01:131 1073741826 1073742335`; device numbers are hexadecimal. */
function parseLocks(text: string): PosixLock[] {
  const locks: PosixLock[] = [];
  for (const line of text.split('\n')) {
    const [, kind, , mode, processId, file, first, end] = line.split(/\s+/);
    // A line of a waiting lock has an arrow in the place of its kind.
    if (kind !== 'POSIX' || file === undefined) continue;
    const [major, minor, inode] = file.split(':');
    const device = `${parseInt(major ?? '', 16)}:${parseInt(minor ?? '', 16)}`;
    locks.push({
      processId: Number(processId),
      isWrite: mode === 'WRITE',
      first: Number(first),
      last: end === 'EOF' ? Infinity : Number(end),
      file: `${device}:${inode}`,
    });
  }
  return locks;
}
