import { lstatSync, statfsSync } from 'node:fs';
import { dirname } from 'node:path';
import { SqlsyncError } from '../errors.ts';

/**
 * Linux file systems on which a file of n bytes takes n bytes and `statfs` reports the free space, by magic number
 * (linux/magic.h). Others compress, or stand for a server or a program: only the write itself shows whether there is
 * room.
 */
const EXACT_FILE_SYSTEMS: ReadonlySet<number> = new Set([
  0xef53, // ext2, ext3, ext4
  0x58465342, // XFS
  0x01021994, // tmpfs
  0x4d44, // FAT
  0x2011bab0, // exFAT
  0x794c7630, // overlayfs, the root of containers: the space of its upper layer
]);

/**
 * The space that this user can use in the folder of `path`; Infinity if the system does not report it reliably, and
 * `isEstimateEnough` is false.
 */
function freeBytes(path: string, isEstimateEnough: boolean): number {
  try {
    const { type, blocks, bavail, bfree, bsize } = statfsSync(dirname(path));
    const isExact = EXACT_FILE_SYSTEMS.has(type);
    if (!(isExact || isEstimateEnough) || !(blocks > 0) || !(bsize > 0) || bfree > blocks) return Infinity;
    // On btrfs, what is free beyond what is available is no room for files.
    return (isExact && process.geteuid?.() === 0 ? bfree : bavail) * bsize;
  } catch {
    return Infinity;
  }
}

/** Bytes that a file takes on the disk, without holes; 0 if it does not exist. */
export function allocatedBytes(path: string): number {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  return stats?.isFile() === true ? stats.blocks * 512 : 0;
}

/**
 * Throws SqlsyncError REPLICA_UNWRITABLE if the disk surely lacks room for `neededBytes` more beside `path`; with
 * `isEstimateEnough`, if it likely does.
 */
export function checkFreeSpace(path: string, neededBytes: number, isEstimateEnough = false): void {
  const free = freeBytes(path, isEstimateEnough);
  if (neededBytes <= free) return;
  throw new SqlsyncError(
    'REPLICA_UNWRITABLE',
    `${path} needs ${sizeText(neededBytes)} more, and ${sizeText(free)} are free in ${dirname(path)} (ENOSPC)`,
    { hint: 'Nothing was written. Free some space, or name a place on a larger disk.' },
  );
}

/** A number of bytes, for messages. */
export function sizeText(bytes: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return `${unit === 0 ? value : value.toPrecision(3)} ${units[unit]}`;
}
