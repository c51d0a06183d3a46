import { retryBusy } from '../sqlite/busy.ts';
import { DirectPageWriter } from '../sqlite/page-writer.ts';
import type { PageWriter } from '../sqlite/page-writer.ts';
import { ReplicaWriter } from '../sqlite/replica-writer.ts';
import { ThreadPageWriter } from '../sqlite/thread-page-writer.ts';
import type { DatabaseFile } from './database-file.ts';
import { currentFileId } from './database-file.ts';
import { firstPageForReplica, parseHeader } from './header.ts';
import { markReplica } from './mark.ts';
import { OldState } from './old-state.ts';
import type { ReplicaOptions } from './old-state.ts';
import type { PageSink, PageSource, SinkTarget } from './page-source.ts';
import type { PageNumber } from './page-types.ts';
import { lockBytePage } from './page-types.ts';
import { ReplicaMovedError, replicaError, replicaReplaced } from './replica-error.ts';
import { Spool } from './spool.ts';

const FIRST_PAGE = 1 as PageNumber;

/** So many bytes of pages are written in a thread of their own, which takes 40 ms to start and 25 MB. */
const THREAD_MIN_BYTES = Number(process.env['SQLSYNC_WRITER_THREAD_MIN_BYTES'] ?? 8 * 1024 * 1024);

/**
 * A replica that exists and has the origin's page size.
 *
 *     open: read-only connection, read transaction ──► compare
 *     begin: second connection, BEGIN IMMEDIATE      (other writers wait, readers do not)
 *     write: WAL mode: into the transaction          rollback mode: into the spool
 *     commit:                                        rollback mode: BEGIN EXCLUSIVE, spool → transaction
 *             page 1, truncation, COMMIT, checkpoint
 *
 * Until `begin` nothing is opened for writing, because a read-write connection that closes last checkpoints the WAL:
 * a sync that finds no difference changes no byte. In rollback mode pages wait in the spool, because a transaction
 * larger than SQLite's cache would lock readers out for the whole transfer.
 */
export class ExistingReplica implements PageSink {
  readonly path: string;
  readonly resumed = false;
  readonly warnings: string[] = [];
  readonly #file: DatabaseFile;
  readonly #target: SinkTarget;
  readonly #options: ReplicaOptions;
  readonly #old: OldState;
  readonly #spool: Spool | undefined;
  #writer: PageWriter | undefined;
  #preparing: Promise<void> | undefined;
  #firstPage: Uint8Array | undefined;
  #released = false;

  /** `file` must have the target's page size, or 0 bytes. Throws SqlsyncError. */
  static async open(
    file: DatabaseFile,
    target: SinkTarget,
    options: ReplicaOptions,
  ): Promise<ExistingReplica> {
    return new ExistingReplica(file, target, options, await OldState.open(file, options));
  }

  private constructor(file: DatabaseFile, target: SinkTarget, options: ReplicaOptions, old: OldState) {
    this.path = file.path;
    this.#file = file;
    this.#target = target;
    this.#options = options;
    this.#old = old;
    this.#spool = file.header?.wal === true ? undefined : new Spool(file.path, target);
  }

  get old(): PageSource {
    return this.#old;
  }

  /** True where the replica has no pages, or just the one of an empty database. */
  get isEmpty(): boolean {
    return this.#old.isEmpty;
  }

