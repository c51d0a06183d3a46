import { SqlsyncError, systemErrorCode } from '../../errors.ts';
import { retryBusy } from '../../sqlite/busy.ts';
import { DatabaseReader } from '../../sqlite/database-reader.ts';
import { ReplicaWriter } from '../../sqlite/writer/replica-writer.ts';
import { wouldLeaveForeignFiles } from '../../pages/database-file.ts';
import type { DatabaseFile } from '../../pages/database-file.ts';
import { FilePages } from '../../pages/file-pages.ts';
import type { PageReader } from '../../pages/file-pages.ts';
import { parseHeader } from '../../pages/header.ts';
import type { DatabaseHeader } from '../../pages/header.ts';
import type { MarkedOrigin } from '../../beside/mark.ts';
import { readOneByOne } from '../../pages/page-source.ts';
import type { PageSource } from '../../pages/page-source.ts';
import type { Staging } from '../spool/staging.ts';
import type { PageCount, PageNumber, PageSize } from '../../pages/page-types.ts';
import { lockBytePage, pageCount, pageSize } from '../../pages/page-types.ts';
import { needsRecovery, ReplicaMovedError, replicaError, replicaReplaced } from '../replica-error.ts';

export interface ReplicaOptions {
  /** How long to wait for locks that other programs hold, in milliseconds. */
  readonly busyTimeoutMs: number;
  /** How the old state is read; default 'file'. */
  readonly reader?: PageReader | undefined;
  readonly signal?: AbortSignal | undefined;
  /** sqlsync may write nothing, not even through SQLite's recovery. */
  readonly dryRun?: boolean | undefined;
  /** The file may change under its other names too. */
  readonly followLinks?: boolean | undefined;
  /** The spool in which pages wait, with what an interrupted run left there. */
  readonly staging?: Staging | undefined;
  /** The origin to name in the replica's mark; undefined for a database without a mark. */
  readonly mark?: MarkedOrigin | undefined;
}

const FIRST_PAGE = 1 as PageNumber;

/** The state of an existing replica before the sync, in a read transaction of a read-only connection. */
export class OldState implements PageSource {
  readonly pageSize: PageSize;
  readonly #reader: DatabaseReader;
  readonly #files: FilePages | undefined;
  #pageCount: PageCount = pageCount(0);
  #dataVersion = 0;
  /** The schema cookie of the state that was read before a pause. */
  #cookieAtPause: { readonly cookie: number | undefined } | undefined;
  #closed = false;

  /** Throws SqlsyncError. SQLite first rolls back a hot journal that a killed sync left. */
  static async open(file: DatabaseFile, options: ReplicaOptions): Promise<OldState> {
    if (wouldLeaveForeignFiles(file)) {
      throw new SqlsyncError(
        'REPLICA_UNWRITABLE',
        `Replica ${file.path} is idle in WAL mode and belongs to another user (uid ${file.stats.uid}); opening it would create -wal and -shm files that its owner could not write`,
        { hint: 'Run sqlsync as the owner of the replica.' },
      );
    }
    for (let recovered = false; ; recovered = true) {
      try {
        return await OldState.#openOnce(file, options);
      } catch (error) {
        if (recovered || systemErrorCode(error) !== 'SQLITE_READONLY_ROLLBACK') {
          throw replicaError(file.path, error);
        }
        if (options.dryRun === true) throw needsRecovery(file.path, error);
        recover(file);
      }
    }
  }

