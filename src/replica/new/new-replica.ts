import { statSync } from 'node:fs';
import { SqlsyncError, systemErrorCode } from '../../errors.ts';
import { copyByBackup, leaveWal, switchJournalMode } from '../../sqlite/backup-copy.ts';
import { retryLocked } from '../../sqlite/locks/holder-watch.ts';
import type { ExclusiveLock } from '../../sqlite/locks/exclusive-lock.ts';
import { waitExclusiveLock } from '../../sqlite/locks/exclusive-lock.ts';
import type { DatabaseFile } from '../../pages/database-file.ts';
import { contentStamp, currentFileId, inspectDatabase } from '../../pages/database-file.ts';
import { allocatedBytes, checkFreeSpace } from '../free-space.ts';
import { findLeftover, refuseLeftover } from '../../beside/leftovers.ts';
import { publishWithoutReplacing, syncFolder } from '../../files/durable.ts';
import { besideReplica, markReplica } from '../../beside/mark.ts';
import type { MarkedOrigin } from '../../beside/mark.ts';
import { unusableFile } from '../../files/ownership.ts';
import type { CopyPagesOptions, PageSink, PageSource, SinkTarget } from '../../pages/page-source.ts';
import type { PageNumber } from '../../pages/page-types.ts';
import { lockBytePage } from '../../pages/page-types.ts';
import { misread } from '../../pages/copy-pages.ts';
import { PartFile } from './part-file.ts';
import { hasWalRecord, recordWal, removeWalRecord } from '../../beside/wal-record.ts';
import { ReplicaMovedError, replicaError, replicaReplaced } from '../replica-error.ts';

export interface NewReplicaOptions {
  /** How long to wait for locks that other programs hold, in milliseconds. */
  readonly busyTimeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** True to make no file. */
  readonly dryRun?: boolean | undefined;
  /** The origin to name in the replica's mark; undefined for a database without a mark. */
  readonly mark?: MarkedOrigin | undefined;
  readonly beforePublish?: BeforePublish | undefined;
  /** True if the file will share the blocks of the origin. */
  readonly reflink?: boolean | undefined;
  /** The existing database of another page size to replace; undefined if the replica does not exist. */
  readonly replaces: DatabaseFile | undefined;
}

/** Runs on a new file after all its pages are written, before it gets its name. */
export type BeforePublish = (path: string) => void;

const FIRST_PAGE = 1 as PageNumber;

/**
 * A replica that does not exist yet, or whose page size differs, so that all of it is replaced.
 *
 * sqlsync builds it as a plain file `.NAME.sqlsync-part` (SQLite's WAL would take five times as long), makes it
 * durable, then publishes it. A new replica gets its name by a hard link, which never replaces a file. An existing
 * database gets the content by SQLite's backup API in one transaction: a rename would leave programs that have it open
 * with the old file, beside the new file's -wal name. No file has the replica's name before it is complete. Page 1 is
 * written last, so that nobody can open a part file as a database by mistake.
 */
export class NewReplica implements PageSink {
  readonly path: string;
  readonly warnings: string[] = [];
  readonly #options: NewReplicaOptions;
  readonly #target: SinkTarget;
  readonly #part: PartFile;
  /** undefined in a dry run, which makes no file. */
  readonly #lock: ExclusiveLock | undefined;
  /** The stamp of the database to replace, taken when this sync got its lock. */
  readonly #stamp: string;
  /** The database to replace is in WAL mode, or was before a killed run. */
  readonly #isWal: boolean;
  #firstPage: Uint8Array | undefined;
  #released = false;

  /**
   * Waits for another sync that builds the same replica. `path` is absolute. Throws SqlsyncError BUSY and REPLICA_*,
   * and ReplicaMovedError if that sync has finished the replica.
   */
  static async open(path: string, target: SinkTarget, options: NewReplicaOptions): Promise<NewReplica> {
    try {
      if (options.replaces === undefined) refuseLeftover(path, 'does not exist');
      if (options.dryRun === true) return new NewReplica(path, target, options, undefined);
      const { busyTimeoutMs: timeoutMs, signal } = options;
      const what = `Another sqlsync is just making ${path}`;
      const lock = await waitExclusiveLock(besideReplica(path, '-lock'), what, { timeoutMs, signal });
      try {
        if (options.replaces === undefined && currentFileId(path) !== undefined)
          throw new ReplicaMovedError(path, 'was made by another program just now');
        checkFreeSpace(path, neededBytes(path, target, options), options.reflink);
        if (options.replaces !== undefined && isWritten(options.replaces)) throw new ReplicaMovedError(path);
        return new NewReplica(path, target, options, lock);
      } catch (error) {
        lock.release();
        throw error;
      }
    } catch (error) {
      throw replicaError(path, error);
    }
  }

