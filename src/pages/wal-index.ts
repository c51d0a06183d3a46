import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { endianness } from 'node:os';
import { systemErrorCode } from '../errors.ts';
import { readFully } from '../files/read-fully.ts';

/** https://www.sqlite.org/walformat.html, "The WAL-Index Header": two copies of 48 bytes, in native byte order. */
const HEADER_BYTES = 48;
const CHECKED_BYTES = 40;
/** Where `nBackfill` stands: the number of frames that checkpoints have copied into the file. */
const BACKFILL_AT = 2 * HEADER_BYTES;
const INDEX_VERSION = 3_007_000;

/** A writer that is just writing a header leaves the two copies different for an instant. */
const ATTEMPTS = 3;

const isLittleEndian = endianness() === 'LE';

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
  }

  /** The header as of now; undefined if it cannot be trusted, or if the path names another file by now. */
  header(): Buffer | undefined {
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      const copies = [0, HEADER_BYTES].map((offset) => this.#read(offset));
      const [first, second] = copies as [Buffer, Buffer];
      if (first.equals(second) && isValid(first)) return this.#isNamed() ? first : undefined;
    }
    return undefined;
  }

  /** True if the file holds all frames of this header, so that a program need not look at the WAL. */
  isBackfilled(header: Buffer): boolean {
    return this.backfilled() === frameCount(header);
  }

  /** The number of frames that checkpoints have copied into the file. */
  backfilled(): number {
    const bytes = Buffer.alloc(4);
    readFully(this.#descriptor, bytes, BACKFILL_AT);
    return numberAt(bytes, 0);
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  /** One read a copy: a single read of both would see the two halves of one torn write. */
  #read(offset: number): Buffer {
    const bytes = Buffer.alloc(HEADER_BYTES);
    readFully(this.#descriptor, bytes, offset);
    return bytes;
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
