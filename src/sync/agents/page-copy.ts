import { setImmediate as nextTick } from 'node:timers/promises';
import { message } from '../../../protocol/encode.ts';
import {
  MAX_OUTSTANDING_PAGE_BYTES,
  MAX_PAGE_COUNT,
  topLevel,
  TREE_FANOUT,
} from '../../../protocol/limits.ts';
import { LEVEL_TOP } from '../../../protocol/messages.ts';
import type { HashAlgorithm, Message, MessageOf, Phase } from '../../../protocol/messages.ts';
import { toGaps } from '../../../protocol/page-batch.ts';
import { SqlsyncError } from '../../errors.ts';
import { createPageHasher } from '../../pages/hash.ts';
import type { PageHasher } from '../../pages/hash.ts';
import type { HashAudit } from '../../pages/hash-audit.ts';
import { HashTree } from '../../pages/hash-tree.ts';
import type { KnownNodes } from '../../pages/hash-tree.ts';
import type { PageSink, PageSource } from '../../pages/page-source.ts';
import { lockBytePage, pageCount, pageNumber } from '../../pages/page-types.ts';
import type { PageSize } from '../../pages/page-types.ts';
import type { Connection } from '../link/connection.ts';
import { PageExchange } from './page-exchange.ts';
import { RootMismatchError } from './root-mismatch.ts';
import { RoundOverError } from './rounds.ts';
import type { ReceivedPages } from '../quick/sent-versions.ts';
import { TreeWalk, unasked } from './tree-walk.ts';
import type { ChildrenRequest } from './tree-walk.ts';

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
  /** The key of the hashes. */
  readonly key: Uint8Array;
  /** Id of the question for the first hashes, if it was sent with `open`; else 0. */
  readonly firstId: number;
  readonly hash: HashAlgorithm;
  readonly dryRun: boolean;
  /** True if the origin has limits, and so may end the round. */
  readonly isLimited: boolean;
  readonly onProgress?: ((progress: CopyProgress) => void) | undefined;
  /** What is known about `sink.old` when the copy begins. */
  readonly old?: KnownState | undefined;
}

/** What is known about an old state before a page of it is read. */
export interface KnownState {
  readonly nodes?: KnownNodes | undefined;
  /** Looks at the pages that are hashed. */
  readonly audit?: HashAudit | undefined;
  /** The pages that are as this very origin agent sent them. Takes those that it sends from now on. */
  readonly sent?: ReceivedPages | undefined;
}

/** Pages of our own to hash between two looks at the connection: some 4 ms. */
const SLICE_PAGES = 2048;

/**
 * With this many differing pages waiting, the copy requests pages before it asks for more children. Bounds the memory.
 */
const MAX_DIFFERING_WAITING = 32768;

/**
 * Questions about children that may be under way. Each is sent at once: waiting to collect more would cost a round
 * trip.
 */
const MAX_QUESTIONS = 64;

/** Nodes whose hashes are asked for first if ours are known: some 500 bytes. */
const MAX_CHEAP_NODES = 64;

/** No pass begins above this level. */
const HIGHEST_LEVEL = topLevel(MAX_PAGE_COUNT);

const PROGRESS_INTERVAL_MS = 100;

/**
 * Copies one snapshot into a sink: compares hashes, requests the pages that differ, writes them as they come, and
 * checks the result against the root hash. The caller commits.
 *
 * Nothing waits for a whole pass: our own hashing runs in slices between the peer's answers, questions are sent as soon
 * as differences are found, and a bounded number of pages is always under way.
 */
export class PageCopy {
  readonly #options: PageCopyOptions;
  readonly #connection: Connection;
  readonly #sink: PageSink;
  readonly #hasher: PageHasher;
  #tree: HashTree;
  #walk: TreeWalk;
  readonly #pages: PageExchange;
  #topId: number;
  /** The level at which the comparison begins; undefined for the usual one. */
  #topLevel: number | undefined;
  #nextId: number;
  readonly #childrenAsked = new Map<number, ChildrenRequest>();
  /** Questions of a comparison that was restarted; their answers are dropped. */
  readonly #abandoned = new Set<number>();
  #preparing: Promise<void> | undefined;
  #isPrepared = false;
  #begun = false;
  #rootAsked = false;
  #root: MessageOf<'root'> | undefined;
  #progressAt = 0;

