import { closeSync, linkSync, openSync, renameSync, rmSync, statSync } from 'node:fs';
import { SqlsyncError, systemErrorCode } from '../errors.ts';
import { copyByBackup, switchJournalMode } from '../sqlite/backup-copy.ts';
import { retryBusy } from '../sqlite/busy.ts';
import type { ExclusiveLock } from '../sqlite/exclusive-lock.ts';
import { waitExclusiveLock } from '../sqlite/exclusive-lock.ts';
import type { DatabaseFile } from './database-file.ts';
import { currentFileId, fileBytes } from './database-file.ts';
import { NO_HARD_LINKS } from './hard-links.ts';
import { findLeftover, refuseLeftover } from './leftovers.ts';
import type { ReplicaOptions } from './old-state.ts';
import { besideReplica, markReplica, syncFolder } from './mark.ts';
import { unusableFile } from './ownership.ts';
import type { PageSink, PageSource, SinkTarget } from './page-source.ts';
import type { PageNumber } from './page-types.ts';
import { PartFile } from './part-file.ts';
import { ReplicaMovedError, replicaError, replicaReplaced } from './replica-error.ts';

export interface NewReplicaOptions extends ReplicaOptions {
  readonly beforePublish?: BeforePublish | undefined;
  /** The existing database of another page size that is to be replaced; undefined for a replica that is not there. */
  readonly replaces: DatabaseFile | undefined;
}

/** What a new file goes through when all its pages are written, before it gets its name. */
export type BeforePublish = (path: string) => void;

const FIRST_PAGE = 1 as PageNumber;

/**
 * A replica that does not exist yet, or whose page size differs so that all of it is replaced.
 *
 * It is built as a plain file `.NAME.sqlsync-part` (through SQLite's WAL the same takes five times as long), made
 * durable, and then published: by a hard link, which never replaces anything, or, over an existing database, by
 * SQLite's backup API in one transaction (a rename over a database would leave those who have it open with the old
 * file and its -wal name with the new one). No file of the replica's name exists before it is complete. Page 1 is
 * written last, so that a part file is no database that could be opened by mistake.
 */
export class NewReplica implements PageSink {
  readonly path: string;
  readonly warnings: string[] = [];
  readonly #options: NewReplicaOptions;
  readonly #target: SinkTarget;
  readonly #part: PartFile;
  /** undefined in a dry run, which makes no file. */
  readonly #lock: ExclusiveLock | undefined;
  #firstPage: Uint8Array | undefined;
  #released = false;

  /**
   * Waits for another sync that builds the same replica. `path` is absolute. Throws SqlsyncError BUSY and REPLICA_*,
   * and ReplicaMovedError where that sync has made the replica.
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
    this.#part = new PartFile(besideReplica(path, '-part'), target);
  }

  get old(): PageSource | undefined {
    return this.#part.old;
  }

  get resumed(): boolean {
    return this.#part.old !== undefined;
  }

  /** It may lack nothing but its publication. */
  get holdsChanges(): boolean {
    return this.resumed;
  }

  prepare(): Promise<void> {
    return Promise.resolve();
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
      if (this.#firstPage !== undefined) this.#part.write(FIRST_PAGE, this.#ownFirstPage(this.#firstPage));
      await this.#part.finish(this.path, this.#options.mark !== undefined);
      this.#options.beforePublish?.(this.#part.path);
      if (replaces === undefined) await this.#publish();
      else await this.#copyOver(replaces);
    } catch (error) {
      throw replicaError(this.path, error);
    }
    await this.#release(() => this.#part.remove());
  }

  /** Keeps the part file: the next run goes on from it. */
  abort(): Promise<void> {
    return this.#release(() => this.#part.close());
  }

  /** The backup API copies page 1 as it is, and its target is in rollback mode just then. */
  #ownFirstPage(page: Uint8Array): Uint8Array {
    if (this.#options.replaces === undefined) return page;
    const own = new Uint8Array(page);
    own.fill(1, 18, 20);
    return own;
  }

  async #publish(): Promise<void> {
    refuseLeftover(this.path, 'does not exist');
    // The file keeps its inode when it gets the name; a mark without its file says nothing.
    const unmark = this.#mark(this.#part.path);
    try {
      publishWithoutReplacing(this.#part.path, this.path);
    } catch (error) {
      unmark();
      // The next run has that file to go on from, if any.
      if (error instanceof SqlsyncError) await this.#release(() => this.#part.remove());
      throw error;
    }
    // The name is public now: others may have opened it, so that it stays whatever happens.
    const leftover = findLeftover(this.path);
    if (leftover !== undefined) {
      this.warnings.push(
        `${leftover.path} appeared, with ${leftover.bytes} bytes, as ${this.path} was published; unless another program has just opened the replica, SQLite may replay something else into it`,
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
      // The replica is complete; it may have been moved already.
    }
  }

  #mark(marked: string): () => void {
    return markReplica(this.path, this.#options.mark, { marked, warnings: this.warnings });
  }

  /** After the commit, so that a fault must not fail the sync. */
  #syncFolder(): void {
    try {
      syncFolder(this.path);
    } catch (error) {
      this.warnings.push(`The name of ${this.path} may not survive a power failure: ${String(error)}`);
    }
  }

  async #copyOver(replaces: DatabaseFile): Promise<void> {
    if (currentFileId(this.path) !== replaces.fileId) throw replicaReplaced(this.path);
    const wal = replaces.header?.wal === true;
    // The backup API cannot change the page size of a database in WAL mode.
    if (wal) await this.#switchJournalMode('delete');
    const unmark = this.#mark(this.path);
    try {
      await copyByBackup(this.#part.path, this.path, this.#options.busyTimeoutMs);
    } catch (error) {
      unmark();
      throw error;
    } finally {
      // The content is decided by now, either way; a mode that cannot be restored must not turn it into a failure.
      if (wal)
        await this.#switchJournalMode('wal').catch(() =>
          this.warnings.push(`${this.path} was left in rollback mode`),
        );
    }
    this.#syncFolder();
  }

  #switchJournalMode(mode: 'wal' | 'delete'): Promise<void> {
    return retryBusy(`Replica ${this.path}`, () => switchJournalMode(this.path, mode), {
      timeoutMs: this.#options.busyTimeoutMs,
      signal: this.#options.signal,
    });
  }

  async #release(finishPart: () => Promise<void>): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    // A leftover is dealt with by the next run; the outcome is decided already.
    await finishPart().catch(() => {});
    try {
      this.#lock?.release();
    } catch {
      // See above.
    }
  }
}

/** Gives the file at `from` the name `to` unless that is taken. Without hard links a placeholder keeps the name. */
function publishWithoutReplacing(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'EEXIST') throw nameTaken(to, error);
    if (!NO_HARD_LINKS.has(code)) throw error;
    try {
      closeSync(openSync(to, 'wx', 0o600));
    } catch (taken) {
      throw systemErrorCode(taken) === 'EEXIST' ? nameTaken(to, taken) : taken;
    }
    try {
      renameSync(from, to);
    } catch (failure) {
      removePlaceholder(to);
      throw failure;
    }
  }
}

/** A file of 0 bytes would be an empty database to whoever looks for the replica. */
function removePlaceholder(path: string): void {
  try {
    if (fileBytes(path) === 0) rmSync(path, { force: true });
  } catch {
    // What kept it from being renamed over is told.
  }
}

function nameTaken(path: string, cause: unknown): SqlsyncError {
  return new SqlsyncError('REPLICA_EXISTS', `${path} appeared while its replica was being made`, {
    hint: 'Nothing was overwritten. Run it again if that file is to become the replica.',
    cause,
  });
}