  prepare(knownPages: number): Promise<void> {
    return (this.#preparing ??= this.#prepare(knownPages));
  }

  async begin(): Promise<'ready' | 'moved'> {
    await this.prepare(0);
    try {
      const writer = this.#openWriter();
      await this.#retry(() => writer.call('begin', 'immediate'));
      // Nobody else can commit now, so what the reader sees from here on is what the writer changes.
      const moved = await this.#old.refresh(this.#options);
      if (this.#old.pageCount > 0 && this.#old.pageSize !== this.#target.pageSize) {
        throw new ReplicaMovedError(this.path);
      }
      if (this.#spool === undefined) await writer.call('prepareForPages', this.#target.pageCount);
      else this.#spool.open();
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
      await this.#writer?.ready();
    } catch (error) {
      throw replicaError(this.path, error);
    }
  }

  written(): Promise<void> {
    return Promise.resolve();
  }

  readNew(page: PageNumber): Uint8Array {
    if (page === FIRST_PAGE && this.#firstPage !== undefined) return this.#firstPage;
    if (page === lockBytePage(this.#target.pageSize)) return new Uint8Array(this.#target.pageSize);
    if (this.#spool === undefined) return this.#openWriter().readPage(page);
    return this.#spool.read(page) ?? this.#old.readPage(page);
  }

  async commit(): Promise<void> {
    try {
      const writer = this.#openWriter();
      const { firstPage, schemaCookie } = this.#newFirstPage();
      this.#old.end();
      if (this.#spool !== undefined) await this.#applySpool(writer, this.#spool);
      const shrinks = (await writer.call('pageCount')) > this.#target.pageCount;
      writer.writePage(FIRST_PAGE, firstPage);
      if (shrinks) await writer.call('truncateTo', this.#target.pageCount);
      if (schemaCookie !== undefined) await writer.call('setSchemaCookie', schemaCookie);
      this.#checkUnreplaced();
      await this.#commitMarked(writer);
    } catch (error) {
      throw replicaError(this.path, error);
    }
    await this.#afterCommit();
  }

  abort(): Promise<void> {
    return this.#release();
  }

  async #prepare(knownPages: number): Promise<void> {
    const { path } = this;
    const { pageSize } = this.#target;
    const options = {
      textEncoding: this.#old.textEncoding,
      wal: this.#spool === undefined,
      ...(this.#file.header === undefined ? { initialPageSize: pageSize } : {}),
    };
    try {
      this.#writer =
        knownPages * pageSize < THREAD_MIN_BYTES
          ? new DirectPageWriter(new ReplicaWriter(path, options))
          : await ThreadPageWriter.open(path, pageSize, options);
    } catch (error) {
      throw replicaError(path, error);
    }
  }

  /**
   * Page 1 is written even where its content is unchanged: the schema cookie has to move with every commit, so that
   * every reader that has the replica open loads the schema anew.
   */
  #newFirstPage(): { firstPage: Uint8Array; schemaCookie: number | undefined } {
    // A file of 0 bytes has nothing of its own to keep.
    if (this.#old.pageCount === 0 && this.#firstPage !== undefined) {
      return { firstPage: this.#firstPage, schemaCookie: undefined };
    }
    const old = this.#old.readPage(FIRST_PAGE);
    const firstPage = firstPageForReplica(this.#firstPage ?? old, old);
    return { firstPage, schemaCookie: ((parseHeader(old)?.schemaCookie ?? 0) + 1) >>> 0 };
  }

  /**
   * The switch to an EXCLUSIVE lock needs a new transaction; another writer could slip in between, which
   * `data_version` tells.
   */
  async #applySpool(writer: PageWriter, spool: Spool): Promise<void> {
    const before = await writer.call('dataVersion');
    await writer.call('rollback');
    await this.#retry(() => writer.call('begin', 'exclusive'));
    if ((await writer.call('dataVersion')) !== before) throw new ReplicaMovedError(this.path);
    await writer.call('prepareForPages', this.#target.pageCount);
    for (const page of spool.pages()) {
      writer.writePage(page, spool.read(page) as Uint8Array);
      await writer.ready();
    }
  }

  async #commitMarked(writer: PageWriter): Promise<void> {
    const { mark } = this.#options;
    const unmark = markReplica(this.path, mark, { warnings: this.warnings });
    try {
      await this.#retry(() => writer.call('commit'));
    } catch (error) {
      unmark();
      throw error;
    }
  }

  /** The commit is done: from here on nothing may fail the sync. */
  async #afterCommit(): Promise<void> {
    try {
      this.#old.close();
      await this.#writer?.call('checkpoint');
    } catch {
      // A checkpoint is a courtesy; whoever opens the replica next makes it.
    }
    await this.#release();
  }

  #checkUnreplaced(): void {
    if (currentFileId(this.path) !== this.#file.fileId) throw replicaReplaced(this.path);
  }

  #openWriter(): PageWriter {
    if (this.#writer === undefined) throw new Error('the sink was not begun');
    return this.#writer;
  }

  #retry<T>(action: () => Promise<T>): Promise<T> {
    return retryBusy(`Replica ${this.path}`, action, {
      timeoutMs: this.#options.busyTimeoutMs,
      signal: this.#options.signal,
    });
  }

  async #release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    await this.#preparing?.catch(() => {}); // told to whoever waited for it
    const steps: (() => void | Promise<void>)[] = [
      () => this.#old.close(),
      () => this.#writer?.call('rollback'),
      () => this.#writer?.call('close'),
      () => this.#writer?.end(),
      () => this.#old.closeFile(),
    ];
    for (const release of steps) {
      try {
        await release();
      } catch {
        // Closing is all that is left to do; an I/O error on the way must not hide the first one.
      }
    }
    this.#spool?.remove();
    this.#writer = undefined;
  }
}
