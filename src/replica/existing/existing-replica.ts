import { retryLocked } from '../../sqlite/locks/holder-watch.ts';
import { DirectPageWriter } from '../../sqlite/writer/page-writer.ts';
import type { PageWriter } from '../../sqlite/writer/page-writer.ts';
import { ReplicaWriter } from '../../sqlite/writer/replica-writer.ts';
import { openThreadWriter } from '../../sqlite/writer/thread-page-writer.ts';
import type { DatabaseFile } from '../../pages/database-file.ts';
import { currentFileId } from '../../pages/database-file.ts';
import { firstPageForReplica, parseHeader } from '../../pages/header.ts';
import { markReplica } from '../../beside/mark.ts';
import { CommitWatch } from './commit-watch.ts';
import { OldState } from './old-state.ts';
import type { ExistingOptions } from './old-state.ts';
import type { PageSink, PageSource, SinkTarget } from '../../pages/page-source.ts';
import type { PageNumber } from '../../pages/page-types.ts';
import { lockBytePage } from '../../pages/page-types.ts';
import { refuseOtherNames } from '../replica-links.ts';
import {
  isDiskFull,
  ReplicaMovedError,
  replicaError,
  replicaReplaced,
  walRemoved,
} from '../replica-error.ts';
import type { Spool } from '../spool/spool.ts';
import { SpooledState } from '../spool/spooled-state.ts';
import { Staging } from '../spool/staging.ts';

const FIRST_PAGE = 1 as PageNumber;

/** From this many bytes of pages on, a thread writes them; it takes 40 ms to start and 25 MB. */
const THREAD_MIN_BYTES = Number(process.env['SQLSYNC_WRITER_THREAD_MIN_BYTES'] ?? 8 * 1024 * 1024);

/**
 * A replica that exists and has the origin's page size.
 *
 *             WAL mode                     rollback mode                staged, in either mode
 *     open    read-only connection, read transaction ──► compare
 *     begin   BEGIN IMMEDIATE              BEGIN IMMEDIATE              the spool's lock
 *     write   into the transaction         into the spool               into the spool
 *     commit                               BEGIN EXCLUSIVE              BEGIN IMMEDIATE, EXCLUSIVE in rollback mode
 *                                          spool → transaction          spool → transaction
 *             page 1, truncation, COMMIT, checkpoint
 *
 * Until `begin` nothing is opened for writing, because a read-write connection that closes last checkpoints the WAL:
 * a sync that finds no difference changes no byte. In rollback mode pages wait in the spool, because a transaction
 * larger than SQLite's cache would lock readers out for the whole transfer. Where the transfer may take long or break,
 * it is staged: no other writer of the replica waits meanwhile, and what has arrived outlives the run.
 */
export class ExistingReplica implements PageSink {
  readonly path: string;
  readonly warnings: string[] = [];
  readonly watch: CommitWatch;
  /** Known once the pages of the spool are applied. */
  pagesChanged: number | undefined;
  readonly #file: DatabaseFile;
  readonly #target: SinkTarget;
  readonly #options: ExistingOptions;
  readonly #replica: OldState;
  readonly #staging: Staging;
  readonly #isWal: boolean;
  /** Identity of the -wal file when the replica was opened; undefined in rollback mode. */
  readonly #walId: string | undefined;
  /** Set by `prepare`. */
  #isStaged = false;
  /** Pages of an interrupted run over those of the replica; undefined without such a run. */
  readonly #resumedState: SpooledState | undefined;
  #spool: Spool | undefined;
  #differs: boolean | undefined;
  #writer: PageWriter | undefined;
  #preparing: Promise<void> | undefined;
  #firstPage: Uint8Array | undefined;
  #released = false;

  /** `file` must have the target's page size, or 0 bytes. Throws SqlsyncError. */
  static async open(
    file: DatabaseFile,
    target: SinkTarget,
    options: ExistingOptions,
  ): Promise<ExistingReplica> {
    return new ExistingReplica(file, target, options, await OldState.open(file, options));
  }

