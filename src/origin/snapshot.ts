import { MAX_PAGE_COUNT } from '../../protocol/limits.ts';
import { SqlsyncError } from '../errors.ts';
import type { DatabaseFile } from '../pages/database-file.ts';
import { fileBytes } from '../pages/database-file.ts';
import { hasChecksumVfs, parseHeader } from '../pages/header.ts';
import { hostName } from '../files/machine.ts';
import { readMark } from '../beside/mark.ts';
import type { Mark } from '../beside/mark.ts';
import { ReadTransaction } from '../pages/read-transaction.ts';
import type { ReadOptions } from '../pages/read-transaction.ts';
import { originError, originReplaced, originTruncated } from './origin-error.ts';
import { inspectOrigin, mustOpenImmutable } from './origin-file.ts';
import { OriginGuard } from './origin-guard.ts';
import { checkOriginNames } from './origin-names.ts';
import type { OriginNames } from './origin-names.ts';
import type { PageSource } from '../pages/page-source.ts';
import type { PageCount, PageNumber, PageSize } from '../pages/page-types.ts';
import { pageCount, pageSize } from '../pages/page-types.ts';
import type { WalLook } from '../pages/wal-changes.ts';

/** The page size assumed for a database without pages. */
const DEFAULT_PAGE_SIZE = 4096;

/**
 * One instant of a live database, held by a read transaction on a read-only connection until `close`.
 *
 *     open ──► begin (the instant) ──► readPage … readPage ──► checkUnreplaced ──► close
 *
 * In WAL mode writers go on meanwhile and only the WAL grows; in rollback mode they wait.
 */
export class DatabaseSnapshot implements PageSource {
  readonly path: string;
  readonly file: DatabaseFile;
  /** The mark of the file, if it is itself a replica. */
  readonly mark: Mark | undefined;
  readonly pageSize: PageSize;
  readonly pageCount: PageCount;
  /** What the user should know, one sentence each; `notes` only matter to users who ask for detail. */
  readonly warnings: string[] = [];
  readonly notes: string[] = [];
  readonly #guard: OriginGuard;
  /** undefined for a file of 0 bytes, since it has nothing to read. */
  readonly #pages: ReadTransaction | undefined;
  readonly #names: OriginNames;
  readonly #beganAtMs: number;
  readonly #walBytesAtStart: number;
  /** True if the connection outlives the snapshot. */
  #isKept = false;
  /** True until `close`. */
  isOpen = true;

  /** Throws SqlsyncError: ORIGIN_* and BUSY. `path` may be relative and may be a symbolic link. */
  static async open(path: string, options: ReadOptions): Promise<DatabaseSnapshot> {
    const { file, absolutePath } = inspectOrigin(path);
    const names = await checkOriginNames(file);
    const mark = readMark(absolutePath);
    const isEmpty = file.stats.size === 0;
    const isUnlocked = !isEmpty && mustOpenImmutable(file);
    let pages: ReadTransaction | undefined;
    try {
      const guard = new OriginGuard(file, { isUnlocked });
      if (!isEmpty) pages = await beginRead(absolutePath, guard, isUnlocked, options);
      if (!isEmpty && names.mayBeWrittenByAnotherName) guard.watchOtherNames();
      return new DatabaseSnapshot({ file, names, mark }, guard, pages);
    } catch (error) {
      pages?.close();
      pages?.closeFile();
      throw originError(absolutePath, error);
    }
  }

  private constructor(
    { file, names, mark }: { file: DatabaseFile; names: OriginNames; mark: Mark | undefined },
    guard: OriginGuard,
    pages: ReadTransaction | undefined,
  ) {
    this.path = file.path;
    this.file = file;
    this.mark = mark;
    this.#names = names;
    this.warnings.push(...names.warnings);
    this.#guard = guard;
    this.#pages = pages;
    this.#beganAtMs = pages?.beganAtMs ?? performance.now();
    this.#walBytesAtStart = fileBytes(`${file.path}-wal`);
    this.pageSize = pages?.pageSize ?? (pageSize(DEFAULT_PAGE_SIZE) as PageSize);
    this.pageCount = pages?.pageCount ?? pageCount(0);
    if (this.pageCount > 0) this.#checkFirstPage();
  }

  /** See `ReadTransaction.stamp`. */
  get stamp(): Uint8Array | undefined {
    return this.#pages?.stamp;
  }

  /** See `ReadTransaction.look`. */
  get look(): WalLook | undefined {
    return this.#pages?.look;
  }

  /** See `ReadTransaction.changedSince`. */
  changedSince(look: WalLook): number[] | undefined {
    return this.#pages?.changedSince(look);
  }

  /** This host. */
  get host(): string {
    return hostName();
  }

  /** Permission bits of the file. */
  get fileMode(): number {
    return this.file.stats.mode & 0o777;
  }

  get wal(): boolean {
    return this.file.header?.wal === true;
  }

  /** Milliseconds since the snapshot began. */
  get heldMs(): number {
    return performance.now() - this.#beganAtMs;
  }

  /**
   * Bytes by which the origin's -wal file grew since the snapshot began; 0 if the WAL restarted from its beginning.
   * Throws ORIGIN_*.
   */
  get walGrowthBytes(): number {
    return this.#guard.reading(() => Math.max(0, fileBytes(`${this.path}-wal`) - this.#walBytesAtStart));
  }

