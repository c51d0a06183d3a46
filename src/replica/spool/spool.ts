import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  rmSync,
  writeSync,
} from 'node:fs';
import type { Stats } from 'node:fs';
import { setImmediate as nextTick } from 'node:timers/promises';
import { SqlsyncError } from '../../errors.ts';
import { createPageHasher, HASH_KEY_BYTES } from '../../pages/hash.ts';
import type { PageHasher } from '../../pages/hash.ts';
import { HeldPages } from './held-pages.ts';
import { removeUnusable } from '../../beside/leftovers.ts';
import type { PageNumber, PageSize } from '../../pages/page-types.ts';
import { pageNumber, pageSize } from '../../pages/page-types.ts';
import { readFully } from '../../files/read-fully.ts';

/** The first bytes of a spool. Its page size and the identity of its replica follow, one line each, then zeros. */
const FORMAT = 'sqlsync spool 1\n';
const HEADER_BYTES = 4096;

/** The number of pages in a group; their hashes stand together before them. */
const GROUP_PAGES = 512;
const HASH_BYTES = 8;
const HASHES_BYTES = GROUP_PAGES * HASH_BYTES;

/** Neighbouring pages up to this size are written, and read back, together. */
const RUN_BYTES = 1024 * 1024;

/** These hashes only have to find accidental damage; the root hash finds pages that were chosen to hide from them. */
const NO_KEY = new Uint8Array(HASH_KEY_BYTES);

/**
 * Pages that wait beside a replica until all of them have arrived and are checked. It is a sparse file in which each
 * page has its place, with its hash. It outlives a run that fails or is killed, and is the old version for the next
 * run.
 *
 *     header │ 512 hashes │ 512 pages │ 512 hashes │ 512 pages │ …
 *
 * A page counts as received only if its hash is there and right. Any hash or page that was torn, lost or damaged is
 * therefore a page that was not received. So nothing has to be synced, a page that comes again overwrites itself, and
 * the file is never larger than the new database and the hashes. The user of a spool holds the lock beside the replica.
 */
export class Spool {
  readonly pageSize: PageSize;
  readonly #path: string;
  readonly #descriptor: number;
  readonly #held = new HeldPages();
  readonly #hasher: PageHasher;
  /** Neighbours that wait to be written together: the pages from `#runFirst` on, and their hashes. */
  readonly #run: Uint8Array;
  readonly #runHashes: Uint8Array;
  #runFirst = 0;
  #runCount = 0;
  #failed = false;
  #closed = false;

  static isThere(path: string): boolean {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  }

  /**
   * The spool that an interrupted run left at `path` for the replica of this identity. Removes a file that is no such
   * spool. Throws the system's errors.
   */
  static async resume(path: string, identity: string): Promise<Spool | undefined> {
    if (!Spool.isThere(path)) return undefined;
    const descriptor = openOwn(path);
    const size = descriptor === undefined ? undefined : readHeader(descriptor, identity);
    if (descriptor === undefined || size === undefined) {
      if (descriptor !== undefined) closeSync(descriptor);
      removeUnusable(path);
      return undefined;
    }
    const spool = new Spool(path, descriptor, size);
    await spool.#load();
    return spool;
  }

  /** Creates an empty spool, and replaces any file at `path`. */
  static create(path: string, identity: string, size: PageSize): Spool {
    removeUnusable(path);
    const descriptor = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
    const header = new Uint8Array(HEADER_BYTES);
    header.set(new TextEncoder().encode(`${FORMAT}${size}\n${identity}\n`));
    const spool = new Spool(path, descriptor, size);
    spool.#writeAll(header, 0);
    return spool;
  }

  private constructor(path: string, descriptor: number, size: PageSize) {
    this.pageSize = size;
    this.#path = path;
    this.#descriptor = descriptor;
    this.#hasher = createPageHasher('xxh64', NO_KEY, size);
    const most = Math.min(GROUP_PAGES, Math.max(1, RUN_BYTES / size));
    this.#run = new Uint8Array(most * size);
    this.#runHashes = new Uint8Array(most * HASH_BYTES);
  }

  get held(): HeldPages {
    return this.#held;
  }

