import { SqlsyncError, systemErrorCode } from '../../errors.ts';
import { ReplicaWriter } from '../../sqlite/writer/replica-writer.ts';
import { wouldLeaveForeignFiles } from '../../pages/database-file.ts';
import type { DatabaseFile } from '../../pages/database-file.ts';
import { parseHeader } from '../../pages/header.ts';
import type { DatabaseHeader } from '../../pages/header.ts';
import type { PageSource } from '../../pages/page-source.ts';
import type { PageCount, PageNumber, PageSize } from '../../pages/page-types.ts';
import { ReadTransaction } from '../../pages/read-transaction.ts';
import type { ReadDatabase, ReadOptions } from '../../pages/read-transaction.ts';
import type { WalIndex } from '../../pages/wal-index.ts';
import type { MarkedOrigin } from '../../beside/mark.ts';
import type { Staging } from '../spool/staging.ts';
import { needsRecovery, ReplicaMovedError, replicaError, replicaReplaced } from '../replica-error.ts';

export interface ExistingOptions extends ReadOptions {
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
  readonly #path: string;
  readonly #pages: ReadTransaction;
  /** The schema cookie of the state that was read before a pause. */
  #cookieAtPause: { readonly cookie: number | undefined } | undefined;

  /** Throws SqlsyncError. SQLite first rolls back a hot journal that a killed sync left. */
  static async open(file: DatabaseFile, options: ExistingOptions): Promise<OldState> {
    if (wouldLeaveForeignFiles(file)) {
      throw new SqlsyncError(
        'REPLICA_UNWRITABLE',
        `Replica ${file.path} is idle in WAL mode and belongs to another user (uid ${file.stats.uid}); opening it would create -wal and -shm files that its owner could not write`,
        { hint: 'Run sqlsync as the owner of the replica.' },
      );
    }
    for (let recovered = false; ; recovered = true) {
      try {
        return new OldState(file.path, await beginRead(file.path, options));
      } catch (error) {
        if (recovered || systemErrorCode(error) !== 'SQLITE_READONLY_ROLLBACK') {
          throw replicaError(file.path, error);
        }
        if (options.dryRun === true) throw needsRecovery(file.path, error);
        recover(file);
      }
    }
  }

  private constructor(path: string, pages: ReadTransaction) {
    this.#path = path;
    this.#pages = pages;
    this.pageSize = pages.pageSize;
  }

  get pageCount(): PageCount {
    return this.#pages.pageCount;
  }

  /** See `ReadTransaction.stamp`. */
  get stamp(): Uint8Array | undefined {
    return this.#pages.stamp;
  }

  /** See `StampTaker`; they serve until `closeFile`. */
  get walIndex(): WalIndex | undefined {
    return this.#pages.walIndex;
  }

  get isUntouched(): boolean {
    return this.#pages.isUntouched;
  }

  /** True if there are no pages, or only the one page of an empty database. */
  get isEmpty(): boolean {
    if (this.pageCount > 1) return false;
    return this.pageCount === 0 || guarded(this.#path, () => this.#pages.reader.schemaSize()) === 0;
  }

  /** As page 1 says; the WAL may hold a newer page 1 than the file. */
  get textEncoding(): DatabaseHeader['textEncoding'] {
    return (
      (this.pageCount === 0 ? undefined : parseHeader(this.readPage(FIRST_PAGE)))?.textEncoding ?? 'UTF-8'
    );
  }

  readPage(page: PageNumber): Uint8Array {
    return this.#pages.readPage(page);
  }

  readPages(first: PageNumber, count: number): Uint8Array {
    return this.#pages.readPages(first, count);
  }

  readInto(first: PageNumber, into: Uint8Array): void {
    this.#pages.readInto(first, into);
  }

  /**
   * Moves to the newest state; the caller holds the write lock. Returns 'committed' if the schema cookie moved: another
   * sync may have committed, since each moves it. Returns 'touched' if another program changed the replica.
   */
  async refresh(): Promise<'same' | 'touched' | 'committed'> {
    const cookie = this.#cookieAtPause === undefined ? this.#schemaCookie() : this.#cookieAtPause.cookie;
    this.#cookieAtPause = undefined;
    this.#pages.end();
    const before = this.#pages.dataVersion;
    await this.#pages.begin();
    if (this.#pages.pageSize !== this.pageSize) throw new ReplicaMovedError(this.#path);
    if (this.#pages.dataVersion === before) return 'same';
    return this.#schemaCookie() === cookie ? 'touched' : 'committed';
  }

  /**
   * Ends the read transaction until `refresh`; nothing can be read meanwhile. A rollback-mode writer that is about to
   * commit waits for all readers, so a run that waits for that writer's lock or spool must not be a reader.
   */
  pause(): void {
    this.#cookieAtPause ??= { cookie: this.#schemaCookie() };
    this.#pages.end();
  }

  /** Ends the read transaction, so that a rollback-mode replica can be locked. Nothing can be read afterwards. */
  end(): void {
    this.#pages.end();
  }

  /** Closes the connection. Call `closeFile` later, when no other connection of this process is open. */
  close(): void {
    this.#pages.close();
  }

  /** Closes our own descriptor of the file, which drops every lock that this process still holds on it. */
  closeFile(): void {
    this.#pages.closeFile();
  }

  #schemaCookie(): number | undefined {
    return this.pageCount === 0 ? undefined : parseHeader(this.readPage(FIRST_PAGE))?.schemaCookie;
  }
}

function beginRead(path: string, options: ExistingOptions): Promise<ReadTransaction> {
  return ReadTransaction.open(replicaToRead(path), options);
}

export function replicaToRead(path: string): ReadDatabase {
  return {
    path,
    name: `Replica ${path}`,
    guard: (read) => guarded(path, read),
    replaced: () => replicaReplaced(path),
  };
}

function guarded<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw replicaError(path, error);
  }
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
