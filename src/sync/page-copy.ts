import { setImmediate as nextTick } from 'node:timers/promises';
import { message } from '../../protocol/encode.ts';
import { MAX_OUTSTANDING_PAGE_BYTES, MAX_PAGES_REQUEST_BYTES } from '../../protocol/limits.ts';
import { LEVEL_TOP } from '../../protocol/messages.ts';
import type { HashAlgorithm, Message, MessageOf, Phase } from '../../protocol/messages.ts';
import {
  blockHashBytes,
  decodeBatch,
  encodeWanted,
  maxBatchBytes,
  toGaps,
} from '../../protocol/page-batch.ts';
import type { BatchPage, WantedPage } from '../../protocol/page-batch.ts';
import { SqlsyncError } from '../errors.ts';
import { applyDelta } from '../pages/delta.ts';
import { createPageHasher, hashBlocks } from '../pages/hash.ts';
import { HashTree } from '../pages/hash-tree.ts';
import type { PageSink, PageSource } from '../pages/page-source.ts';
import { lockBytePage, pageCount, pageNumber } from '../pages/page-types.ts';
import type { PageSize } from '../pages/page-types.ts';
import { decodeBatchBytes } from './compression.ts';
import { checked } from './connection.ts';
import type { Connection } from './connection.ts';
import { TreeWalk } from './tree-walk.ts';
import type { ChildrenRequest, DifferingPage } from './tree-walk.ts';

export interface CopyProgress {
  readonly phase: Phase;
  /** Bytes. */
  readonly pageSize: number;
  readonly pageCount: number;
  readonly pagesCompared: number;
  readonly pagesWanted: number;
  readonly pagesReceived: number;
}

export interface PageCopyOptions {
  readonly connection: Connection;
  readonly sink: PageSink;
  readonly snapshot: MessageOf<'snapshot'>;
  readonly pageSize: PageSize;
  readonly seed: Uint8Array;
  /** Id of the question for the first hashes, where it was sent with `open`; else 0. */
  readonly firstId: number;
  readonly hash: HashAlgorithm;
  readonly dryRun: boolean;
  readonly onProgress?: ((progress: CopyProgress) => void) | undefined;
}

/**
 * The root hashes differ although every page was checked: a difference hid behind an equal hash prefix (2^-40), or a
 * page was damaged in memory. A new attempt has a new seed.
 */
export class RootMismatchError extends SqlsyncError {
  constructor() {
    super('ROOT_MISMATCH', 'The copy does not have the root hash of the origin', {
      hint: 'Nothing was changed. Run it again; if it happens again, check the memory and disks of both machines.',
    });
  }
}

/** A page that was asked for, with its old version where a delta is expected. */
interface Expected extends WantedPage {
  readonly old: Uint8Array | undefined;
  /** How the result's hash must begin; undefined where the page did not exist here, so that only the root tells. */
  readonly hash: Uint8Array | undefined;
}

function whole(number: number, hash: Uint8Array | undefined): Expected {
  return { pageNumber: number, hasBlocks: false, old: undefined, hash };
}

/** Pages of our own that are hashed between two looks at the connection: some 4 ms. */
const SLICE_PAGES = 2048;

/** Below this many differing pages no further children are asked for before pages are: bounds what is remembered. */
const MAX_DIFFERING_WAITING = 32768;

/** Differing nodes that are worth a question while another one is under way. */
const CHILDREN_BATCH = 64;

/** Pages that are asked for as deltas before it is judged whether that pays. */
const DELTA_TRIAL_PAGES = 2048;

const PROGRESS_INTERVAL_MS = 100;

/**
 * Copies one snapshot into a sink: compares hashes, asks for the pages that differ, writes them as they come, and
 * checks the result against the root hash. The caller commits.
 *
 * Nothing waits for a whole pass: our own hashing runs in slices between the peer's answers, questions are sent as
 * soon as differences are found, and a bounded number of pages is always under way.
 */
export class PageCopy {
  readonly #options: PageCopyOptions;
  readonly #connection: Connection;
  readonly #sink: PageSink;
  #tree: HashTree;
  #walk: TreeWalk;
  #topId: number;
  #nextId: number;
  readonly #childrenAsked = new Map<number, ChildrenRequest>();
  readonly #pagesAsked = new Map<number, Expected[]>();
  /** Questions of a comparison that was started again; their answers are of no use. */
  readonly #abandoned = new Set<number>();
  #outstandingBytes = 0;
  #begun = false;
  #rootAsked = false;
  #root: MessageOf<'root'> | undefined;
  #received = 0;
  #deltas = 0;
  #deltasAsked = 0;
  #progressAt = 0;