  /** Takes a copy of a page. System errors appear now or with a later page. */
  write(page: PageNumber, bytes: Uint8Array): void {
    const isNext = page === this.#runFirst + this.#runCount && (page - 1) % GROUP_PAGES !== 0;
    if (!isNext || this.#runCount * this.pageSize === this.#run.length) this.flush();
    if (this.#runCount === 0) this.#runFirst = page;
    this.#run.set(bytes, this.#runCount * this.pageSize);
    this.#hasher.hash(bytes, this.#runHashes, this.#runCount * HASH_BYTES);
    this.#runCount++;
    this.#held.add(page);
  }

  /** Writes what waits to the system, which keeps it even if this process is killed. */
  flush(): void {
    if (this.#runCount === 0) return;
    const count = this.#runCount;
    this.#runCount = 0;
    this.#writeAll(this.#run.subarray(0, count * this.pageSize), this.#pageAt(this.#runFirst));
    this.#writeAll(this.#runHashes.subarray(0, count * HASH_BYTES), this.#hashAt(this.#runFirst));
  }

  /** Fills `into` with consecutive pages; the spool must hold all of them. */
  readInto(first: PageNumber, into: Uint8Array): void {
    this.flush();
    const size = this.pageSize;
    for (let at = 0; at < into.length;) {
      const page = first + at / size;
      const inGroup = (GROUP_PAGES - ((page - 1) % GROUP_PAGES)) * size;
      const part = into.subarray(at, at + Math.min(inGroup, into.length - at));
      if (readFully(this.#descriptor, part, this.#pageAt(page)) < part.length) throw this.#damaged(page);
      at += part.length;
    }
  }

  read(page: PageNumber): Uint8Array {
    const bytes = new Uint8Array(this.pageSize);
    this.readInto(page, bytes);
    return bytes;
  }

  /** A page that the spool holds, compared once more with its hash. Throws if the disk has lost it meanwhile. */
  readChecked(page: PageNumber): Uint8Array {
    const bytes = this.read(page);
    const hashes = new Uint8Array(2 * HASH_BYTES);
    this.#hasher.hash(bytes, hashes, 0);
    const [actual, known] = [hashes.subarray(0, HASH_BYTES), hashes.subarray(HASH_BYTES)];
    readFully(this.#descriptor, known, this.#hashAt(page));
    if (Buffer.compare(actual, known) !== 0) throw this.#damaged(page);
    return bytes;
  }

  /** Forgets the pages after `last`, and frees their room. */
  cut(last: number): void {
    this.flush();
    if (this.#held.last <= last) return;
    this.#held.cut(last);
    ftruncateSync(this.#descriptor, last === 0 ? HEADER_BYTES : this.#pageAt(last) + this.pageSize);
  }

  /** Closes the file and leaves it for the next run. Removes a spool that is empty or that filled the disk. */
  close(): void {
    if (this.#closed) return;
    try {
      this.flush();
    } catch {
      // The next run requests the lost pages again.
    }
    if (this.#failed || this.#held.isEmpty) return this.remove();
    this.#closed = true;
    closeSync(this.#descriptor);
  }

  /** Closes and deletes the file. */
  remove(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#descriptor);
    rmSync(this.#path, { force: true });
  }

  /** Reads every page that has a hash, and holds the pages whose hash is right. */
  async #load(): Promise<void> {
    const size = this.pageSize;
    const hashes = new Uint8Array(HASHES_BYTES);
    const actual = new Uint8Array(HASH_BYTES);
    const bytes = fstatSync(this.#descriptor).size;
    for (let first = 1; this.#hashAt(first) < bytes; first += GROUP_PAGES) {
      hashes.fill(0);
      readFully(this.#descriptor, hashes, this.#hashAt(first));
      for (let i = 0; i < GROUP_PAGES;) {
        let end = i;
        while (end < GROUP_PAGES && (end - i) * size < this.#run.length && hasHash(hashes, end)) end++;
        const run = this.#run.subarray(0, (end - i) * size);
        const whole =
          end === i ? 0 : Math.floor(readFully(this.#descriptor, run, this.#pageAt(first + i)) / size);
        for (let k = 0; k < whole; k++) {
          this.#hasher.hash(run.subarray(k * size, (k + 1) * size), actual, 0);
          const at = (i + k) * HASH_BYTES;
          if (Buffer.compare(actual, hashes.subarray(at, at + HASH_BYTES)) === 0)
            this.#held.add(pageNumber(first + i + k));
        }
        i = Math.max(end, i + 1);
      }
      await nextTick();
    }
  }

  #hashAt(page: number): number {
    const index = page - 1;
    return this.#groupAt(index) + (index % GROUP_PAGES) * HASH_BYTES;
  }

  #pageAt(page: number): number {
    const index = page - 1;
    return this.#groupAt(index) + HASHES_BYTES + (index % GROUP_PAGES) * this.pageSize;
  }

  #groupAt(index: number): number {
    return HEADER_BYTES + Math.floor(index / GROUP_PAGES) * (HASHES_BYTES + GROUP_PAGES * this.pageSize);
  }

  #writeAll(bytes: Uint8Array, offset: number): void {
    try {
      for (let at = 0; at < bytes.length;)
        at += writeSync(this.#descriptor, bytes, at, bytes.length - at, offset + at);
    } catch (error) {
      this.#failed = true;
      throw error;
    }
  }

  #damaged(page: number): Error {
    return new SqlsyncError(
      'REPLICA_UNWRITABLE',
      `${this.#path} has lost page ${page} since it was written or checked`,
      { hint: 'Nothing was changed. Check the disk, then run sqlsync again: it fetches that page again.' },
    );
  }
}

/**
 * Opens the file at `path` only if no one else can have written it. A second link means that another program uses these
 * bytes; a symbolic link, that they are not ours; another owner or wider permissions, that others could change them
 * after we checked them.
 */
function openOwn(path: string): number | undefined {
  const isOwn = (stats: Stats): boolean =>
    stats.isFile() &&
    stats.nlink === 1 &&
    stats.uid === (process.geteuid?.() ?? stats.uid) &&
    (process.platform === 'win32' || (stats.mode & 0o077) === 0);
  if (!isOwn(lstatSync(path))) return undefined;
  const descriptor = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW);
  if (isOwn(fstatSync(descriptor))) return descriptor;
  closeSync(descriptor);
  return undefined;
}

/** The page size in the header; undefined if it is not a header, or belongs to another replica's spool. */
function readHeader(descriptor: number, identity: string): PageSize | undefined {
  const header = Buffer.alloc(HEADER_BYTES);
  readFully(descriptor, header, 0);
  const size = pageSize(Number(header.toString('latin1').split('\n')[1]));
  if (size === undefined) return undefined;
  const expected = Buffer.alloc(HEADER_BYTES);
  expected.write(`${FORMAT}${size}\n${identity}\n`);
  return header.equals(expected) ? size : undefined;
}

function hasHash(hashes: Uint8Array, index: number): boolean {
  const at = index * HASH_BYTES;
  for (let i = at; i < at + HASH_BYTES; i++) if (hashes[i] !== 0) return true;
  return false;
}
