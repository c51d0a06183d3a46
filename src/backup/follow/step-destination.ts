import type { Outcome } from '../../../protocol/messages.ts';
import { SqlsyncError } from '../../errors.ts';
import type { PageSink, PageSource, SinkTarget } from '../../pages/page-source.ts';
import { lockBytePage, pageCount } from '../../pages/page-types.ts';
import type { PageCount, PageNumber, PageSize } from '../../pages/page-types.ts';
import type { CopyBefore, Destination } from '../../sync/agents/destination.ts';
import type { KnownState } from '../../sync/agents/page-copy.ts';
import { sameBytes } from '../packs/object-id.ts';
import { MAX_CHANGE_BYTES } from '../steps/step-writer.ts';
import type { StepWriter } from '../steps/step-writer.ts';

/** The last state that is in the store. */
export interface StoredState {
  readonly pageSize: PageSize;
  readonly pageCount: number;
  /** The hashes of all pages under `key`, one after another. The next copy takes this memory for its own. */
  readonly hashes: Uint8Array;
  readonly key: Uint8Array;
  /** Page 1, not all of whose bytes are hashed; undefined if it is not known. */
  readonly firstPage: Uint8Array | undefined;
}

/** A change that is too large for steps, or of another page size: the store needs another snapshot. */
export class NeedsSnapshotError extends SqlsyncError {
  constructor(why: string) {
    super('INTERNAL', `A step cannot hold the change: ${why}`);
  }
}

/** The next step of a stream, as the destination of a copy. It has the hashes of the state before, and no page of it. */
export class StepDestination implements Destination {
  readonly path: string;
  readonly fileId = '';
  readonly isNew = false;
  readonly hasOldPages = true;
  readonly warnings: readonly string[] = [];
  readonly key: Uint8Array;
  readonly #before: StoredState;
  readonly #writer: StepWriter;
  readonly #onStored: (state: StoredState) => void;

  constructor(path: string, before: StoredState, writer: StepWriter, onStored: (state: StoredState) => void) {
    this.path = path;
    this.key = before.key;
    this.#before = before;
    this.#writer = writer;
    this.#onStored = onStored;
  }

  copyBefore(): CopyBefore {
    return { name: 'the state before it', pages: this.#before.pageCount };
  }

  /** All of it, so that little is asked for and nothing copied, in a database of any size. */
  recall(): KnownState {
    const { hashes, pageCount: pages } = this.#before;
    return { nodes: { level: 0, pageCount: pages, hashes } };
  }

  /** Throws NeedsSnapshotError. */
  openSink(target: SinkTarget): Promise<PageSink> {
    const before = this.#before;
    if (target.pageSize !== before.pageSize)
      throw new NeedsSnapshotError(`its pages had ${before.pageSize} bytes and have ${target.pageSize}`);
    return Promise.resolve(new StepSink(target, before));
  }

  /** Throws SqlsyncError STORE_*. */
  async settle(sink: PageSink): Promise<Outcome> {
    if (!(sink instanceof StepSink)) throw new Error('another sink');
    if (!sink.isChanged) return 'unchanged';
    const { pageSize, pageCount: pages } = sink.target;
    await this.#writer.put({ timeMs: sink.timeMs, pageSize, pageCount: pages, pages: sink.pages });
    this.#onStored({
      pageSize,
      pageCount: pages,
      hashes: sink.hashes,
      key: this.key,
      firstPage: sink.pages.get(1) ?? this.#before.firstPage,
    });
    return 'committed';
  }
}

class StepSink implements PageSink {
  readonly keepsFirstPage = true;
  readonly warnings: readonly string[] = [];
  readonly target: SinkTarget;
  /** When the read transaction had begun, in ms since 1970. */
  readonly timeMs = Date.now();
  readonly old: PageSource;
  readonly pages = new Map<number, Uint8Array>();
  hashes: Uint8Array = new Uint8Array(0);
  readonly #before: StoredState;

  constructor(target: SinkTarget, before: StoredState) {
    this.target = target;
    this.#before = before;
    this.old = new UnreadPages(before);
  }

  /** False if no byte of the database has changed. */
  get isChanged(): boolean {
    return this.pages.size > 0 || this.target.pageCount !== this.#before.pageCount;
  }

  /** Pages come whole: there is no old version here. */
  needsOld(): boolean {
    return false;
  }

  /** Throws NeedsSnapshotError. */
  write(page: PageNumber, bytes: Uint8Array): void {
    const { firstPage } = this.#before;
    if (page === 1 && firstPage !== undefined && sameBytes(firstPage, bytes, bytes.length)) return;
    if ((this.pages.size + 1) * bytes.length > MAX_CHANGE_BYTES)
      throw new NeedsSnapshotError(`more than ${MAX_CHANGE_BYTES} bytes of pages`);
    this.pages.set(page, bytes.slice());
  }

  /** Every page was hashed when it came; only the lock-byte page never comes. */
  readNew(page: PageNumber): Uint8Array {
    const { pageSize } = this.target;
    if (page !== lockBytePage(pageSize)) throw new Error(`page ${page} was not hashed when it came`);
    return new Uint8Array(pageSize);
  }

  takeHashes(hashes: Uint8Array): void {
    this.hashes = hashes;
  }

  /** The destination puts the step. */
  commit(): Promise<void> {
    return Promise.resolve();
  }

  abort(): Promise<void> {
    return Promise.resolve();
  }
}

/** Pages of which only the hashes are known. */
class UnreadPages implements PageSource {
  readonly pageSize: PageSize;
  readonly pageCount: PageCount;

  constructor({ pageSize, pageCount: pages }: StoredState) {
    this.pageSize = pageSize;
    this.pageCount = pageCount(pages);
  }

  readPage(page: PageNumber): Uint8Array {
    throw new Error(`page ${page} is not here`);
  }

  readPages(first: PageNumber): Uint8Array {
    return this.readPage(first);
  }

  readInto(first: PageNumber): void {
    this.readPage(first);
  }

  close(): void {
    // Nothing is open.
  }
}