  static async #openOnce(file: DatabaseFile, options: ReplicaOptions): Promise<OldState> {
    const files = options.reader === 'dbpage' ? undefined : new FilePages(file.path);
    let reader: DatabaseReader | undefined;
    try {
      reader = new DatabaseReader(file.path);
      const shape = await begin(reader, options);
      return new OldState(reader, files, shape);
    } catch (error) {
      reader?.close();
      files?.close();
      throw error;
    }
  }

  private constructor(reader: DatabaseReader, files: FilePages | undefined, shape: Shape) {
    this.#reader = reader;
    this.#files = files;
    this.pageSize = pageSize(shape.pageSize) as PageSize;
    this.#begun(shape);
  }

  get pageCount(): PageCount {
    return this.#pageCount;
  }

  /** True if there are no pages, or only the one page of an empty database. */
  get isEmpty(): boolean {
    return (
      this.#pageCount === 0 || (this.#pageCount === 1 && this.#try(() => this.#reader.schemaSize()) === 0)
    );
  }

  /** As page 1 says; the WAL may hold a newer page 1 than the file. */
  get textEncoding(): DatabaseHeader['textEncoding'] {
    return (
      (this.#pageCount === 0 ? undefined : parseHeader(this.readPage(FIRST_PAGE)))?.textEncoding ?? 'UTF-8'
    );
  }

  readPage(page: PageNumber): Uint8Array {
    return this.#try(() =>
      this.#files === undefined ? this.#readByDbpage(page) : new Uint8Array(this.#files.readPages(page, 1)),
    );
  }

  readPages(first: PageNumber, count: number): Uint8Array {
    return this.#try(() => this.#files?.readPages(first, count)) ?? readOneByOne(this, first, count);
  }

  readInto(first: PageNumber, into: Uint8Array): void {
    if (this.#files === undefined) into.set(readOneByOne(this, first, into.length / this.pageSize));
    else this.#try(() => this.#files?.readInto(first, into));
  }

  /**
   * Moves to the newest state; the caller holds the write lock. Returns 'committed' if the schema cookie moved: another
   * sync may have committed, since each moves it. Returns 'touched' if another program changed the replica.
   */
  async refresh(options: ReplicaOptions): Promise<'same' | 'touched' | 'committed'> {
    const cookie = this.#cookieAtPause === undefined ? this.#schemaCookie() : this.#cookieAtPause.cookie;
    this.#cookieAtPause = undefined;
    this.#reader.end();
    const before = this.#dataVersion;
    const shape = await begin(this.#reader, options);
    if (pageSize(shape.pageSize) !== this.pageSize) throw new ReplicaMovedError(this.#reader.path);
    this.#begun(shape);
    if (this.#dataVersion === before) return 'same';
    return this.#schemaCookie() === cookie ? 'touched' : 'committed';
  }

  /**
   * Ends the read transaction until `refresh`; nothing can be read meanwhile. A rollback-mode writer that is about to
   * commit waits for all readers, so a run that waits for that writer's lock must not be a reader.
   */
  pause(): void {
    this.#cookieAtPause ??= { cookie: this.#schemaCookie() };
    this.#reader.end();
  }

  /** Ends the read transaction, so that a rollback-mode replica can be locked. Nothing can be read afterwards. */
  end(): void {
    this.#reader.end();
  }

  /** Closes the connection. Call `closeFile` later, when no other connection of this process is open. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reader.close();
  }

  /** Closes our own descriptor of the file, which drops every lock that this process still holds on it. */
  closeFile(): void {
    this.#files?.close();
  }

  #begun(shape: Shape): void {
    this.#pageCount = pageCount(shape.pageCount);
    this.#dataVersion = this.#reader.dataVersion();
    if (this.#files?.begin(this.pageSize, this.#pageCount, (page) => this.#readByDbpage(page)) === false) {
      throw replicaReplaced(this.#reader.path);
    }
  }

  #schemaCookie(): number | undefined {
    return this.#pageCount === 0 ? undefined : parseHeader(this.readPage(FIRST_PAGE))?.schemaCookie;
  }

  #try<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      throw replicaError(this.#reader.path, error);
    }
  }

  #readByDbpage(page: PageNumber): Uint8Array {
    if (page === lockBytePage(this.pageSize)) return new Uint8Array(this.pageSize);
    return this.#reader.readPage(page);
  }
}

interface Shape {
  readonly pageSize: number;
  readonly pageCount: number;
}

function begin(reader: DatabaseReader, options: ReplicaOptions): Promise<Shape> {
  const { busyTimeoutMs: timeoutMs, signal } = options;
  return retryBusy(`Replica ${reader.path}`, () => reader.begin(), { timeoutMs, signal });
}

/**
 * A sync that was killed while it applied its pages left a hot journal. SQLite's recovery undoes it as soon as a
 * connection with write permission looks at the file. If that fails, the next reader reports why.
 */
export function recover(file: DatabaseFile): void {
  try {
    const writer = new ReplicaWriter(file.path, {
      textEncoding: file.header?.textEncoding ?? 'UTF-8',
      wal: false,
    });
    try {
      writer.pageCount();
    } finally {
      writer.close();
    }
  } catch {
    // After an interrupted change of the text encoding ATTACH fails, but only after the recovery.
  }
}
