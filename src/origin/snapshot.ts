import { MAX_PAGE_COUNT } from '../../protocol/limits.ts';
import { SqlsyncError } from '../errors.ts';
import { retryBusy } from '../sqlite/busy.ts';
import { DatabaseReader } from '../sqlite/database-reader.ts';
import type { DatabaseFile } from '../pages/database-file.ts';
import { currentFileId, fileBytes } from '../pages/database-file.ts';
import { hasChecksumVfs, parseHeader } from '../pages/header.ts';
import { hostName } from '../files/machine.ts';
import { readMark } from '../beside/mark.ts';
import type { Mark } from '../beside/mark.ts';
import { FilePages } from '../pages/file-pages.ts';
import type { PageReader } from '../pages/file-pages.ts';
import { originError, originReplaced, originTruncated } from './origin-error.ts';
import { fileVersion, inspectOrigin, mustOpenImmutable, ownVersion } from './origin-file.ts';
import { checkOriginNames } from './origin-names.ts';
import type { OriginNames } from './origin-names.ts';
import { readOneByOne } from '../pages/page-source.ts';
import type { PageSource } from '../pages/page-source.ts';
import type { PageCount, PageNumber, PageSize } from '../pages/page-types.ts';
import { lockBytePage, pageCount, pageSize } from '../pages/page-types.ts';

export interface SnapshotOptions {
  /** How pages are read; default 'file'. */
  readonly reader?: PageReader | undefined;
  /** How long to wait for a rollback-mode writer that is just committing. */
  readonly busyTimeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** The connection and files that a snapshot reads from; not needed for a file of 0 bytes. */
interface Access {
  readonly reader: DatabaseReader | undefined;
  readonly files: FilePages | undefined;
  /** The file's version, if it is read without locks: no lock then keeps writers from changing it. */
  readonly unlocked: string | undefined;
  /** The file's own version, if a program may write it by another name, where our lock does not hold. */
  readonly unguarded?: string | undefined;
}

const NOTHING: Access = { reader: undefined, files: undefined, unlocked: undefined };

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
  readonly #access: Access;
  #closed = false;
  readonly #locked: PageNumber;
  readonly #startedAt: number = performance.now();
  readonly #walBytesAtStart: number;

  /** Throws SqlsyncError: ORIGIN_* and BUSY. `path` may be relative and may be a symbolic link. */
  static async open(path: string, options: SnapshotOptions): Promise<DatabaseSnapshot> {
    const { file, absolutePath } = inspectOrigin(path);
    const names = await checkOriginNames(file);
    const known = { file, names, mark: readMark(absolutePath) };
    if (file.stats.size === 0) return new DatabaseSnapshot(known, NOTHING, emptyShape());
    const unlocked = mustOpenImmutable(file) ? fileVersion(absolutePath) : undefined;
    let files: FilePages | undefined;
    let reader: DatabaseReader | undefined;
    try {
      if (options.reader !== 'dbpage') files = new FilePages(absolutePath);
      reader = new DatabaseReader(absolutePath, { immutable: unlocked !== undefined });
      const connection = reader;
      const shape = await retryBusy(`Origin ${absolutePath}`, () => connection.begin(), {
        timeoutMs: options.busyTimeoutMs,
        signal: options.signal,
      });
      const unguarded = names.mayBeWrittenByAnotherName ? ownVersion(absolutePath) : undefined;
      return new DatabaseSnapshot(known, { reader, files, unlocked, unguarded }, shape);
    } catch (error) {
      reader?.close();
      files?.close();
      throw originError(absolutePath, error);
    }
  }

  private constructor(
    { file, names, mark }: { file: DatabaseFile; names: OriginNames; mark: Mark | undefined },
    access: Access,
    shape: { pageSize: number; pageCount: number },
  ) {
    this.path = file.path;
    this.file = file;
    this.mark = mark;
    this.warnings.push(...names.warnings);
    this.#access = access;
    this.#walBytesAtStart = fileBytes(`${file.path}-wal`);
    this.pageSize = pageSize(shape.pageSize) as PageSize;
    this.pageCount = pageCount(shape.pageCount);
    this.#locked = lockBytePage(this.pageSize);
    if (access.reader === undefined || this.pageCount === 0) return;
    const read = (page: PageNumber): Uint8Array => this.#readByDbpage(page);
    const absent = (page: PageNumber): never => {
      throw originTruncated(file.path, page);
    };
    if (access.files?.begin(this.pageSize, this.pageCount, read, absent) === false) {
      throw originReplaced(file.path);
    }
    this.#checkFirstPage();
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
    return performance.now() - this.#startedAt;
  }

