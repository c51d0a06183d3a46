import { statSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { mountOf } from '../../files/mounts.ts';
import type { PosixLock } from './proc-locks.ts';
import { posixLocks } from './proc-locks.ts';

/** Where SQLite locks a database file, beyond all pages: PENDING, RESERVED and 510 bytes of SHARED. */
const FIRST_LOCK_BYTE = 0x40000000;
const LAST_LOCK_BYTE = FIRST_LOCK_BYTE + 511;

/**
 * Processes that read the database at `path` in WAL mode through another name. Each connection holds a SHARED lock of
 * the file all the time, and one of the wal-index, which lies beside the name by which it opened the file. Empty if the
 * system does not list locks. Only for a database in WAL mode. A process that is just opening it holds only the first
 * of the two locks, so look twice.
 */
export function readersByAnotherName(path: string): Set<number> {
  const [ofFile, ofIndexFile] = locksOn(path, `${path}-shm`) as [PosixLock[], PosixLock[]];
  const ofIndex = new Set(ofIndexFile.map(({ processId }) => processId));
  const elsewhere = ofFile
    .filter(({ isWrite, first }) => !isWrite && first >= FIRST_LOCK_BYTE && first <= LAST_LOCK_BYTE)
    .map(({ processId }) => processId)
    .filter((processId) => processId !== process.pid && !ofIndex.has(processId));
  return new Set(elsewhere);
}

/** The locks of all processes at one moment, for many databases. */
export class LockTable {
  /** By inode. The device is part of each entry, because the kernel may list another than `stat` reports. */
  readonly #byInode: ReadonlyMap<string, readonly PosixLock[]>;

  constructor() {
    this.#byInode = Map.groupBy(
      posixLocks(() => true),
      ({ file }) => inodeOf(file),
    );
  }

  /**
   * True if a process may have had the database at `path`, which is in WAL mode, open through another name when the
   * table was read. A process that was just opening it counts too.
   */
  mayBeReadByAnotherName(path: string): boolean {
    const ofFile = this.#locksOn(path).filter(
      ({ processId, first, last }) =>
        processId !== process.pid && first <= LAST_LOCK_BYTE && last >= FIRST_LOCK_BYTE,
    );
    if (ofFile.length === 0) return false;
    const ofIndex = new Set(this.#locksOn(`${path}-shm`).map(holderOf));
    return ofFile.some((lock) => !ofIndex.has(holderOf(lock)));
  }

  #locksOn(path: string): readonly PosixLock[] {
    const stats = statSync(path, { throwIfNoEntry: false, bigint: true });
    return (stats && this.#byInode.get(String(stats.ino))) ?? [];
  }
}

function inodeOf(file: string): string {
  return file.slice(file.lastIndexOf(':') + 1);
}

/** The process and the device: both files of a database are on one device. */
function holderOf({ processId, file }: PosixLock): string {
  return `${processId} ${file.slice(0, file.lastIndexOf(':'))}`;
}

/** True if a process has the wal-index beside `path` open. */
export function isIndexInUse(path: string): boolean {
  const [ofIndex = []] = locksOn(`${path}-shm`);
  return ofIndex.length > 0;
}

/** The locks of all processes on each of these files; empty for a file that does not exist. */
export function locksOn(...paths: readonly string[]): PosixLock[][] {
  const names = paths.map(namesOfFile);
  const locks = posixLocks((file) => names.some((each) => each.has(file)));
  return names.map((each) => locks.filter(({ file }) => each.has(file)));
}

/** The names that the kernel may use for the file; empty if it does not exist. */
function namesOfFile(path: string): Set<string> {
  const stats = statSync(path, { throwIfNoEntry: false, bigint: true });
  if (stats === undefined) return new Set();
  // On some file systems (btrfs, overlayfs) `stat` reports another device than the kernel lists.
  return new Set(
    [deviceOf(stats.dev), mountDevice(path, stats.dev)].map((device) => `${device}:${stats.ino}`),
  );
}

/** A container host has thousands of mounts, and locks are looked at many times a second. */
const MAX_KNOWN_MOUNTS = 100;
const knownMounts = new Map<string, string | undefined>();

/** The device of the mount on which `path` is; the same as long as `stat` reports the same device for it. */
function mountDevice(path: string, device: bigint): string | undefined {
  const key = `${device} ${path}`;
  if (!knownMounts.has(key)) {
    if (knownMounts.size >= MAX_KNOWN_MOUNTS) knownMounts.clear();
    knownMounts.set(key, mountOf(path)?.device);
  }
  return knownMounts.get(key);
}

/** `major:minor` of a device number of Linux. */
function deviceOf(number: bigint): string {
  const major = ((number >> 8n) & 0xfffn) | ((number >> 32n) & ~0xfffn);
  const minor = (number & 0xffn) | ((number >> 12n) & ~0xffn);
  return `${major}:${minor & 0xffffffffn}`;
}

/**
 * The looks together take longer than a program that opens a database, or reads one in rollback mode, has the file
 * locked without a wal-index.
 */
const LOOKS = 5;
const PAUSE_MS = 100;

/** The processes that {@link readersByAnotherName} finds in each of several looks. */
export async function lastingReadersByAnotherName(path: string): Promise<number[]> {
  let readers = [...readersByAnotherName(path)];
  for (let look = 1; look < LOOKS && readers.length > 0; look++) {
    await delay(PAUSE_MS);
    const now = readersByAnotherName(path);
    readers = readers.filter((processId) => now.has(processId));
  }
  return readers;
}
