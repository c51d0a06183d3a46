import { createHash } from 'node:crypto';
import { fdatasync, fstatSync, statSync } from 'node:fs';
import type { BigIntStats } from 'node:fs';
import { promisify } from 'node:util';
import { bootId } from '../files/machine.ts';
import { timesEveryWrite } from '../files/mounts.ts';
import { readFully } from '../files/read-fully.ts';
import type { DatabaseReader } from '../sqlite/database-reader.ts';
import { HEADER_BYTES } from './header.ts';
import { frameCount, WalIndex } from './wal-index.ts';

/**
 * Bytes of a stamp: a SHA-256. Two equal stamps of one database show that it has the same content; two different ones
 * show nothing.
 */
export const STAMP_BYTES = 32;

/**
 * A change so soon after the last one may leave the ctime as it is: file systems count in ticks, some in seconds. So
 * the last change has to be this old, in milliseconds, when a stamp is taken.
 */
const MIN_AGE_MS = Number(process.env['SQLSYNC_STAMP_MIN_AGE_MS'] ?? 3000);

/** What is true of this moment and this system. */
export interface StampMoment {
  /** Milliseconds since 1970. */
  readonly now: number;
  /** The start of the kernel: nothing that was not synced outlives it. Undefined if the system has no such id. */
  readonly bootId: string | undefined;
}

/**
 * Takes the stamp of a database at the beginning of a snapshot:
 *
 *     settle ──► connection has read once ──► attached ──► snapshot begins ──► take ──► connection closed ──► close
 *
 * In WAL mode the stamp holds the header of the wal-index, and has none if that changed between `attached` and `take`:
 * then it may be that of a later commit than the snapshot. Everything else is of the file, which no SQLite changes in
 * content while the snapshot lasts. A failure only means that there is no stamp.
 */
export class StampTaker {
  readonly #path: string;
  readonly #descriptor: number;
  /** True once no page of the file is dirty. */
  #isSettled = false;
  #index: WalIndex | undefined;
  #before: Buffer | undefined;

  /**
   * @param path Absolute and real.
   * @param descriptor Of the file at `path`. It stays the caller's.
   */
  constructor(path: string, descriptor: number) {
    this.#path = path;
    this.#descriptor = descriptor;
  }

  /**
   * Writes the dirty pages of the file to the disk, if it may get a stamp. A program that writes through a memory map
   * moves the ctime only where it finds a clean page.
   */
  async settle(now: number = Date.now()): Promise<void> {
    try {
      const isOld = fstatSync(this.#descriptor).ctimeMs <= now - MIN_AGE_MS;
      if (!isOld || !timesEveryWrite(this.#path)) return;
      await promisify(fdatasync)(this.#descriptor);
      this.#isSettled = true;
    } catch {
      // A file system that refuses it has no stamps.
    }
  }

  /** False if there will be no stamp. */
  get isSettled(): boolean {
    return this.#isSettled;
  }

  attached(): void {
    try {
      this.#index ??= WalIndex.open(this.#path);
      this.#before = this.#index?.header();
    } catch {
      this.#before = undefined;
    }
  }

  /**
   * The stamp of the snapshot that began after `attached`; undefined if nothing can prove later that the database is
   * unchanged.
   */
  take(moment: StampMoment = { now: Date.now(), bootId: bootId() }): Uint8Array | undefined {
    if (!this.#isSettled || moment.bootId === undefined) return undefined;
    try {
      return this.#stamp(moment);
    } catch {
      return undefined;
    }
  }

  /** Call it when every connection of this process to the database is closed. */
  close(): void {
    this.#index?.close();
  }

  #stamp(moment: StampMoment): Uint8Array | undefined {
    const header = Buffer.alloc(HEADER_BYTES);
    if (readFully(this.#descriptor, header, 0) < HEADER_BYTES) return undefined;
    const wal = this.#walFacts(header);
    const file = this.#fileFacts(moment.now);
    if (wal === undefined || file === undefined) return undefined;
    const counters = [header.subarray(24, 40), header.subarray(92, 100)].map((bytes) =>
      bytes.toString('hex'),
    );
    const facts = ['sqlsync stamp 1', moment.bootId, this.#path, ...file, ...counters, ...wal];
    return createHash('sha256').update(JSON.stringify(facts)).digest();
  }

  #fileFacts(now: number): readonly string[] | undefined {
    const own = fstatSync(this.#descriptor, { bigint: true });
    const named = statSync(this.#path, { bigint: true, throwIfNoEntry: false });
    // A -wal beside another name of the file could hold changes.
    if (named?.dev !== own.dev || named.ino !== own.ino || own.nlink !== 1n) return undefined;
    return Number(own.ctimeMs) > now - MIN_AGE_MS ? undefined : [...factsOf(own), String(own.ctimeNs)];
  }

  /** Undefined if it is not certain where the newest commits are. */
  #walFacts(header: Buffer): readonly string[] | undefined {
    const wal = walFacts(this.#path);
    const isWal = header[18] === 2 && header[19] === 2;
    // Beside a database in rollback mode SQLite uses a -wal with content nevertheless.
    if (!isWal) return wal.length === 0 ? ['rollback'] : undefined;
    const index = this.#index?.header();
    if (index === undefined || this.#before?.equals(index) !== true) return undefined;
    const isMissing = frameCount(index) > 0 && wal.length === 0;
    return isMissing ? undefined : [index.toString('hex'), ...wal];
  }
}

/**
 * What the file system alone says of the database at `path`, which is real: if it differs, so does the stamp. Opens
 * nothing. Throws the system's errors.
 */
export function outerStamp(path: string): string {
  const file = statSync(path, { bigint: true });
  return [bootId(), ...factsOf(file), file.ctimeNs, ...walFacts(path)].join(' ');
}

/** The facts about the -wal of the database at `path`; empty if the -wal has no content. */
function walFacts(path: string): readonly string[] {
  const wal = statSync(`${path}-wal`, { bigint: true, throwIfNoEntry: false });
  if (wal === undefined || wal.size === 0n) return [];
  // Each time that root opens a -wal, SQLite sets its owner, and so its ctime.
  return process.geteuid?.() === 0 ? factsOf(wal) : [...factsOf(wal), String(wal.ctimeNs)];
}

/** Begins a read transaction whose snapshot `taker` can stamp. May be busy. */
export function beginStamped(
  reader: DatabaseReader,
  taker: StampTaker | undefined,
): ReturnType<DatabaseReader['begin']> {
  if (taker?.isSettled === true) {
    reader.attach();
    taker.attached();
  }
  return reader.begin();
}

function factsOf({ dev, ino, size, birthtimeNs, mtimeNs }: BigIntStats): readonly string[] {
  return [dev, ino, size, birthtimeNs, mtimeNs].map(String);
}
