import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { endianness } from 'node:os';
import { systemErrorCode } from '../errors.ts';
import { readFully } from '../files/read-fully.ts';

/** https://www.sqlite.org/walformat.html, "The WAL-Index Header": two copies of 48 bytes, in native byte order. */
const HEADER_BYTES = 48;
const CHECKED_BYTES = 40;
/** Where `nBackfill` stands: the number of frames that checkpoints have copied into the file. */
const BACKFILL_AT = 2 * HEADER_BYTES;
const READ_MARKS_AT = BACKFILL_AT + 4;
const READ_MARKS = 5;
const UNUSED_MARK = 0xffffffff;
/** Where `nBackfillAttempted` stands: the number that a checkpoint under way will come to. */
const ATTEMPTED_AT = 128;
const INDEX_VERSION = 3_007_000;

/** A writer that is just writing a header leaves the two copies different for an instant. */
const ATTEMPTS = 5;

const isLittleEndian = endianness() === 'LE';

/** Reads so many bytes of a wal-index at an offset; those behind its end are 0. */
export type IndexRead = (offset: number, bytes: number) => Buffer;

/** The header, if it is valid. One read a copy: a single read of both would see the two halves of one torn write. */
export function validHeader(read: IndexRead): Buffer | undefined {
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    const [first, second] = [read(0, HEADER_BYTES), read(HEADER_BYTES, HEADER_BYTES)];
    if (first.equals(second) && isValid(first)) return first;
  }
  return undefined;
}

/** The number of frames that checkpoints have copied into the file. */
export function backfilledFrames(read: IndexRead): number {
  return numberAt(read(BACKFILL_AT, 4), 0);
}

/** For each of the five read marks, up to which frame its readers read; null for a mark that is not in use. */
export function readMarks(read: IndexRead): (number | null)[] {
  const bytes = read(READ_MARKS_AT, 4 * READ_MARKS);
  return Array.from({ length: READ_MARKS }, (_, i) => {
    const mark = numberAt(bytes, 4 * i);
    return mark === UNUSED_MARK ? null : mark;
  });
}

/**
 * The header of the wal-index (-shm) of a database in WAL mode. It changes with every commit, by its count of commits
 * and the checksum over all frames.
 *
 *     connection has read once ──► open ──► header … header ──► connection closed ──► close
 *
 * Before a connection reads, the -shm may be of programs that have gone, and SQLite would make it anew. The descriptor
 * must live longer than every connection: closing it drops the locks that this process holds on the -shm.
 */
export class WalIndex {
  readonly #path: string;
  readonly #descriptor: number;
  readonly #read: IndexRead;

  /** Undefined if there is no -shm. Throws the system's errors. */
  static open(databasePath: string): WalIndex | undefined {
    const path = `${databasePath}-shm`;
    try {
      return new WalIndex(path, openSync(path, 'r'));
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  private constructor(path: string, descriptor: number) {
    this.#path = path;
    this.#descriptor = descriptor;
    this.#read = (offset, length) => {
      const bytes = Buffer.alloc(length);
      readFully(descriptor, bytes, offset);
      return bytes;
    };
  }

  /** The header as of now; undefined if it cannot be trusted, or if the path names another file by now. */
  header(): Buffer | undefined {
    const header = validHeader(this.#read);
    return header !== undefined && this.#isNamed() ? header : undefined;
  }

  /** True if the file holds all frames of this header, so that a program need not look at the WAL. */
  isBackfilled(header: Buffer): boolean {
    return this.backfilled() === frameCount(header);
  }

  /** The number of frames that checkpoints have copied into the file. */
  backfilled(): number {
    return backfilledFrames(this.#read);
  }

  /** True while a checkpoint copies frames; also after one that was killed, and after a recovery, until the next one. */
  isCheckpointing(): boolean {
    return numberAt(this.#read(ATTEMPTED_AT, 4), 0) > this.backfilled();
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  #isNamed(): boolean {
    const own = fstatSync(this.#descriptor, { bigint: true });
    const named = statSync(this.#path, { bigint: true, throwIfNoEntry: false });
    return named?.dev === own.dev && named.ino === own.ino;
  }
}

/** The number of frames that count, `mxFrame`; 0 if the file alone holds the database. */
export function frameCount(header: Buffer): number {
  return numberAt(header, 16);
}

/** The number of pages of the database. */
export function pagesOf(header: Buffer): number {
  return numberAt(header, 20);
}

/** The number of commits, `iChange`; it goes on over restarts of the WAL, and begins anew with a new wal-index. */
export function commitCount(header: Buffer): number {
  return numberAt(header, 8);
}

/** The salts of the frames that count, as the WAL has them: those of another generation have others. */
export function saltsOf(header: Buffer): Buffer {
  return header.subarray(32, 40);
}

/** The checksum over all frames that count, `aFrameCksum`, as the last of them has it in the WAL. */
export function frameChecksum(header: Buffer): Buffer {
  const checksum = Buffer.alloc(8);
  for (const at of [0, 4]) checksum.writeUInt32BE(numberAt(header, 24 + at), at);
  return checksum;
}

function isValid(header: Buffer): boolean {
  const isInit = header[12] === 1;
  return isInit && numberAt(header, 0) === INDEX_VERSION && isChecksumRight(header);
}

/** `walChecksumBytes` of SQLite, over native integers. */
function isChecksumRight(header: Buffer): boolean {
  let [s0, s1] = [0, 0];
  for (let at = 0; at < CHECKED_BYTES; at += 8) {
    s0 = (s0 + numberAt(header, at) + s1) >>> 0;
    s1 = (s1 + numberAt(header, at + 4) + s0) >>> 0;
  }
  return s0 === numberAt(header, CHECKED_BYTES) && s1 === numberAt(header, CHECKED_BYTES + 4);
}

function numberAt(header: Buffer, offset: number): number {
  return isLittleEndian ? header.readUInt32LE(offset) : header.readUInt32BE(offset);
}
