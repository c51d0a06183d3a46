import { closeSync, openSync } from 'node:fs';
import { endianness } from 'node:os';
import { readFully } from '../files/read-fully.ts';
import { commitCount, frameChecksum, frameCount, saltsOf } from '../pages/wal-index.ts';
import type { WalIndex } from '../pages/wal-index.ts';
import { FRAME_HEADER_BYTES, WAL_HEADER_BYTES } from '../pages/wal-pages.ts';

/** With more new frames than this at once, hashing all pages takes no longer than reading them. */
const MAX_FRAMES = 2 ** 18;

/** Old frames are summed up one by one, in which time this process does nothing else. */
const MAX_OLD_FRAMES = 10_000;

/** With more changed pages than this, hashing all pages costs less than the memory for their numbers. */
const MAX_PAGES = 2 ** 20;

/** A restart of the WAL while frames are read makes them worthless; they are then read once more. */
const ATTEMPTS = 4;

/** The lowest bit of the magic number says in which byte order the words of a frame are summed. */
const BIG_ENDIAN_SUMS = 1;

/** The pages that changed between two looks at a WAL. */
export interface CollectedPages {
  readonly pages: ReadonlySet<number>;
  /** The fewest pages that the database had meanwhile; those above may have changed without a frame. */
  readonly leastPages: number;
}

/**
 * Collects the numbers of the pages that change in a database in WAL mode, while one connection of this process stays
 * open. It reads the wal-index and the frames, and takes no lock. Each look begins where the last one ended:
 *
 *     same salts     frame 1 … frame base │ … frame end           the checksum at `base` is still the noted one
 *     other salts    frame 1 … frame end  │ old frames after `base`
 *
 * After a restart of the WAL the commits among the new frames and those of the old ones that still stand behind them
 * have to be exactly as many as the wal-index counts; otherwise some are overwritten, and the pages are not known. The
 * count goes on over restarts as long as a connection keeps the wal-index in use.
 */
export class WalCollector {
  readonly #path: string;
  readonly #index: WalIndex;
  readonly #pageSize: number;
  /** The header of the wal-index up to which all is collected. */
  #base: Buffer | undefined;
  #pages = new Set<number>();
  #leastPages = Infinity;
  #isKnown = true;
  /** True until the first look after `resume`: commits are counted anew by each wal-index. */
  #isResumed = false;

  constructor(databasePath: string, index: WalIndex, pageSize: number) {
    this.#path = `${databasePath}-wal`;
    this.#index = index;
    this.#pageSize = pageSize;
  }

  /** True if something was collected, or may have been missed, since `take`. */
  get hasChanges(): boolean {
    return !this.#isKnown || this.#pages.size > 0;
  }

  /** False if something may have been missed since `take`. */
  get isKnown(): boolean {
    return this.#isKnown;
  }

  /** The header up to which all is collected; undefined before the first look that could be trusted. */
  get base(): Buffer | undefined {
    return this.#base;
  }

  /** Forgets what is known: the database may have changed past the WAL. */
  doubt(): void {
    this.#isKnown = false;
  }

  /** Begins at a header that an earlier connection has noted. */
  resume(base: Buffer): void {
    this.#base = base;
    this.#isResumed = true;
  }

