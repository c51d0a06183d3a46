import { accessSync, closeSync, constants, openSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { dirname } from 'node:path';
import { systemErrorCode } from '../errors.ts';
import type { DatabaseHeader } from './header.ts';
import { HEADER_BYTES, parseHeader } from './header.ts';
import { readFully } from '../files/read-fully.ts';

/** What the file system and the header say about a database file, without opening it as a database. */
export interface DatabaseFile {
  readonly path: string;
  readonly stats: Stats;
  /** Device and inode: the same file under any name. */
  readonly fileId: string;
  /** undefined for a file of 0 bytes and for a file that is not an SQLite database. */
  readonly header: DatabaseHeader | undefined;
}

/**
 * SQLite opens a database only if the path of its journal, which is 8 bytes longer, has at most 512 bytes
 * (MAX_PATHNAME).
 */
const MAX_PATH_BYTES = 504;

/** Says why SQLite cannot open a path with `longer` bytes added; undefined if it can. */
export function tooLongForSqlite(path: string, longer = 0): string | undefined {
  const bytes = Buffer.byteLength(path);
  const most = MAX_PATH_BYTES - longer;
  if (bytes <= most) return undefined;
  return `has a path of ${bytes} bytes with its links resolved; SQLite can open ${most} here`;
}

/**
 * Looks at the file at `path`; undefined if it does not exist. Throws the system's errors.
 *
 * Do not call it while this process has the database open: closing the descriptor would drop all POSIX locks that this
 * process holds on the file.
 */
export function inspectDatabase(path: string): DatabaseFile | undefined {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return undefined;
  return { path, stats, fileId: fileIdOf(stats), header: stats.isFile() ? readHeader(path) : undefined };
}

export function fileIdOf(stats: Stats): string {
  return `${stats.dev}:${stats.ino}`;
}

/** Device and inode of the file at `path`; undefined if it does not exist. Opens nothing. */
export function currentFileId(path: string): string | undefined {
  const stats = statSync(path, { throwIfNoEntry: false });
  return stats === undefined ? undefined : fileIdOf(stats);
}

/** The inode alone, to compare files in one folder: some file systems change their device number with each mount. */
export function inodeAt(path: string): string | undefined {
  const stats = statSync(path, { throwIfNoEntry: false });
  return stats === undefined ? undefined : String(stats.ino);
}

/** Size of a file in bytes; 0 if it does not exist. Opens nothing. */
export function fileBytes(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

/**
 * A stamp of the database at `path` that every commit and every checkpoint changes: size and time of the file and of
 * its WAL. Opens nothing.
 */
export function contentStamp(path: string): string {
  return [path, `${path}-wal`]
    .map((name) => statSync(name, { throwIfNoEntry: false, bigint: true }))
    .map((stats) => (stats === undefined || stats.size === 0n ? '' : `${stats.size}:${stats.mtimeNs}`))
    .join(' ');
}

/** True if this process may create files beside `path`. */
export function folderIsWritable(path: string): boolean {
  try {
    accessSync(dirname(path), constants.W_OK | constants.X_OK);
    return true;
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return false;
  }
}

/** True for root and for the file's owner, whose new -wal and -shm files the application can write. */
function actsAsOwner(stats: Stats): boolean {
  const uid = process.geteuid?.();
  return uid === undefined || uid === 0 || uid === stats.uid;
}

/**
 * True if opening an idle WAL database would create -wal and -shm files that belong to us: the owner, whose application
 * needs them, could not write them.
 */
export function wouldLeaveForeignFiles(file: DatabaseFile): boolean {
  if (file.header?.wal !== true || actsAsOwner(file.stats)) return false;
  const isThere = (suffix: string): boolean => currentFileId(file.path + suffix) !== undefined;
  return !(isThere('-wal') && isThere('-shm')) && folderIsWritable(file.path);
}

function readHeader(path: string): DatabaseHeader | undefined {
  const bytes = Buffer.alloc(HEADER_BYTES);
  const descriptor = openSync(path, 'r');
  try {
    return readFully(descriptor, bytes, 0) === HEADER_BYTES ? parseHeader(bytes) : undefined;
  } finally {
    closeSync(descriptor);
  }
}