  readPage(page: PageNumber): Uint8Array {
    return this.#read().readPage(page);
  }

  readPages(first: PageNumber, count: number): Uint8Array {
    return this.#read().readPages(first, count);
  }

  readInto(first: PageNumber, into: Uint8Array): void {
    this.#read().readInto(first, into);
  }

  /** See `PageSource.cloneTo`. */
  cloneTo(descriptor: number): void {
    this.#read().cloneTo(descriptor);
  }

  /** The table or index of each page that a b-tree reaches. Throws SQLite's errors. */
  pageOwners(): Iterable<{ readonly page: number; readonly name: string }> {
    return this.#pages?.reader.pageOwners() ?? [];
  }

  /** How many of `pages` each table and index owns; pages that no b-tree reaches count as '(free)'. */
  ownersOf(pages: ReadonlySet<number>): Map<string, number> {
    const counts = new Map<string, number>();
    let owned = 0;
    for (const { page, name } of this.pageOwners()) {
      if (!pages.has(page)) continue;
      counts.set(name, (counts.get(name) ?? 0) + 1);
      owned++;
    }
    if (pages.size > owned) counts.set('(free)', pages.size - owned);
    return counts;
  }

  /**
   * Throws ORIGIN_REPLACED if the path now names another file than the one that was read, or another ORIGIN_* error.
   */
  checkUnreplaced(): void {
    this.#guard.reading(() => {
      if (this.#guard.isReplaced()) throw originReplaced(this.path);
    });
  }

  close(): void {
    this.isOpen = false;
    if (this.#isKept) return this.#pages?.end();
    this.#pages?.close();
    this.#pages?.closeFile();
  }

  /** From now on `close` ends only the transaction; `again` begins the next one, and `detach` closes the connection. */
  keepOpen(): void {
    this.#isKept = true;
  }

  /** The newest state, on the same connection, after `close`. Throws as `open`. */
  async again(): Promise<DatabaseSnapshot> {
    const { file, mark } = this;
    try {
      const guard = new OriginGuard(file, { isUnlocked: false });
      await this.#read().begin();
      if (this.#names.mayBeWrittenByAnotherName) guard.watchOtherNames();
      const next = new DatabaseSnapshot({ file, names: this.#names, mark }, guard, this.#pages);
      next.keepOpen();
      return next;
    } catch (error) {
      throw originError(this.path, error);
    }
  }

  /** Closes a connection that was kept; `between` runs when it is closed and our descriptors are not. */
  detach(between: () => void): void {
    this.#pages?.close();
    between();
    this.#pages?.closeFile();
  }

  #read(): ReadTransaction {
    if (this.#pages === undefined) throw new Error(`${this.path} has no pages`);
    return this.#pages;
  }

  #checkFirstPage(): void {
    // SQLite reads it: if nothing else of the snapshot is read, nobody has to look at a long WAL.
    const page = this.#guard.reading(() => this.#read().reader.readPage(1));
    const header = parseHeader(page);
    if (header?.pageCount !== undefined && header.pageCount > this.pageCount) {
      throw new SqlsyncError(
        'ORIGIN_UNREADABLE',
        `Origin ${this.path} is truncated: its header counts ${header.pageCount} pages, the file has ${this.pageCount}`,
        { hint: 'Restore it from a backup, or salvage it with `sqlite3 FILE .recover`.' },
      );
    }
    if (hasChecksumVfs(page)) {
      throw new SqlsyncError(
        'ORIGIN_CHECKSUM_VFS',
        `Origin ${this.path} carries page checksums of SQLite's checksum VFS, which a copy would make invalid`,
        {
          hint: 'Remove the 8 reserved bytes (`.filectrl reserve_bytes 0`, then VACUUM), or copy it with VACUUM INTO.',
        },
      );
    }
    if (this.pageCount > MAX_PAGE_COUNT) {
      throw new SqlsyncError(
        'ORIGIN_TOO_LARGE',
        `Origin ${this.path} has ${this.pageCount} pages; ${MAX_PAGE_COUNT} can be addressed`,
        { hint: 'Use a larger page size (PRAGMA page_size, then VACUUM).' },
      );
    }
    this.#describe(header?.sqliteVersion ?? 0);
  }

  #describe(sqliteVersion: number): void {
    if (this.wal && sqliteVersion >= 3_007_000 && sqliteVersion <= 3_051_002) {
      const version = `${Math.floor(sqliteVersion / 1e6)}.${Math.floor(sqliteVersion / 1e3) % 1e3}.${sqliteVersion % 1e3}`;
      this.notes.push(
        `${this.path} was last written by SQLite ${version}, which has the WAL-reset bug fixed in 3.51.3.`,
      );
    }
  }
}

function beginRead(
  path: string,
  guard: OriginGuard,
  immutable: boolean,
  options: ReadOptions,
): Promise<ReadTransaction> {
  const database = {
    path,
    name: `Origin ${path}`,
    immutable,
    guard: <T>(read: () => T): T => guard.reading(read),
    replaced: () => originReplaced(path),
    absent: (page: PageNumber): never => {
      throw originTruncated(path, page);
    },
  };
  return ReadTransaction.open(database, options);
}