  constructor(options: PageCopyOptions) {
    this.#options = options;
    this.#connection = options.connection;
    this.#sink = options.sink;
    this.#topId = options.firstId;
    this.#nextId = options.firstId + 1;
    this.#hasher = createPageHasher(options.hash, options.key, options.pageSize);
    [this.#tree, this.#walk] = this.#newWalk(options.old);
    this.#pages = new PageExchange(options.connection, options.sink, this.#hasher, options.old?.sent);
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
      pagesTransferred: this.#pages.received,
      pagesDelta: this.#pages.deltas,
    };
  }

  get #pagesMissing(): number {
    const { snapshot } = this.#options;
    const present = Math.min(this.#sink.old?.pageCount ?? 0, snapshot.pageCount);
    return Math.max(0, present - this.#walk.pagesCompared) + this.#walk.differing - this.#pages.received;
  }

  /**
   * Returns when all pages are in the sink and the root hash is right; with the hashes of the result, if there is one.
   */
  async run(): Promise<{ root: MessageOf<'root'>; changed: boolean; nodes?: KnownNodes | undefined }> {
    if (this.#walk.needsNoHashes) this.#abandonTop();
    else if (this.#topId === 0) this.#askTop();
    while (this.#root === undefined || this.#pages.areAsked) {
      for (let next = this.#connection.poll(); next !== undefined; next = this.#connection.poll()) {
        this.#onMessage(next);
        await this.#sink.ready?.();
      }
      await this.#beginIfNeeded();
      this.#ask();
      this.#reportProgress(false);
      await this.#connection.drained();
      if (this.#walk.hasOwnWork) {
        this.#hashOwnSlice();
        await nextTick();
      } else if (this.#root === undefined || this.#pages.areAsked) {
        this.#onMessage(await this.#connection.receive());
        await this.#sink.ready?.();
      }
    }
    const changed = this.#isChanged();
    this.#connection.send(message('release', {}));
    // Drains now: what follows may block this process until the commit is done.
    await this.#connection.drained();
    await this.#sink.written?.();
    if (!this.#options.dryRun || !changed) this.#checkRoot(this.#root);
    this.#sink.takeHashes?.(this.#tree.pageHashes());
    this.#reportProgress(true);
    await this.#connection.drained();
    if (this.#options.dryRun) return { root: this.#root, changed };
    return { root: this.#root, changed, nodes: this.#tree.knownNodes() };
  }

  #newWalk(known?: KnownState): [HashTree, TreeWalk] {
    const { snapshot, pageSize } = this.#options;
    const { old } = this.#sink;
    const hasher = this.#hasher;
    const present = Math.min(old?.pageCount ?? 0, snapshot.pageCount);
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
      readPages: (first, count) => {
        const run = this.#old().readPages(first, count);
        known?.audit?.check(first, run);
        return run;
      },
      ...(this.#sink.takeHashes === undefined ? {} : { budgetBytes: Infinity }),
      knownHashes: this.#sink.oldHashes,
      known: known?.nodes,
    });
    // With our hashes known, few levels more cost less than the hashes of all nodes of the usual one.
    const isCheap = known?.nodes !== undefined && this.#topId === 0;
    this.#topLevel = isCheap ? levelOf(snapshot.pageCount, MAX_CHEAP_NODES) : undefined;
    const own = new Uint8Array(hasher.hashBytes);
    const walk = new TreeWalk({
      pageCount: snapshot.pageCount,
      oldPageCount: present,
      hashBytes: hasher.hashBytes,
      lockBytePage: lockBytePage(pageSize),
      topLevel: this.#topLevel,
      wantsFirstPage: this.#sink.keepsFirstPage === true,
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
    const { old } = this.#sink;
    if (this.#walk.differing > 0 || old === undefined) return true;
    return this.#sink.holdsChanges === true || old.pageCount !== this.#options.snapshot.pageCount;
  }

  /** Takes the right to change the sink at the first difference. */
  async #beginIfNeeded(): Promise<void> {
    if (this.#begun || this.#options.dryRun || !this.#knowsDifference()) return;
    // The number of pages to write decides how the sink writes them, so wait until there are many or all are known.
    const { differing, isCompared } = this.#walk;
    const isMuch = differing * this.#options.pageSize >= MAX_OUTSTANDING_PAGE_BYTES;
    if (this.#preparing === undefined && !isMuch && !isCompared) return;
    this.#preparing ??= this.#prepare(differing);
    if (!this.#isPrepared && this.#walk.hasOwnWork) return;
    await this.#preparing;
    this.#begun = true;
    if ((await this.#sink.begin?.()) !== 'moved') return;
    // Another program changed the replica since the comparison began: compare again, now with the lock held.
    for (const [id] of this.#childrenAsked) this.#abandoned.add(id);
    this.#childrenAsked.clear();
    this.#abandonTop();
    [this.#tree, this.#walk] = this.#newWalk();
    if (!this.#walk.needsNoHashes) this.#askTop();
  }

  /** Prepares the sink while the comparison goes on. An error appears when the caller waits for it. */
  #prepare(knownPages: number): Promise<void> {
    const preparing = Promise.resolve(this.#sink.prepare?.(knownPages)).finally(
      () => (this.#isPrepared = true),
    );
    preparing.catch(() => {});
    return preparing;
  }

  /** A certain difference: between pages, nodes or sizes. */
  #knowsDifference(): boolean {
    return this.#walk.hasDifference || this.#isChanged();
  }

  #askTop(): void {
    this.#topId = this.#nextId++;
    const level = this.#topLevel ?? LEVEL_TOP;
    this.#connection.send(message('getHashes', { id: this.#topId, level, first: 0, count: 0 }));
  }

  #abandonTop(): void {
    if (this.#topId !== 0) this.#abandoned.add(this.#topId);
    this.#topId = 0;
  }

  #hashOwnSlice(): void {
    for (let pages = 0; pages < SLICE_PAGES && this.#walk.hasOwnWork;) pages += this.#walk.hashOwn();
  }

  /** Sends every question that can be sent now. */
  #ask(): void {
    while (this.#walk.differingWaiting < MAX_DIFFERING_WAITING && this.#childrenAsked.size < MAX_QUESTIONS) {
      const request = this.#walk.takeChildrenRequest();
      if (request === undefined) break;
      const id = this.#nextId++;
      this.#childrenAsked.set(id, request);
      this.#connection.send(
        message('getChildren', { id, level: request.level, parents: toGaps(request.parents) }),
      );
    }
    if (this.#options.dryRun) this.#dropWanted();
    else if (this.#begun) this.#pages.ask(this.#walk);
    if (this.#rootAsked || this.#walk.hasOwnWork || !this.#walk.finished) return;
    this.#rootAsked = true;
    this.#connection.send(message('getRoot', {}));
  }

  #dropWanted(): void {
    while (this.#walk.takeDiffering(MAX_DIFFERING_WAITING).length > 0);
    this.#walk.dropAbsent();
  }

  #onMessage(answer: Message): void {
    switch (answer.type) {
      case 'hashes':
        return this.#onHashes(answer);
      case 'pages':
        return this.#pages.onPages(answer, this.#tree);
      case 'root':
        if (!this.#rootAsked || this.#root !== undefined) throw unasked('the root hash');
        this.#root = answer;
        return undefined;
      case 'roundOver':
        if (!this.#options.isLimited) throw unasked('the end of a round');
        throw new RoundOverError({ ...answer, ...this.counts, pagesMissing: this.#pagesMissing });
      default:
        throw unasked(answer.type);
    }
  }

  #onHashes(answer: MessageOf<'hashes'>): void {
    if (this.#abandoned.has(answer.id)) return;
    if (this.#topId !== 0 && answer.id === this.#topId)
      return this.#walk.onTopHashes(answer.first, answer.data);
    const request = this.#childrenAsked.get(answer.id);
    if (request === undefined || answer.first !== 0) throw unasked('hashes');
    this.#childrenAsked.delete(answer.id);
    this.#walk.onChildren(request, answer.data);
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
      pagesReceived: this.#pages.received,
    });
  }
}

/** The lowest level, from the usual one on, with so few nodes. */
function levelOf(pages: number, maxNodes: number): number {
  let level = topLevel(pages);
  while (pages > maxNodes * TREE_FANOUT ** level && level < HIGHEST_LEVEL) level++;
  return level;
}
