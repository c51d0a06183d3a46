import { statSync } from 'node:fs';
import { mountOf, procLines } from './mounts.ts';

/** Where SQLite locks a database file, beyond any page: PENDING, RESERVED and 510 bytes of SHARED. */
const FIRST_LOCK_BYTE = 0x40000000;
const LAST_LOCK_BYTE = FIRST_LOCK_BYTE + 511;

/** A POSIX lock, as `/proc/locks` lists it. */
interface PosixLock {
  readonly processId: number;
  readonly isWrite: boolean;
  readonly first: number;
  readonly file: string;
}

/**
 * Processes that read the database at `path` in WAL mode through another name: each connection holds a SHARED lock of
 * the file all the time, and one of the wal-index, which lies beside the name by which it opened the file. Empty where
 * the system tells nothing. Only for a database in WAL mode; a process that is just opening it has the first of the two
 * locks only, so look twice.
 */
export function readersByAnotherName(path: string): Set<number> {
  const locks = posixLocks();
  const ofIndex = new Set(heldOn(`${path}-shm`, locks).map(({ processId }) => processId));
  const elsewhere = heldOn(path, locks)
    .filter(({ isWrite, first }) => !isWrite && first >= FIRST_LOCK_BYTE && first <= LAST_LOCK_BYTE)
    .map(({ processId }) => processId)
    .filter((processId) => processId !== process.pid && !ofIndex.has(processId));
  return new Set(elsewhere);
}

/** True where a process has the wal-index beside `path` open. */
export function isIndexInUse(path: string): boolean {
  return heldOn(`${path}-shm`, posixLocks()).length > 0;
}

function heldOn(path: string, locks: readonly PosixLock[]): PosixLock[] {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return [];
  // Some file systems (btrfs, overlayfs) report another device to `stat` than the kernel has.
  const devices = new Set([deviceOf(stats.dev), mountOf(path)?.device]);
  return locks.filter(({ file }) => [...devices].some((device) => file === `${device}:${stats.ino}`));
}

/** `1: POSIX  ADVISORY  READ 1234 08:01:131 1073741826 1073742335`; device numbers are hexadecimal. */
function posixLocks(): PosixLock[] {
  const locks: PosixLock[] = [];
  for (const line of procLines('/proc/locks')) {
    const [, kind, , mode, processId, file, first] = line.split(/\s+/);
    // A lock that is waited for has an arrow in the place of its kind.
    if (kind !== 'POSIX' || file === undefined) continue;
    const [major, minor, inode] = file.split(':');
    const device = `${parseInt(major ?? '', 16)}:${parseInt(minor ?? '', 16)}`;
    const isWrite = mode === 'WRITE';
    locks.push({ processId: Number(processId), isWrite, first: Number(first), file: `${device}:${inode}` });
  }
  return locks;
}

/** `major:minor` of a device number of Linux. */
function deviceOf(device: number): string {
  const number = BigInt(device);
  const major = ((number >> 8n) & 0xfffn) | ((number >> 32n) & ~0xfffn);
  const minor = (number & 0xffn) | ((number >> 12n) & ~0xffn);
  return `${major}:${minor & 0xffffffffn}`;
}
