import { createHash } from 'node:crypto';
import { fdatasync, fstatSync, statSync } from 'node:fs';
import type { BigIntStats } from 'node:fs';
import { promisify } from 'node:util';
import { bootId } from '../files/machine.ts';
import { timesEveryWrite } from '../files/mounts.ts';
import { readFully } from '../files/read-fully.ts';
import type { DatabaseReader } from '../sqlite/database-reader.ts';
import { HEADER_BYTES } from './header.ts';
import { lookOf, pagesSince } from './wal-changes.ts';
import type { WalLook } from './wal-changes.ts';
import { frameCount, saltsOf, WalIndex } from './wal-index.ts';

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

/** Stands in a stamp for the -wal of a database whose whole content is in its file. */
const ALL_IN_FILE: readonly string[] = ['all in the file'];

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
 * If the -wal has content, the stamp holds the header of the wal-index. In WAL mode there is no stamp if that changed
 * between `attached` and `take`: then it may be that of a later commit than the snapshot. Everything else is of the file, which no SQLite changes in
 * content while the snapshot lasts. A failure only means that there is no stamp.
 */
export class StampTaker {
  /** See `changedSince`; undefined if nothing can prove later which pages are unchanged. `take` sets it. */
  look: WalLook | undefined;
  readonly #path: string;
  readonly #descriptor: number;
  readonly #minAgeMs: number;
  /** True once no page of the file is dirty. */
  #isSettled = false;
  #index: WalIndex | undefined;
  #before: Buffer | undefined;
  #now: Buffer | undefined;
  #file: string | undefined;

  /**
   * @param path Absolute and real.
   * @param descriptor Of the file at `path`. It stays the caller's.
   * @param minAgeMs How old the last change has to be; 0 if the caller knows that each later one moves the ctime.
   */
  constructor(path: string, descriptor: number, minAgeMs: number = MIN_AGE_MS) {
    this.#path = path;
    this.#descriptor = descriptor;
    this.#minAgeMs = minAgeMs;
  }

