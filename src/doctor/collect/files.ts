import { accessSync, closeSync, constants, fstatSync, openSync, statSync, statfsSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { systemErrorCode } from '../../errors.ts';
import { userName } from '../../files/file-owner.ts';
import { isMountedAlone, mountOf, networkFileSystem } from '../../files/mounts.ts';
import { readFully } from '../../files/read-fully.ts';
import { HEADER_BYTES, parseHeader } from '../../pages/header.ts';
import type { DatabaseFacts, FileFacts, HeaderFacts, JournalFacts } from '../facts.ts';

/** The first bytes of a rollback journal (https://www.sqlite.org/fileformat2.html#the_rollback_journal). */
const JOURNAL_MAGIC = Buffer.from('d9d505f920a163d7', 'hex');

/** Where the header has its change counter. */
const CHANGES_AT = 24;

/** Where the header has the largest root page, not 0 with auto_vacuum; the number of free pages; the kind of vacuum. */
const LARGEST_ROOT_AT = 52;
const FREE_PAGES_AT = 36;
const INCREMENTAL_AT = 64;

/** Reads the bytes of an open file at an offset; fewer at its end. */
type Read = (offset: number, length: number) => Buffer;

/** Nobody waits for the writer of a FIFO that has the name of a file. */
const FLAGS = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;

/**
 * What `act` makes of the open file, which it also names as no other: `device:inode`. Undefined if there is no regular
 * file. Throws the system's errors.
 */
function withFile<T>(path: string, act: (read: Read, file: string) => T): T | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(path, FLAGS);
  } catch (error) {
    if (['ENOENT', 'ENXIO'].includes(systemErrorCode(error) ?? '')) return undefined;
    throw error;
  }
  try {
    const stats = fstatSync(descriptor, { bigint: true });
    if (!stats.isFile()) return undefined;
    const read: Read = (offset, length) => {
      const buffer = Buffer.alloc(length);
      return buffer.subarray(0, readFully(descriptor, buffer, offset));
    };
    return act(read, `${stats.dev}:${stats.ino}`);
  } finally {
    closeSync(descriptor);
  }
}

/** As {@link withFile}, for a file beside the database; undefined also if this user may not read it. */
export function readBeside<T>(path: string, act: (read: Read, file: string) => T): T | undefined {
  try {
    return withFile(path, act);
  } catch (error) {
    if (isRefused(error)) return undefined;
    throw error;
  }
}

/** The first `length` bytes of a file beside the database. */
export function startBeside(path: string, length: number): Buffer | undefined {
  return readBeside(path, (read) => read(0, length));
}

/** The files beside the database at `path` that are there, and that this user may not read. */
export function unreadableBeside(path: string): string[] {
  return ['-wal', '-shm', '-journal'].filter((suffix) => {
    try {
      accessSync(`${path}${suffix}`, constants.R_OK);
      return false;
    } catch (error) {
      return isRefused(error);
    }
  });
}

function isRefused(error: unknown): boolean {
  return ['EACCES', 'EPERM'].includes(systemErrorCode(error) ?? '');
}

/** The first `length` bytes; undefined if there is no regular file. Throws the system's errors. */
export function readStart(path: string, length: number): Buffer | undefined {
  return withFile(path, (read) => read(0, length));
}

export function databaseFacts(path: string, stats: Stats): DatabaseFacts {
  const fileSystem = mountOf(path)?.type;
  return {
    ...factsOf(stats),
    hardLinks: stats.nlink,
    isMountedAlone: isMountedAlone(path),
    ...(fileSystem === undefined ? {} : { fileSystem }),
    isNetwork: networkFileSystem(path) !== undefined,
    blockBytes: statfsSync(path).bsize,
    looksRandom: looksRandom(path, stats.size),
  };
}

/** Among 100 bytes of chance are some 83 different ones, in text or numbers fewer than 50. */
const RANDOM_VALUES = 65;
const SECTOR_BYTES = 512;

/** SQLCipher and SEE encrypt whole pages, and all but a few bytes of the header. */
function looksRandom(path: string, size: number): boolean {
  if (size === 0 || size % SECTOR_BYTES !== 0) return false;
  return new Set(readStart(path, HEADER_BYTES)).size >= RANDOM_VALUES;
}

/** Undefined if there is no such file. */
export function fileFacts(path: string): FileFacts | undefined {
  const stats = statSync(path, { throwIfNoEntry: false });
  return stats === undefined ? undefined : factsOf(stats);
}

function factsOf(stats: Stats): FileFacts {
  const { size, uid, mode } = stats;
  return { bytes: size, uid, user: userName(uid), mode: mode & 0o7777, isRegular: stats.isFile() };
}

/** Undefined for a file of 0 bytes, and for one that is not a database. Throws the system's errors. */
export function headerFacts(path: string): HeaderFacts | undefined {
  const bytes = readStart(path, HEADER_BYTES);
  const header = bytes === undefined ? undefined : parseHeader(bytes);
  if (bytes === undefined || header === undefined) return undefined;
  const isIncremental = bytes.readUInt32BE(INCREMENTAL_AT) !== 0;
  return {
    pageSize: header.pageSize,
    ...(header.pageCount === undefined ? {} : { pageCount: header.pageCount }),
    isWal: header.wal,
    autoVacuum: bytes.readUInt32BE(LARGEST_ROOT_AT) === 0 ? 'none' : isIncremental ? 'incremental' : 'full',
    freePages: bytes.readUInt32BE(FREE_PAGES_AT),
    changes: bytes.readUInt32BE(CHANGES_AT),
    sqliteVersion: header.sqliteVersion,
  };
}

/** Undefined if there is no journal. Throws the system's errors. */
export function journalAt(path: string): Omit<JournalFacts, 'isHot'> | undefined {
  const facts = fileFacts(`${path}-journal`);
  if (facts === undefined) return undefined;
  const start = startBeside(`${path}-journal`, JOURNAL_MAGIC.length);
  return { ...facts, isUnfinished: start?.equals(JOURNAL_MAGIC) === true };
}