  private constructor(file: DatabaseFile, target: SinkTarget, options: ExistingOptions, old: OldState) {
    this.path = file.path;
    this.#file = file;
    this.#target = target;
    this.#options = options;
    this.#replica = old;
    this.watch = new CommitWatch(file, old, target, options);
    this.#isWal = file.header?.wal === true;
    this.#walId = this.#isWal ? currentFileId(`${file.path}-wal`) : undefined;
    this.#staging = options.staging ?? new Staging('never');
    const { spool } = this.#staging;
    if (spool === undefined) return;
    if (spool.pageSize === target.pageSize && (old.pageCount === 0 || old.pageSize === target.pageSize)) {
      spool.cut(target.pageCount);
      this.#resumedState = new SpooledState(old, spool);
      this.#spool = spool;
    } else this.#staging.remove();
  }

  get old(): PageSource {
    return this.#resumedState ?? this.#replica;
  }

  /** The number of pages of the replica itself, without the spool. */
  get oldPageCount(): number {
    return this.#replica.pageCount;
  }

  get resumed(): boolean {
    return this.#resumedState !== undefined;
  }

  /** True if a page in the spool differs from the replica's. A killed run may already have committed all of them. */
  get holdsChanges(): boolean {
    return (this.#differs ??= this.#findChange());
  }

  /** True if the replica has no pages, or only the one page of an empty database. */
  get isEmpty(): boolean {
    return this.#replica.isEmpty;
  }

  get #isRestore(): boolean {
    return this.#options.mark === undefined;
  }