  /**
   * Writes the dirty pages of the file to the disk, if it may get a stamp. A program that writes through a memory map
   * moves the ctime only where it finds a clean page.
   */
  async settle(now: number = Date.now()): Promise<void> {
    try {
      const isOld = fstatSync(this.#descriptor).ctimeMs <= now - this.#minAgeMs;
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

  /** The wal-index, if the snapshot may get a stamp. It stays open until `close`. */
  get walIndex(): WalIndex | undefined {
    return this.#index;
  }

  /** The header of the wal-index that belongs to the stamp. */
  get walHeader(): Buffer | undefined {
    return this.#now;
  }

  /** True if nobody has written to the file since `take`. */
  get isUntouched(): boolean {
    return this.#file !== undefined && fileFacts(this.#path).text === this.#file;
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
    return this.#isSettled ? this.compare(moment) : undefined;
  }

  /**
   * As `take`, also where nothing was settled. It must not be kept: a program may write to a page that is dirty already,
   * which moves no time. If it equals a stamp that was kept, the database is as it was then, because all pages were
   * clean at that time. The caller has to know that the file system times every write.
   */
  compare(moment: StampMoment = { now: Date.now(), bootId: bootId() }): Uint8Array | undefined {
    try {
      return this.#stamp(moment);
    } catch {
      return undefined;
    }
  }

  /**
   * As `compare`, for a file that no connection of this process has open; undefined if part of the content may be
   * outside of the file. The caller has to know that there is no hot journal, and that no -wal lies beside another name.
   */
  compareUnopened(moment: StampMoment = { now: Date.now(), bootId: bootId() }): Uint8Array | undefined {
    try {
      // The -wal comes first: what a checkpoint moves into the file after this look changes the file's times.
      if (walFacts(this.#path).length > 0) return undefined;
      const facts = this.#facts(moment)?.facts;
      return facts && digestOf([...facts, ...ALL_IN_FILE]);
    } catch {
      return undefined;
    }
  }

  /**
   * The pages that may differ from those of the snapshot of `look`, without those beyond its end; undefined if that is
   * not known. Call it after `take`, while the snapshot lasts.
   */
  changedSince(
    look: WalLook,
    { pageSize, pageCount }: { readonly pageSize: number; readonly pageCount: number },
  ): number[] | undefined {
    const now = this.#now;
    if (now === undefined || look.file !== this.look?.file) return undefined;
    try {
      const pages = pagesSince(look, now, { path: this.#path, pageSize, pageCount });
      // A snapshot that needs no frame does not keep writers from beginning the WAL anew.
      const after = this.#index?.header();
      return after !== undefined && saltsOf(after).equals(saltsOf(now)) ? pages : undefined;
    } catch {
      return undefined;
    }
  }

  /** Call it when every connection of this process to the database is closed. */
  close(): void {
    this.#index?.close();
  }

  #facts({ now, bootId: boot }: StampMoment): { facts: string[]; isWal: boolean } | undefined {
    if (boot === undefined) return undefined;
    const header = Buffer.alloc(HEADER_BYTES);
    if (readFully(this.#descriptor, header, 0) < HEADER_BYTES) return undefined;
    const file = this.#fileFacts(now);
    if (file === undefined) return undefined;
    const counters = [header.subarray(24, 40), header.subarray(92, 100)].map((bytes) =>
      bytes.toString('hex'),
    );
    const facts = ['sqlsync stamp 2', boot, this.#path, ...file, ...counters];
    return { facts, isWal: header[18] === 2 && header[19] === 2 };
  }

  #stamp(moment: StampMoment): Uint8Array | undefined {
    const { facts, isWal } = this.#facts(moment) ?? {};
    if (facts === undefined || isWal === undefined) return undefined;
    this.#now = isWal ? this.#index?.header() : undefined;
    if (this.#now !== undefined && this.#before !== undefined)
      this.look = lookOf(digestOf(facts).toString('hex'), this.#before, this.#now);
    const wal = this.#walFacts(isWal);
    return wal && digestOf([...facts, ...wal]);
  }

  #fileFacts(now: number): readonly string[] | undefined {
    const own = fstatSync(this.#descriptor, { bigint: true });
    const named = statSync(this.#path, { bigint: true, throwIfNoEntry: false });
    // A -wal beside another name of the file could hold changes.
    if (named?.dev !== own.dev || named.ino !== own.ino || own.nlink !== 1n) return undefined;
    if (Number(own.ctimeMs) > now - this.#minAgeMs) return undefined;
    this.#file = textOf(own);
    return [...factsOf(own), String(own.ctimeNs)];
  }

  /** Undefined if it is not certain where the newest commits are. */
  #walFacts(isWal: boolean): readonly string[] | undefined {
    const wal = walFacts(this.#path);
    // Beside a database in rollback mode SQLite uses a -wal with content nevertheless.
    if (!isWal) return wal.length === 0 ? ALL_IN_FILE : undefined;
    const index = this.#now;
    if (index === undefined || this.#before?.equals(index) !== true) return undefined;
    // The index of a -wal without frames says nothing of the content: all of it is in the file.
    if (wal.length === 0) return frameCount(index) > 0 ? undefined : ALL_IN_FILE;
    return [index.toString('hex'), ...wal];
  }
}

function digestOf(facts: readonly unknown[]): Buffer {
  return createHash('sha256').update(JSON.stringify(facts)).digest();
}

/**
 * What the file system alone says of the database at `path`, which is real: if it differs, so does the stamp. Opens
 * nothing. Throws the system's errors.
 */
export function outerStamp(path: string): string {
  return [bootId(), fileFacts(path).text, ...walFacts(path)].join(' ');
}

/** What a write to the file at `path`, which is real, changes; device and inode too. Throws the system's errors. */
export function fileFacts(path: string): { readonly text: string; readonly ctimeNs: bigint } {
  const stats = statSync(path, { bigint: true });
  return { text: textOf(stats), ctimeNs: stats.ctimeNs };
}

function textOf(stats: BigIntStats): string {
  return [...factsOf(stats), stats.ctimeNs].join(' ');
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