  /**
   * Bytes by which the origin's -wal file grew since the snapshot began; 0 if the WAL restarted from its beginning.
   * Throws ORIGIN_*.
   */
  get walGrowthBytes(): number {
    return this.#reading(() => Math.max(0, fileBytes(`${this.path}-wal`) - this.#walBytesAtStart));
  }

  readPage(page: PageNumber): Uint8Array {
    if (this.#access.files === undefined) return this.#readByDbpage(page);
    return new Uint8Array(this.readPages(page, 1));
  }

  /** Fills `run` with consecutive pages. */
  readInto(first: PageNumber, run: Uint8Array): void {
    if (this.#access.files === undefined) run.set(readOneByOne(this, first, run.length / this.pageSize));
    else this.#reading(() => this.#access.files?.readInto(first, run));
  }

  readPages(first: PageNumber, count: number): Uint8Array {
    return this.#reading(
      () => this.#access.files?.readPages(first, count) ?? readOneByOne(this, first, count),
    );
  }

  #reading<T>(read: () => T): T {
    let result: T;
    try {
      result = read();
    } catch (error) {
      throw originError(this.path, error);
    }
    this.#checkUnchanged();
    return result;
  }

  /**
   * Data read without locks is worthless once a program has changed the file. The check follows each read, so that the
   * error names the cause; later the change would look like damage on the way.
   */
  #checkUnchanged(): void {
    const { unlocked, unguarded } = this.#access;
    if (unguarded !== undefined && unguarded !== ownVersion(this.path)) {
      throw new SqlsyncError(
        'ORIGIN_CHANGED',
        `A program changed ${this.path} while sqlsync read it, through another name of the file, where locks do not hold`,
        { hint: 'Nothing was changed. Use the same path as that program.' },
      );
    }
    if (unlocked === undefined || unlocked === fileVersion(this.path)) return;
    throw new SqlsyncError(
      'ORIGIN_CHANGED',
      `A program changed ${this.path} while sqlsync read it, without locks because this user may not write its folder`,
      {
        hint: 'Nothing was changed. Run sqlsync again when no program writes. To read with locks: let the application keep a connection open, allow this user to write the folder, or run sqlsync as the application’s user.',
      },
    );
  }

  /** How many of `pages` each table and index owns; pages that no b-tree reaches count as '(free)'. */
  ownersOf(pages: ReadonlySet<number>): Map<string, number> {
    const counts = new Map<string, number>();
    let owned = 0;
    if (this.#access.reader !== undefined) {
      for (const { page, name } of this.#access.reader.pageOwners()) {
        if (!pages.has(page)) continue;
        counts.set(name, (counts.get(name) ?? 0) + 1);
        owned++;
      }
    }
    if (pages.size > owned) counts.set('(free)', pages.size - owned);
    return counts;
  }

  /**
   * Throws ORIGIN_REPLACED if the path now names another file than the one that was read, or another ORIGIN_* error.
   */
  checkUnreplaced(): void {
    this.#reading(() => this.#checkVersion());
  }

  #checkVersion(): void {
    if (currentFileId(this.path) !== this.file.fileId) {
      throw originReplaced(this.path);
    }
    this.#checkUnchanged();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#access.reader?.close();
    this.#access.files?.close();
  }

  #readByDbpage(page: PageNumber): Uint8Array {
    if (page === this.#locked || this.#access.reader === undefined) return new Uint8Array(this.pageSize);
    const { reader } = this.#access;
    return this.#reading(() => reader.readPage(page));
  }

  #checkFirstPage(): void {
    const page = this.readPage(1 as PageNumber);
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

function emptyShape(): { pageSize: number; pageCount: number } {
  return { pageSize: DEFAULT_PAGE_SIZE, pageCount: 0 };
}
