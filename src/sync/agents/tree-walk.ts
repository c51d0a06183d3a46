import { CHILD_HASH_BYTES, MAX_HASHES_PER_MESSAGE, topLevel, TREE_FANOUT } from '../../../protocol/limits.ts';
import { SqlsyncError } from '../../errors.ts';

export interface TreeWalkOptions {
  /** Pages of the origin. */
  readonly pageCount: number;
  /** Pages of the old state; the walk wants pages beyond it without comparing. */
  readonly oldPageCount: number;
  /** The level to begin at, if it is not the one that `topLevel` gives. */
  readonly topLevel?: number | undefined;
  readonly hashBytes: number;
  /** The page that never travels. */
  readonly lockBytePage: number;
  /** True to fetch page 1 whole, however it compares. */
  readonly wantsFirstPage?: boolean;
  /** The hash of one of our nodes, over the pages that exist here. Only called for nodes that have some. */
  readonly ownHash: (level: number, index: number) => Uint8Array;
}

/** A page to fetch as a delta against the old version, with the required start of the result's hash. */
export interface DifferingPage {
  readonly pageNumber: number;
  /** The first `CHILD_HASH_BYTES` as a number: millions of small arrays would keep the garbage collector busy. */
  readonly hashPrefix: number;
}

export interface ChildrenRequest {
  /** Level of the children. */
  readonly level: number;
  /** Nodes of `level + 1`, ascending. */
  readonly parents: readonly number[];
}

/**
 * Decides which hashes and pages to request. Pure: it receives the peer's hashes, and returns what to request next.
 *
 * It compares the peer's hashes of the top level with ours as soon as both are known, then asks for the children of
 * differing nodes, level by level down to pages. It wants the pages of nodes that do not exist here whole, without
 * asking. Questions of the lowest level go first, to keep little in memory.
 */
export class TreeWalk {
  /** Pages known so far to differ. */
  differing = 0;
  readonly #options: TreeWalkOptions;
  readonly #topLevel: number;
  readonly #topNodes: number;
  readonly #theirTop: Uint8Array;
  #theirTopCount = 0;
  #ownTopCount = 0;
  #compared = 0;
  /** By level: differing nodes whose children are still to be requested. */
  readonly #descend: number[][] = [];
  #childrenAsked = 0;
  readonly #differingPages: DifferingPage[] = [];
  /** Ranges [first, end) of pages that do not exist here. */
  readonly #absentRanges: { first: number; end: number }[] = [];