  private constructor(
    path: string,
    target: SinkTarget,
    options: NewReplicaOptions,
    lock: ExclusiveLock | undefined,
  ) {
    this.path = path;
    this.#options = options;
    this.#target = target;
    this.#lock = lock;
    this.#stamp = contentStamp(path);
    this.#isWal =
      options.replaces !== undefined && (options.replaces.header?.wal === true || hasWalRecord(path));
    this.#part = new PartFile(besideReplica(path, '-part'), target);
  }

  get old(): PageSource | undefined {
    return this.#part.old;
  }

  get resumed(): boolean {
    return this.#part.old !== undefined;
  }

  /** All pages of the replica, including those in the part file of an interrupted run. */
  get pagesChanged(): number {
    const { pageCount, pageSize } = this.#target;
    return pageCount < lockBytePage(pageSize) ? pageCount : pageCount - 1;
  }

  /** The part file may be complete and lack only its publication. */
  get holdsChanges(): boolean {
    return this.resumed;
  }

  begin(): Promise<'ready'> {
    try {
      this.#part.begin();
      return Promise.resolve('ready');
    } catch (error) {
      return Promise.reject(replicaError(this.path, error));
    }
  }

  write(page: PageNumber, bytes: Uint8Array): void {
    if (page === FIRST_PAGE) {
      this.#firstPage = new Uint8Array(bytes);
      return;
    }
    try {
      this.#part.write(page, bytes);
    } catch (error) {
      throw replicaError(this.path, error);
    }
  }