  constructor(options: PageCopyOptions) {
    this.#options = options;
    this.#connection = options.connection;
    this.#sink = options.sink;
    this.#topId = options.firstId;
    this.#nextId = options.firstId + 1;
    [this.#tree, this.#walk] = this.#newWalk();
  }

  get counts(): {
    pagesCompared: number;
    pagesChanged: number;
    pagesTransferred: number;
    pagesDelta: number;
  } {
    return {
      pagesCompared: this.#walk.pagesCompared,
      pagesChanged: this.#walk.differing,
      pagesTransferred: this.#received,
      pagesDelta: this.#deltas,
    };
  }

  /** Returns when all pages are in the sink and the root hash was found right. */
  async run(): Promise<{ root: MessageOf<'root'>; changed: boolean }> {
    if (this.#walk.needsNoHashes) this.#abandonTop();
    else if (this.#topId === 0) this.#askTop();
    while (this.#root === undefined || this.#pagesAsked.size > 0) {
      for (let next = this.#connection.poll(); next !== undefined; next = this.#connection.poll())
        this.#onMessage(next);
      await this.#beginIfNeeded();
      this.#ask();
      this.#reportProgress(false);
      await this.#connection.drained();
      await this.#sink.ready();
      if (this.#walk.hasOwnWork) {
        this.#hashOwnSlice();
        await nextTick();
      } else if (this.#root === undefined || this.#pagesAsked.size > 0) {
        this.#onMessage(await this.#connection.receive());
      }
    }
    const changed = this.#isChanged();
    this.#connection.send(message('release', {}));
    // Now: what follows may block this process until the commit is done.
    await this.#connection.drained();
    await this.#sink.written();
    if (!this.#options.dryRun || !changed) this.#checkRoot(this.#root);
    this.#reportProgress(true);
    await this.#connection.drained();
    return { root: this.#root, changed };
  }

  #newWalk(): [HashTree, TreeWalk] {
    const { snapshot, pageSize, seed, hash } = this.#options;
    const { old } = this.#sink;
    const present = Math.min(old?.pageCount ?? 0, snapshot.pageCount);
    const hasher = createPageHasher(hash, seed, pageSize);
    if (hasher.hashBytes !== snapshot.hashBytes) {
      throw new SqlsyncError(
        'PROTOCOL',
        `The origin announced hashes of ${snapshot.hashBytes} bytes, not ${hasher.hashBytes}`,
      );
    }
    const tree = new HashTree({
      pageCount: pageCount(snapshot.pageCount),
      presentCount: pageCount(present),
      hasher,
      readPages: (first, count) => this.#old().readPages(first, count),
    });
    const own = new Uint8Array(hasher.hashBytes);
    const walk = new TreeWalk({
      pageCount: snapshot.pageCount,
      oldPageCount: present,
      hashBytes: hasher.hashBytes,
      lockBytePage: lockBytePage(pageSize),
      ownHash(level, index) {
        tree.hashNode(level, index, own, 0);
        return own;
      },
    });
    return [tree, walk];
  }

  #old(): PageSource {
    if (this.#sink.old === undefined) throw new Error('there is no old version');
    return this.#sink.old;
  }

  #isChanged(): boolean {
    const { old, resumed } = this.#sink;
    if (this.#walk.differing > 0 || old === undefined) return true;
    // The leftover of an interrupted run may lack nothing but its publication.
    return resumed || old.pageCount !== this.#options.snapshot.pageCount;
  }

  /** At the first difference takes the right to change the sink. */
  async #beginIfNeeded(): Promise<void> {
    if (this.#begun || this.#options.dryRun || !this.#knowsDifference()) return;
    this.#begun = true;
    if ((await this.#sink.begin()) === 'ready') return;
    // Somebody changed the replica since the comparison began: compare again, now with the lock held.
    for (const [id] of this.#childrenAsked) this.#abandoned.add(id);
    this.#childrenAsked.clear();
    this.#abandonTop();
    [this.#tree, this.#walk] = this.#newWalk();
    if (!this.#walk.needsNoHashes) this.#askTop();
  }

  /** A difference that is certain: between pages, nodes or sizes. */
  #knowsDifference(): boolean {
    return this.#walk.hasDifference || this.#isChanged();
  }

  #askTop(): void {
    this.#topId = this.#nextId++;
    this.#connection.send(message('getHashes', { id: this.#topId, level: LEVEL_TOP, first: 0, count: 0 }));
  }

  #abandonTop(): void {
    if (this.#topId !== 0) this.#abandoned.add(this.#topId);
    this.#topId = 0;
  }

  #hashOwnSlice(): void {
    for (let pages = 0; pages < SLICE_PAGES && this.#walk.hasOwnWork;) pages += this.#walk.hashOwn();
  }

  /** Sends every question that can be asked now. */
  #ask(): void {
    while (this.#walk.differingWaiting < MAX_DIFFERING_WAITING && this.#shouldAskChildren()) {
      const request = this.#walk.takeChildrenRequest();
      if (request === undefined) break;
      const id = this.#nextId++;
      this.#childrenAsked.set(id, request);
      this.#connection.send(
        message('getChildren', { id, level: request.level, parents: toGaps(request.parents) }),
      );
    }
    if (this.#options.dryRun) this.#dropWanted();
    else this.#askPages();
    if (this.#rootAsked || this.#walk.hasOwnWork || !this.#walk.finished) return;
    this.#rootAsked = true;
    this.#connection.send(message('getRoot', {}));
  }

  /** One question at a time unless there is much to ask: what is found meanwhile goes together. */
  #shouldAskChildren(): boolean {
    return this.#childrenAsked.size === 0 || this.#walk.nodesWaiting >= CHILDREN_BATCH;
  }

  #dropWanted(): void {
    while (this.#walk.takeDiffering(MAX_DIFFERING_WAITING).length > 0);
    this.#walk.dropAbsent();
  }

  #askPages(): void {
    if (!this.#begun) return;
    const { pageSize } = this.#options;
    const limit = Math.max(1, Math.floor(MAX_PAGES_REQUEST_BYTES / pageSize));
    while (this.#outstandingBytes + limit * pageSize <= MAX_OUTSTANDING_PAGE_BYTES) {
      // Part of a batch is only sent when no more will come to fill it.
      const enough = this.#walk.differingWaiting >= limit || this.#walk.isCompared;
      const wanted =
        enough && this.#walk.differingWaiting > 0
          ? this.#expectDiffering(this.#walk.takeDiffering(limit))
          : this.#walk.takeAbsent(limit).map((page) => whole(page, undefined));
      if (wanted.length === 0) return;
      this.#sendGetPages(wanted);
    }
  }

  /**
   * Where nearly every page comes whole, as after a VACUUM, block hashes are a waste; every eighth batch goes on trying.
   */
  get #deltasPay(): boolean {
    return (
      this.#deltasAsked < DELTA_TRIAL_PAGES || this.#deltas > this.#deltasAsked / 8 || this.#nextId % 8 === 0
    );
  }

  /** Pages that exist here in another version, which is read into one buffer for all of them. */
  #expectDiffering(pages: DifferingPage[]): Expected[] {
    pages.sort((a, b) => a.pageNumber - b.pageNumber);
    if (!this.#deltasPay) return pages.map((page) => whole(page.pageNumber, page.hash));
    this.#deltasAsked += pages.length;
    const { pageSize } = this.#options;
    const versions = Buffer.allocUnsafeSlow(pages.length * pageSize);
    return pages.map(({ pageNumber: number, hash }, i) => {
      const old = versions.subarray(i * pageSize, (i + 1) * pageSize);
      old.set(this.#old().readPages(pageNumber(number), 1));
      return { pageNumber: number, hasBlocks: true, old, hash };
    });
  }

  #sendGetPages(wanted: Expected[]): void {
    const { pageSize } = this.#options;
    const perPage = blockHashBytes(pageSize);
    const withBlocks = wanted.filter((page) => page.old !== undefined);
    const blockHashes = new Uint8Array(withBlocks.length * perPage);
    for (const [i, page] of withBlocks.entries())
      if (page.old !== undefined) hashBlocks(page.old, blockHashes, i * perPage);
    const id = this.#nextId++;
    this.#pagesAsked.set(id, wanted);
    this.#outstandingBytes += wanted.length * pageSize;
    this.#connection.send(message('getPages', { id, pages: encodeWanted(wanted), blockHashes }));
  }

  #onMessage(answer: Message): void {
    switch (answer.type) {
      case 'hashes':
        return this.#onHashes(answer);
      case 'pages':
        return this.#onPages(answer);
      case 'root':
        if (!this.#rootAsked || this.#root !== undefined) throw unasked('the root hash');
        this.#root = answer;
        return undefined;
      default:
        throw unasked(answer.type);
    }
  }

  #onHashes(answer: MessageOf<'hashes'>): void {
    if (this.#abandoned.has(answer.id)) return;
    if (answer.id === this.#topId) return this.#walk.onTopHashes(answer.first, answer.data);
    const request = this.#childrenAsked.get(answer.id);
    if (request === undefined || answer.first !== 0) throw unasked('hashes');
    this.#childrenAsked.delete(answer.id);
    this.#walk.onChildren(request, answer.data);
  }

  #onPages(answer: MessageOf<'pages'>): void {
    const expected = this.#pagesAsked.get(answer.id);
    if (expected === undefined) throw unasked('pages');
    this.#pagesAsked.delete(answer.id);
    const { pageSize } = this.#options;
    this.#outstandingBytes -= expected.length * pageSize;
    const bytes = decodeBatchBytes(answer, maxBatchBytes(pageSize, expected.length));
    const again: Expected[] = [];
    for (const [i, page] of checked(() => decodeBatch(bytes, pageSize, expected)).entries()) {
      const wanted = expected[i] as Expected;
      if (!this.#take(wanted, page)) again.push(whole(wanted.pageNumber, wanted.hash));
    }
    if (again.length > 0) this.#sendGetPages(again);
  }

  /** Puts a page into the sink; false where a block hash collided, so that it has to be fetched whole. */
  #take(wanted: Expected, received: BatchPage): boolean {
    const number = pageNumber(wanted.pageNumber);
    let bytes: Uint8Array;
    if (received.bitmap === undefined) bytes = received.data;
    else {
      bytes = wanted.old ?? new Uint8Array(this.#options.pageSize);
      applyDelta(bytes, received.bitmap, received.data);
    }
    const hash = this.#tree.hashOf(number, bytes);
    if (
      wanted.hash !== undefined &&
      Buffer.compare(hash.subarray(0, wanted.hash.length), wanted.hash) !== 0
    ) {
      if (received.bitmap !== undefined) return false;
      throw new SqlsyncError(
        'ROOT_MISMATCH',
        `Page ${number} arrived with another hash than the origin announced`,
        {
          hint: 'Nothing was changed. If it happens again, check the memory of both machines.',
        },
      );
    }
    this.#sink.write(number, bytes);
    this.#tree.setPageHash(number, hash);
    this.#received++;
    if (received.bitmap !== undefined) this.#deltas++;
    return true;
  }

  #checkRoot(root: MessageOf<'root'>): void {
    this.#tree.complete((first, count) =>
      this.#begun ? this.#readNew(first, count) : this.#old().readPages(first, count),
    );
    if (Buffer.compare(this.#tree.root(), root.hash) === 0) return;
    throw new RootMismatchError();
  }

  #readNew(first: number, count: number): Uint8Array {
    const { pageSize } = this.#options;
    const run = new Uint8Array(count * pageSize);
    for (let i = 0; i < count; i++) run.set(this.#sink.readNew(pageNumber(first + i)), i * pageSize);
    return run;
  }

  #reportProgress(now: boolean): void {
    const { onProgress, snapshot } = this.#options;
    if (onProgress === undefined || (!now && performance.now() < this.#progressAt)) return;
    this.#progressAt = performance.now() + PROGRESS_INTERVAL_MS;
    onProgress({
      phase: this.#root !== undefined ? 'commit' : this.#walk.isCompared ? 'transfer' : 'compare',
      pageSize: snapshot.pageSize,
      pageCount: snapshot.pageCount,
      pagesCompared: this.#walk.pagesCompared,
      pagesWanted: this.#walk.differing,
      pagesReceived: this.#received,
    });
  }
}

function unasked(what: string): SqlsyncError {
  return new SqlsyncError('PROTOCOL', `The other side sent ${what} that was not asked for`);
}