  /** Collects the pages of all commits so far. Returns true if there were any, or if that is not known. */
  look(): boolean {
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      const now = this.#index.header();
      if (now === undefined) break;
      if (this.#base?.equals(now) === true) {
        this.#isResumed = false;
        return false;
      }
      const found = this.#base === undefined ? undefined : this.#attempt(this.#base, now);
      const after = this.#index.header();
      // The frames of a WAL that began anew meanwhile may have been overwritten while they were read.
      if (after === undefined || !saltsOf(after).equals(saltsOf(now))) continue;
      this.#add(found);
      this.#base = now;
      this.#isResumed = false;
      return true;
    }
    this.#isKnown = false;
    this.#base = undefined;
    return true;
  }

  /** What was collected since the last call; undefined if that may not be all. */
  take(): CollectedPages | undefined {
    const taken = this.#isKnown ? { pages: this.#pages, leastPages: this.#leastPages } : undefined;
    this.#pages = new Set();
    this.#leastPages = Infinity;
    this.#isKnown = true;
    return taken;
  }

  /** Puts back what is to be taken once more. */
  keep(taken: CollectedPages | undefined): void {
    this.#add(taken);
  }

  #add(found: CollectedPages | undefined): void {
    for (const page of found?.pages ?? []) this.#pages.add(page);
    this.#leastPages = Math.min(this.#leastPages, found?.leastPages ?? Infinity);
    if (found === undefined || this.#pages.size > MAX_PAGES) this.#isKnown = false;
    if (!this.#isKnown) this.#pages.clear();
  }

  #attempt(base: Buffer, now: Buffer): CollectedPages | undefined {
    const isSameWal = saltsOf(base).equals(saltsOf(now));
    // A wal-index that was made anew counts commits from 0.
    if (!isSameWal && (this.#isResumed || commitCount(now) < commitCount(base))) return undefined;
    let descriptor: number | undefined;
    try {
      if (frameCount(base) === 0 && frameCount(now) === 0 && commitCount(base) === commitCount(now))
        return { pages: new Set(), leastPages: Infinity };
      // The -wal file carries no POSIX locks, so it may be opened and closed at will.
      descriptor = openSync(this.#path, 'r');
      return new FrameReader(descriptor, this.#pageSize).between(base, now);
    } catch {
      return undefined; // the caller hashes all pages, and SQLite says what is wrong
    } finally {
      if (descriptor !== undefined) closeSync(descriptor);
    }
  }
}

/** Reads the frames between two headers of the wal-index, if they are certain to be all. */
class FrameReader {
  readonly #descriptor: number;
  readonly #pageSize: number;
  readonly #header = Buffer.alloc(FRAME_HEADER_BYTES);
  readonly #pages = new Set<number>();
  #leastPages = Infinity;
  #commits = 0;

  constructor(descriptor: number, pageSize: number) {
    this.#descriptor = descriptor;
    this.#pageSize = pageSize;
  }

  between(base: Buffer, now: Buffer): CollectedPages | undefined {
    const isSame = saltsOf(base).equals(saltsOf(now));
    const [from, end] = [isSame ? frameCount(base) : 0, frameCount(now)];
    if (end < from || end - from > MAX_FRAMES) return undefined;
    if (isSame && from > 0 && !this.#isLast(from, base)) return undefined;
    for (let number = from + 1; number <= end; number++)
      if (!this.#collect(number, saltsOf(now))) return undefined;
    if (end > 0 && !this.#isLast(end, now)) return undefined;
    const isAll = isSame || this.#collectOld(base, end, (commitCount(now) - commitCount(base)) >>> 0);
    return isAll ? { pages: this.#pages, leastPages: this.#leastPages } : undefined;
  }

  /** True if the frame is the one that this header ends with. */
  #isLast(number: number, header: Buffer): boolean {
    return (
      this.#read(number) &&
      this.#header.subarray(8, 16).equals(saltsOf(header)) &&
      this.#header.subarray(16, 24).equals(frameChecksum(header))
    );
  }

  /** Collects the page of a frame, if it is of this generation of the WAL. */
  #collect(number: number, salts: Buffer): boolean {
    if (!this.#read(number) || !this.#header.subarray(8, 16).equals(salts)) return false;
    this.#noteFrame();
    return true;
  }

  /** Notes the page of the frame whose header was read last. */
  #noteFrame(): void {
    this.#pages.add(this.#header.readUInt32BE(0));
    const pagesAfterCommit = this.#header.readUInt32BE(4);
    if (pagesAfterCommit === 0) return;
    this.#commits++;
    this.#leastPages = Math.min(this.#leastPages, pagesAfterCommit);
  }

  /**
   * Collects the frames that an older generation got after `base`, of which the first `overwritten` are gone. True if
   * the two together have exactly `commits` commits.
   */
  #collectOld(base: Buffer, overwritten: number, commits: number): boolean {
    if (frameCount(base) === 0 || overwritten > frameCount(base)) return this.#commits === commits;
    const sum = this.#sumFrom(frameChecksum(base));
    const page = Buffer.alloc(this.#pageSize);
    for (let number = frameCount(base) + 1; ; number++) {
      if (number - frameCount(base) > MAX_OLD_FRAMES) return false;
      if (!this.#read(number) || !this.#header.subarray(8, 16).equals(saltsOf(base))) break;
      const at = this.#place(number) + FRAME_HEADER_BYTES;
      if (readFully(this.#descriptor, page, at) < page.length) break;
      sum.add(this.#header.subarray(0, 8));
      sum.add(page);
      if (!sum.isRight(this.#header.subarray(16, 24))) break;
      // A second read could find the header of a frame that overwrote this one meanwhile.
      this.#noteFrame();
    }
    return this.#commits === commits;
  }

  #sumFrom(checksum: Buffer): FrameSum {
    const magic = Buffer.alloc(4);
    readFully(this.#descriptor, magic, 0);
    return new FrameSum(checksum, (magic.readUInt32BE(0) & BIG_ENDIAN_SUMS) === 1);
  }

  #read(number: number): boolean {
    return readFully(this.#descriptor, this.#header, this.#place(number)) === FRAME_HEADER_BYTES;
  }

  #place(number: number): number {
    return WAL_HEADER_BYTES + (number - 1) * (FRAME_HEADER_BYTES + this.#pageSize);
  }
}

/** The running checksum over the frames of a WAL (https://www.sqlite.org/fileformat2.html, "Checksum Algorithm"). */
class FrameSum {
  #s0: number;
  #s1: number;
  readonly #swaps: boolean;

  constructor(checksum: Buffer, isBigEndian: boolean) {
    this.#s0 = checksum.readUInt32BE(0);
    this.#s1 = checksum.readUInt32BE(4);
    this.#swaps = isBigEndian !== (endianness() === 'BE');
  }

  /** @param bytes A multiple of 8 of them. */
  add(bytes: Buffer): void {
    const copy = Buffer.from(bytes);
    if (this.#swaps) copy.swap32();
    const words = new Uint32Array(copy.length / 4);
    new Uint8Array(words.buffer).set(copy);
    let [s0, s1] = [this.#s0, this.#s1];
    for (let i = 0; i < words.length; i += 2) {
      s0 = (s0 + (words[i] as number) + s1) >>> 0;
      s1 = (s1 + (words[i + 1] as number) + s0) >>> 0;
    }
    [this.#s0, this.#s1] = [s0, s1];
  }

  isRight(checksum: Buffer): boolean {
    return checksum.readUInt32BE(0) === this.#s0 && checksum.readUInt32BE(4) === this.#s1;
  }
}