  prepare(knownPages: number): Promise<void> {
    return (this.#preparing ??= this.#prepare(knownPages));
  }

  async begin(): Promise<'ready' | 'moved'> {
    await this.prepare(0);
    try {
      if (!this.#isWal) this.#replica.pause();
      if (this.#isStaged || !this.#isWal) await this.#openSpool();
      if (!this.#isStaged) await this.#takeWriteLock(this.#openWriter());
      // Under the lock no other program can commit, so from here on the reader sees exactly what the writer changes.
      // Without the lock, this finds what another sync did while we waited for its spool; `commit` looks again.
      const state = await this.#replica.refresh();
      // Another sync may have committed a newer snapshot than ours, and we must not take the replica back. The snapshot
      // of a restore never gets older.
      if (state === 'committed' && !this.#isRestore) throw new ReplicaMovedError(this.path);
      if (this.#replica.pageCount > 0 && this.#replica.pageSize !== this.#target.pageSize) {
        throw new ReplicaMovedError(this.path);
      }
      const moved = state !== 'same';
      if (moved) this.#differs = undefined;
      if (this.#spool === undefined) {
        await this.#openWriter().call('prepareForPages', this.#target.pageCount);
      }
      return moved ? 'moved' : 'ready';
    } catch (error) {
      throw replicaError(this.path, error);
    }
  }

  write(page: PageNumber, bytes: Uint8Array): void {
    try {
      if (page === FIRST_PAGE) this.#firstPage = new Uint8Array(bytes);
      else if (this.#spool !== undefined) this.#spool.write(page, bytes);
      else this.#openWriter().writePage(page, bytes);
    } catch (error) {
      throw replicaError(this.path, error);
    }
  }

  async ready(): Promise<void> {
    try {
      this.#spool?.flush();
      await this.#writer?.ready();
    } catch (error) {
      throw replicaError(this.path, error);
    }
  }

  readNew(page: PageNumber): Uint8Array {
    if (page === FIRST_PAGE && this.#firstPage !== undefined) return this.#firstPage;
    if (page === lockBytePage(this.#target.pageSize)) return new Uint8Array(this.#target.pageSize);
    try {
      if (this.#spool === undefined) return this.#openWriter().readPage(page);
      if (this.#spool.held.has(page)) return this.#spool.read(page);
      return this.old.readPage(page);
    } catch (error) {
      throw replicaError(this.path, error);
    }
  }

  async commit(): Promise<void> {
    try {
      const writer = await this.#writerToCommit();
      const { firstPage, schemaCookie } = this.#newFirstPage();
      if (this.#spool !== undefined) await this.#applySpool(writer, this.#spool);
      this.#replica.end();
      const shrinks = (await writer.call('pageCount')) > this.#target.pageCount;
      writer.writePage(FIRST_PAGE, firstPage);
      if (shrinks) await writer.call('truncateTo', this.#target.pageCount);
      if (schemaCookie !== undefined) await writer.call('setSchemaCookie', schemaCookie);
      this.#checkUnreplaced();
      await this.#commitMarked(writer);
    } catch (error) {
      throw replicaError(this.path, isDiskFull(error) ? this.#withoutSpool(error) : error);
    }
    await this.#afterCommit();
  }

  abort(): Promise<void> {
    return this.#release();
  }

  /** The error after a commit on a full disk. If the spool took the room, the pages come again, into the WAL. */
  #withoutSpool(full: unknown): unknown {
    if (this.#spool === undefined || !this.#staging.giveWay() || !this.#isWal) return full;
    return new ReplicaMovedError(this.path, 'has room for its spool or the commit, not for both');
  }

  /** Compares staged pages again if the replica changed meanwhile: no lock kept other programs from writing it. */
  async #writerToCommit(): Promise<PageWriter> {
    if (!this.#isStaged) return this.#openWriter();
    await this.#connectWriter(this.#spool?.held.count ?? 0);
    const writer = this.#openWriter();
    await this.#takeWriteLock(writer);
    if ((await this.#replica.refresh()) !== 'same') {
      // A program keeps writing the replica: the next attempt compares under the write lock.
      this.#staging.isContended = true;
      throw new ReplicaMovedError(this.path);
    }
    return writer;
  }

  /** The caller refreshes the old state next. */
  async #takeWriteLock(writer: PageWriter): Promise<void> {
    if (!this.#isWal) this.#replica.pause();
    await this.#retry(() => writer.call('begin', 'immediate'));
  }

  async #openSpool(): Promise<void> {
    const { busyTimeoutMs: timeoutMs, signal } = this.#options;
    this.#spool ??= await this.#staging.open(this.#target.pageSize, { timeoutMs, signal });
    // The run that we waited for has failed and left its pages: compare them first.
    if (this.#resumedState === undefined && !this.#spool.held.isEmpty) throw new ReplicaMovedError(this.path);
  }

  async #prepare(knownPages: number): Promise<void> {
    this.#isStaged = this.#staging.pays(knownPages, this.#target.pageSize) && !this.#staging.isContended;
    if (!this.#isStaged) await this.#connectWriter(knownPages);
  }

  async #connectWriter(knownPages: number): Promise<void> {
    const { path } = this;
    const { pageSize } = this.#target;
    const options = {
      textEncoding: this.#replica.textEncoding,
      wal: this.#isWal,
      ...(this.#file.header === undefined ? { initialPageSize: pageSize } : {}),
    };
    try {
      if (knownPages * pageSize >= THREAD_MIN_BYTES)
        this.#writer = await openThreadWriter(path, pageSize, options);
      this.#writer ??= new DirectPageWriter(new ReplicaWriter(path, options));
    } catch (error) {
      throw replicaError(path, error);
    }
  }

  /**
   * Writes page 1 even if its content is unchanged: the schema cookie must move with every commit, so that every reader
   * that has the replica open reloads the schema.
   */
  #newFirstPage(): { firstPage: Uint8Array; schemaCookie: number | undefined } {
    // A file of 0 bytes has no header of its own to keep.
    if (this.#replica.pageCount === 0 && this.#firstPage !== undefined) {
      return { firstPage: this.#firstPage, schemaCookie: undefined };
    }
    const old = this.#replica.readPage(FIRST_PAGE);
    const firstPage = firstPageForReplica(this.#firstPage ?? old, old);
    return { firstPage, schemaCookie: ((parseHeader(old)?.schemaCookie ?? 0) + 1) >>> 0 };
  }

  async #applySpool(writer: PageWriter, spool: Spool): Promise<void> {
    const { pageCount, pageSize } = this.#target;
    const oldPageCount = this.#replica.pageCount;
    if (this.resumed) this.#dropUnchanged(spool);
    this.pagesChanged = spool.held.count + (this.#firstPage === undefined ? 0 : 1);
    if (!this.#isWal) await this.#lockExclusively(writer);
    await writer.call('prepareForPages', pageCount);
    for (const page of spool.held) {
      writer.writePage(page, spool.readChecked(page));
      await writer.ready();
    }
    // Zeros stand for what a resumed spool lacks; compared with those, such pages did not differ.
    for (let page = oldPageCount + 1; page <= pageCount; page++) {
      if (page === FIRST_PAGE || page === lockBytePage(pageSize) || spool.held.has(page)) continue;
      writer.writePage(page, new Uint8Array(pageSize));
      this.pagesChanged++;
      await writer.ready();
    }
  }

  /**
   * The switch to an EXCLUSIVE lock needs a new transaction. No other writer slips in between, because the lock is
   * kept. Not for a file of 0 bytes: a kept lock leaves a journal without a header, which a later run could not tell
   * from the last journal of a database that was cut off.
   */
  async #lockExclusively(writer: PageWriter): Promise<void> {
    this.#replica.end();
    const before = await writer.call('dataVersion');
    if (this.#file.header !== undefined) await writer.call('keepLocks', true);
    await writer.call('rollback');
    await this.#retry(() => writer.call('begin', 'exclusive'));
    await writer.call('keepLocks', false);
    if ((await writer.call('dataVersion')) !== before) throw new ReplicaMovedError(this.path);
  }

  #dropUnchanged(spool: Spool): void {
    for (const page of spool.held) if (!this.#isChanged(spool, page)) spool.held.remove(page);
  }

  #findChange(): boolean {
    if (this.#spool === undefined || !this.resumed) return false;
    for (const page of this.#spool.held) if (this.#isChanged(this.#spool, page)) return true;
    return false;
  }

  #isChanged(spool: Spool, page: PageNumber): boolean {
    if (page > this.#replica.pageCount) return true;
    return Buffer.compare(spool.read(page), this.#replica.readPage(page)) !== 0;
  }

  async #commitMarked(writer: PageWriter): Promise<void> {
    const { mark } = this.#options;
    await this.watch.before(writer);
    const unmark = markReplica(this.path, mark, { warnings: this.warnings });
    try {
      await this.#retry(() => writer.call('commit'));
    } catch (error) {
      unmark();
      throw error;
    }
    this.#checkWalThere();
  }

  /** The commit is done: from here on no error may fail the sync. */
  async #afterCommit(): Promise<void> {
    try {
      this.#staging.remove();
      this.#replica.close();
      await this.#writer?.call('checkpoint');
      if (this.#writer !== undefined) await this.watch.after(this.#writer);
    } catch {
      // The checkpoint is optional; the next program that opens the replica can make it.
    }
    await this.#release();
  }

  #checkUnreplaced(): void {
    if (currentFileId(this.path) !== this.#file.fileId) throw replicaReplaced(this.path);
    if (this.#options.followLinks !== true) refuseOtherNames(this.#file);
    this.#checkWalThere();
  }

  /** If the -wal file has no name any more, a commit into it is lost when the last program closes it. */
  #checkWalThere(): void {
    if (this.#walId !== undefined && currentFileId(`${this.path}-wal`) !== this.#walId) {
      throw walRemoved(this.path);
    }
  }

  #openWriter(): PageWriter {
    if (this.#writer === undefined) throw new Error('the sink was not begun');
    return this.#writer;
  }

  #retry<T>(action: () => Promise<T>): Promise<T> {
    const { busyTimeoutMs: timeoutMs, signal } = this.#options;
    return retryLocked(this.path, `Replica ${this.path}`, action, { timeoutMs, signal });
  }

  async #release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    await this.#preparing?.catch(() => {}); // the caller of prepare() gets the error
    const steps: (() => void | Promise<void>)[] = [
      () => this.#replica.close(),
      () => this.#writer?.call('rollback'),
      () => this.#writer?.call('close'),
      () => this.#writer?.end(),
      () => this.#replica.closeFile(),
    ];
    for (const release of steps) {
      try {
        await release();
      } catch {
        // Only closing is left; an I/O error here must not hide the first one.
      }
    }
    this.#writer = undefined;
  }
}