  constructor(options: TreeWalkOptions) {
    this.#options = options;
    this.#topLevel = options.topLevel ?? topLevel(options.pageCount);
    const pagesPerNode = TREE_FANOUT ** this.#topLevel;
    this.#topNodes = Math.ceil(Math.min(options.pageCount, options.oldPageCount) / pagesPerNode);
    this.#theirTop = new Uint8Array(this.#topNodes * options.hashBytes);
    if (options.wantsFirstPage === true && this.#topNodes > 0) this.#wantAbsent(1, 2);
    this.#wantAbsent(this.#topNodes * pagesPerNode + 1, options.pageCount + 1);
  }

  /** True if there is nothing to compare, so that the peer need not hash. */
  get needsNoHashes(): boolean {
    return this.#topNodes === 0;
  }

  get pagesCompared(): number {
    return Math.min(this.#compared * TREE_FANOUT ** this.#topLevel, this.#options.pageCount);
  }

  /** True while nodes of our own wait to be hashed for the first pass. */
  get hasOwnWork(): boolean {
    return this.#ownTopCount < this.#topNodes;
  }

  /** True when every difference is known and was handed out. */
  get finished(): boolean {
    return this.isCompared && this.#differingPages.length === 0 && this.#absentRanges.length === 0;
  }

  /** True when every difference is known. */
  get isCompared(): boolean {
    return (
      this.#compared === this.#topNodes &&
      this.#childrenAsked === 0 &&
      this.#descend.every((l) => l.length === 0)
    );
  }

  /** Hashes our next node of the first pass; returns its number of pages. */
  hashOwn(): number {
    this.#options.ownHash(this.#topLevel, this.#ownTopCount++);
    this.#compareTop();
    return TREE_FANOUT ** this.#topLevel;
  }

  /** Takes hashes of the first pass, from node `first` on. */
  onTopHashes(first: number, data: Uint8Array): void {
    const { hashBytes, pageCount } = this.#options;
    const nodes = Math.ceil(pageCount / TREE_FANOUT ** this.#topLevel);
    const end = first + data.length / hashBytes;
    if (first !== this.#theirTopCount || end === first || end > nodes || data.length % hashBytes !== 0)
      throw unasked('hashes');
    const count = Math.min(end, this.#topNodes) - first;
    if (count > 0) this.#theirTop.set(data.subarray(0, count * hashBytes), first * hashBytes);
    this.#theirTopCount = end;
    this.#compareTop();
  }

  /** The next question about children; undefined if nothing is to be asked now. */
  takeChildrenRequest(): ChildrenRequest | undefined {
    const maxParents = MAX_HASHES_PER_MESSAGE / TREE_FANOUT;
    for (let level = 1; level < this.#descend.length; level++) {
      const nodes = this.#descend[level];
      if (nodes === undefined || nodes.length === 0) continue;
      this.#childrenAsked++;
      return { level: level - 1, parents: nodes.splice(0, maxParents).sort((a, b) => a - b) };
    }
    return undefined;
  }

  onChildren(request: ChildrenRequest, data: Uint8Array): void {
    const { pageCount } = this.#options;
    const width = Math.min(CHILD_HASH_BYTES, this.#options.hashBytes);
    const nodes = Math.ceil(pageCount / TREE_FANOUT ** request.level);
    let at = 0;
    for (const parent of request.parents) {
      const end = Math.min((parent + 1) * TREE_FANOUT, nodes);
      for (let child = parent * TREE_FANOUT; child < end; child++, at += width) {
        if (at + width > data.length) throw unasked('too few hashes');
        this.#compare(request.level, child, data, at, width);
      }
    }
    if (at !== data.length) throw unasked('more hashes');
    this.#childrenAsked--;
  }

  /** Differing pages, at most `limit`; each is handed out once, in the order of discovery. */
  takeDiffering(limit: number): DifferingPage[] {
    return this.#differingPages.splice(0, limit);
  }

  /** The pages that `takeDiffering` will likely return next, ascending. */
  nextDiffering(limit: number): number[] {
    return this.#differingPages
      .slice(0, limit)
      .map(({ pageNumber }) => pageNumber)
      .sort((a, b) => a - b);
  }

  get differingWaiting(): number {
    return this.#differingPages.length;
  }

  /** Pages that do not exist here, at most `limit`, ascending; each is handed out once. */
  takeAbsent(limit: number): number[] {
    const pages: number[] = [];
    while (pages.length < limit) {
      const range = this.#absentRanges[0];
      if (range === undefined) break;
      if (range.first !== this.#options.lockBytePage) pages.push(range.first);
      range.first++;
      if (range.first >= range.end) this.#absentRanges.shift();
      // A batch is ascending, but the next range may lie before this one.
      if (this.#absentRanges[0] !== range && pages.length > 0) break;
    }
    return pages;
  }

  /** Forgets the pages that do not exist here; the caller only needs their number. */
  dropAbsent(): void {
    this.#absentRanges.length = 0;
  }

  /** The number of differing nodes whose children were not requested yet. */
  get nodesWaiting(): number {
    return this.#descend.reduce((sum, nodes) => sum + nodes.length, 0);
  }

  /** True once any node or page is known to differ. */
  get hasDifference(): boolean {
    return this.differing > 0 || this.#childrenAsked > 0 || this.nodesWaiting > 0;
  }

  #compareTop(): void {
    const { hashBytes } = this.#options;
    const end = Math.min(this.#ownTopCount, this.#theirTopCount, this.#topNodes);
    for (; this.#compared < end; this.#compared++) {
      const at = this.#compared * hashBytes;
      this.#compare(this.#topLevel, this.#compared, this.#theirTop, at, hashBytes);
    }
  }

  /** Compares one of our nodes with the hash of `width` bytes at `at` in `theirs`. */
  #compare(level: number, index: number, theirs: Uint8Array, at: number, width: number): void {
    const first = index * TREE_FANOUT ** level + 1;
    if (first > this.#options.oldPageCount) {
      this.#wantAbsent(first, Math.min(first + TREE_FANOUT ** level, this.#options.pageCount + 1));
      return;
    }
    // A node with pages that we lack differs, whatever the peer says: otherwise those pages would never be requested.
    const last = Math.min(first + TREE_FANOUT ** level - 1, this.#options.pageCount);
    const isWhole = last <= this.#options.oldPageCount;
    if (isWhole && startsWith(this.#options.ownHash(level, index), theirs, at, width)) return;
    if (level === 0) {
      if (first === this.#options.lockBytePage) throw unasked('a hash of the page that has no content');
      this.#differingPages.push({ pageNumber: first, hashPrefix: hashPrefix(theirs, at) });
      this.differing++;
      return;
    }
    (this.#descend[level] ??= []).push(index);
  }

  #wantAbsent(first: number, end: number): void {
    if (first >= end) return;
    const { lockBytePage } = this.#options;
    this.differing += end - first - (lockBytePage >= first && lockBytePage < end ? 1 : 0);
    const last = this.#absentRanges.at(-1);
    if (last?.end === first) last.end = end;
    else this.#absentRanges.push({ first, end });
  }
}

/** True if our full hash begins with the `width` bytes of its hash that the peer sent. */
function startsWith(ours: Uint8Array, theirs: Uint8Array, at: number, width: number): boolean {
  for (let i = 0; i < width; i++) if (ours[i] !== theirs[at + i]) return false;
  return true;
}

/** The first `CHILD_HASH_BYTES` of the hash at `at`, as a number. */
export function hashPrefix(hashes: Uint8Array, at = 0): number {
  let prefix = 0;
  for (let i = at; i < at + CHILD_HASH_BYTES; i++) prefix = prefix * 256 + (hashes[i] as number);
  return prefix;
}

/** The error for a message that answers no question. */
export function unasked(what: string): SqlsyncError {
  return new SqlsyncError('PROTOCOL', `The other side sent ${what} that was not asked for`);
}