  async copyFrom(source: PageSource, options: CopyPagesOptions = {}): Promise<void> {
    await this.begin();
    try {
      if (source.pageCount > 0) {
        this.#firstPage = source.readPage(FIRST_PAGE);
        options.onRun?.(FIRST_PAGE, this.#firstPage);
      }
      await this.#part.copyRest(source, options);
    } catch (error) {
      throw replicaError(this.path, error);
    }
  }

  async ready(): Promise<void> {
    try {
      await this.#part.ready();
    } catch (error) {
      throw replicaError(this.path, error);
    }
  }

  async written(): Promise<void> {
    try {
      await this.#part.written();
    } catch (error) {
      throw replicaError(this.path, error);
    }
  }

  readNew(page: PageNumber): Uint8Array {
    if (page === FIRST_PAGE && this.#firstPage !== undefined) return this.#firstPage;
    return this.#part.read(page);
  }

  async commit(): Promise<void> {
    try {
      const replaces = this.#options.replaces;
      if (this.#firstPage !== undefined) await this.#writeFirstPage(this.#ownFirstPage(this.#firstPage));
      await this.#part.finish(this.path, this.#options.mark !== undefined);
      this.#options.beforePublish?.(this.#part.path);
      if (replaces === undefined) await this.#publish();
      else await this.#copyOver(replaces);
    } catch (error) {
      throw replicaError(this.path, error);
    }
    await this.#release(() => this.#part.remove());
  }

  /** Keeps the part file: the next run continues from it. */
  abort(): Promise<void> {
    return this.#release(() => this.#part.close());
  }

  /** No hash of the whole is compared after page 1, so it is compared itself. */
  async #writeFirstPage(bytes: Uint8Array): Promise<void> {
    this.#part.write(FIRST_PAGE, bytes);
    await this.#part.written();
    if (Buffer.compare(this.#part.read(FIRST_PAGE), bytes) !== 0) throw misread(FIRST_PAGE);
  }

  /** The backup API copies page 1 as it is, and with it the journal mode, in the same transaction. */
  #ownFirstPage(page: Uint8Array): Uint8Array {
    if (this.#options.replaces === undefined) return page;
    const own = new Uint8Array(page);
    own.fill(this.#isWal ? 2 : 1, 18, 20);
    return own;
  }

  async #publish(): Promise<void> {
    refuseLeftover(this.path, 'does not exist');
    removeWalRecord(this.path);
    // The file keeps its inode when it gets the name; a mark without its file has no effect.
    const unmark = this.#mark(this.#part.path);
    try {
      publishWithoutReplacing(this.#part.path, this.path);
    } catch (error) {
      unmark();
      if (systemErrorCode(error) !== 'EEXIST') throw error;
      // Without the part file the next run would have nothing wrong to continue from.
      await this.#release(() => this.#part.remove());
      throw nameTaken(this.path, error);
    }
    // The name is public now: other programs may have opened the file, so it stays even after an error.
    const leftover = findLeftover(this.path);
    if (leftover !== undefined) {
      this.warnings.push(
        `${leftover.path} appeared, with ${leftover.bytes} bytes, as ${this.path} was published. Unless another program has just opened the replica, SQLite may replay foreign data into it`,
      );
    }
    this.#warnOfOwner();
    this.#syncFolder();
  }

  #warnOfOwner(): void {
    try {
      const { fileOwner: owner, originPath } = this.#target;
      const warning = unusableFile(this.path, statSync(this.path), { owner, path: originPath });
      if (warning !== undefined) this.warnings.push(warning);
    } catch {
      // The replica is complete; another program may already have moved it.
    }
  }

  #mark(marked: string): () => void {
    return markReplica(this.path, this.#options.mark, { marked, warnings: this.warnings });
  }

  /** Runs after the commit, so a fault must not fail the sync. */
  #syncFolder(): void {
    try {
      syncFolder(this.path);
    } catch (error) {
      this.warnings.push(`The name of ${this.path} may not survive a power failure: ${String(error)}`);
    }
  }

  async #copyOver(replaces: DatabaseFile): Promise<void> {
    this.#checkUnchanged(replaces);
    const { busyTimeoutMs: timeoutMs } = this.#options;
    // The backup API cannot change the page size of a database in WAL mode.
    if (this.#isWal) {
      recordWal(this.path);
      await this.#leaveWal();
    }
    const stamp = contentStamp(this.path);
    let unmark = (): void => {};
    try {
      const onLocked = (): void => {
        if (contentStamp(this.path) !== stamp) throw new ReplicaMovedError(this.path);
        if (currentFileId(this.path) !== replaces.fileId) throw replicaReplaced(this.path);
        unmark = this.#mark(this.path);
      };
      await copyByBackup(this.#part.path, this.path, { timeoutMs, onLocked });
    } catch (error) {
      unmark();
      if (this.#isWal) await this.#enterWal();
      throw error;
    }
    // Page 1 already says WAL: as a connection opens it, SQLite removes the files that its reading has made beside it.
    if (this.#isWal) await this.#enterWal();
    else removeWalRecord(this.path);
    this.#syncFolder();
  }

  /** Throws if another program has taken the name, or has changed the replica since this sync took its lock. */
  #checkUnchanged(replaces: DatabaseFile): void {
    if (currentFileId(this.path) !== replaces.fileId) throw replicaReplaced(this.path);
    if (contentStamp(this.path) !== this.#stamp) throw new ReplicaMovedError(this.path);
  }

  /** In rollback mode no other sync commits: each needs the lock that this sync holds. */
  async #leaveWal(): Promise<void> {
    const { path } = this;
    try {
      const isUnchanged = (): boolean => contentStamp(path) === this.#stamp;
      const isLeft = await this.#retry(() => leaveWal(path, isUnchanged));
      if (!isLeft) throw new ReplicaMovedError(path);
    } catch (error) {
      await this.#enterWal();
      throw error;
    }
  }

  /** The content is decided by now, so a mode that cannot be restored must not turn the run into a failure. */
  async #enterWal(): Promise<void> {
    try {
      await this.#retry(() => switchJournalMode(this.path, 'wal'));
      removeWalRecord(this.path);
    } catch {
      const isWal = inspectDatabase(this.path)?.header?.wal === true;
      if (isWal) removeWalRecord(this.path);
      else
        this.warnings.push(`${this.path} is in rollback mode until the next run puts it back into WAL mode`);
    }
  }

  #retry<T>(action: () => T): Promise<T> {
    return retryLocked(this.path, `Replica ${this.path}`, action, {
      timeoutMs: this.#options.busyTimeoutMs,
      signal: this.#options.signal,
    });
  }

  async #release(finishPart: () => Promise<void>): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    // The outcome is decided already; the next run deals with a leftover.
    await finishPart().catch(() => {});
    try {
      this.#lock?.release();
    } catch {
      // The next run deals with a leftover.
    }
  }
}

/**
 * The free space that the disk must have. A new replica needs its size less what its part file already takes. A
 * replaced one also needs a journal for its old content, and grows by the difference. A reflink takes no room at first,
 * but as much as a copy when both files have been written.
 */
function neededBytes(
  path: string,
  { pageCount, pageSize }: SinkTarget,
  { replaces, reflink = false }: NewReplicaOptions,
): number {
  const bytes = pageCount * pageSize;
  const old = replaces?.stats.size ?? 0;
  const forCopy = replaces === undefined ? 0 : old + Math.max(0, bytes - old);
  const taken = reflink ? 0 : allocatedBytes(besideReplica(path, '-part'));
  return Math.max(0, bytes - taken) + forCopy;
}

/** True if a program wrote to the file since we looked at it; it may be a sync with a newer snapshot. */
function isWritten({ path, stats }: DatabaseFile): boolean {
  const now = statSync(path, { throwIfNoEntry: false });
  return now?.mtimeMs !== stats.mtimeMs || now.size !== stats.size;
}

function nameTaken(path: string, cause: unknown): SqlsyncError {
  return new SqlsyncError('REPLICA_EXISTS', `${path} appeared while its replica was being made`, {
    hint: 'Nothing was overwritten. Run sqlsync again if that file is to become the replica.',
    cause,
  });
}
