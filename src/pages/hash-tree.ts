import { TREE_FANOUT } from '../../protocol/limits.ts';
import type { PageHasher } from './hash.ts';
import type { PageCount, PageNumber } from './page-types.ts';
import { pageNumber } from './page-types.ts';
import { RUN_BYTES } from './file-pages.ts';

/**
 * Memory for the hashes of one tree: enough for every page of 32 GB in pages of 4 KiB. Beyond that the tree keeps every
 * 16th part.
 */
const DEFAULT_BUDGET_BYTES = 64 * 1024 * 1024;

export type ReadPages = (first: PageNumber, count: number) => Uint8Array;

/** The hashes of all nodes of one level of a database, one after another. */
export interface KnownNodes {
  readonly level: number;
  /** Pages of that database. */
  readonly pageCount: number;
  /** A tree may take this array as its own, and change it. */
  readonly hashes: Uint8Array;
  /** Pages that changed since. */
  readonly changed?: readonly number[];
}

export interface HashTreeOptions {
  /** Pages of the finished tree. */
  readonly pageCount: PageCount;
  /** Pages that exist so far; nodes are hashed over these pages only. Defaults to `pageCount`. */
  readonly presentCount?: PageCount;
  readonly hasher: PageHasher;
  /** Reads consecutive pages for hashing, at most `RUN_BYTES` at once. */
  readonly readPages: ReadPages;
  readonly budgetBytes?: number;
  /** The hashes of the pages that exist so far, if known. The tree then keeps the hashes of all pages. */
  readonly knownHashes?: Uint8Array | undefined;
  /** Hashes of an earlier state. They are of use if they are of the level that this tree keeps. */
  readonly known?: KnownNodes | undefined;
}

/** The hashes of the nodes of one level, and a flag for each that is valid. */
interface KeptLevel {
  readonly hashes: Uint8Array;
  readonly known: Uint8Array;
}

/**
 * The hash tree of one database. A node of level L stands for 16^L consecutive pages. Its hash is the hash of its
 * children's hashes; the hash of a page is the hash of its bytes.
 *
 * The tree keeps the lowest level that fits the budget, and all levels above it, in memory, each hash from its first
 * use on. It computes the levels below by reading the pages again. So the budget bounds the memory, not the size of the
 * database.
 */
export class HashTree {
  readonly pageCount: PageCount;
  readonly hashBytes: number;
  /** The lowest level kept in memory. */
  readonly keptLevel: number;
  readonly #hasher: PageHasher;
  #readPages: ReadPages;
  #presentCount: PageCount;
  /** By level, from `keptLevel` to the root. */
  readonly #levels: KeptLevel[] = [];

  constructor(options: HashTreeOptions) {
    this.pageCount = options.pageCount;
    this.#presentCount = options.presentCount ?? options.pageCount;
    this.#hasher = options.hasher;
    this.#readPages = options.readPages;
    this.hashBytes = options.hasher.hashBytes;
    const { knownHashes } = options;
    const budget = knownHashes === undefined ? (options.budgetBytes ?? DEFAULT_BUDGET_BYTES) : Infinity;
    let level = 0;
    while (this.nodeCount(level) * this.hashBytes > budget && this.nodeCount(level) > 1) level++;
    this.keptLevel = level;
    for (let nodes = this.nodeCount(level); ; nodes = this.nodeCount(++level)) {
      this.#levels[level] = { hashes: new Uint8Array(nodes * this.hashBytes), known: new Uint8Array(nodes) };
      if (nodes <= 1) break;
    }
    if (options.known !== undefined) this.#takeKnown(options.known);
    const pages = this.#levels[0];
    if (knownHashes === undefined || pages === undefined) return;
    pages.hashes.set(knownHashes.subarray(0, this.#presentCount * this.hashBytes));
    pages.known.fill(1, 0, this.#presentCount);
  }

  /**
   * A view of the hashes of all pages, one after another. Call `root` first; the tree must keep the hashes of all
   * pages.
   */
  pageHashes(): Uint8Array {
    const pages = this.#levels[0];
    if (pages === undefined) throw new Error('the hashes of pages are not kept');
    return pages.hashes;
  }

  /** The hashes of the lowest level that the tree keeps; undefined if `root` has not made all of them. */
  knownNodes(): KnownNodes | undefined {
    const { hashes, known } = this.#levels[this.keptLevel] as KeptLevel;
    if (known.includes(0)) return undefined;
    return { level: this.keptLevel, pageCount: this.pageCount, hashes };
  }

  /** The number of nodes of a level in the finished tree. */
  nodeCount(level: number): number {
    return Math.ceil(this.pageCount / TREE_FANOUT ** level);
  }

  /** True if no page of the node exists yet. */
  isAbsent(level: number, index: number): boolean {
    return index * TREE_FANOUT ** level >= this.#presentCount;
  }

  /** Keeps the hashes of consecutive pages whose bytes the caller has anyway, so that hashing need not read them again. */
  learn(first: PageNumber, bytes: Uint8Array): void {
    const pages = this.#levels[0];
    const from = first - 1;
    const to = from + bytes.length / this.#hasher.pageSize;
    if (pages === undefined || !pages.known.subarray(from, to).includes(0)) return;
    this.#hasher.hashPages(first, bytes, pages.hashes, from * this.hashBytes);
    pages.known.fill(1, from, to);
  }

  /**
   * Writes the hash of a node to `out` at `offset`, and hashes first what is not hashed yet. The node must not be
   * absent.
   */
  hashNode(level: number, index: number, out: Uint8Array, offset: number): void {
    const kept = this.#levels[level];
    if (kept === undefined) return this.#compute(level, index, out, offset);
    const start = index * this.hashBytes;
    if (kept.known[index] === 0) this.#keep(kept, level, index);
    for (let i = 0; i < this.hashBytes; i++) out[offset + i] = kept.hashes[start + i] as number;
  }

  /** The root hash. A database without pages has the hash of the empty string. */
  root(): Uint8Array {
    const root = new Uint8Array(this.hashBytes);
    if (this.pageCount === 0) this.#hasher.hash(new Uint8Array(0), root, 0);
    else this.hashNode(this.#levels.length - 1, 0, root, 0);
    return root;
  }

  /** The hash of these bytes as page `page`. */
  hashOf(page: PageNumber, bytes: Uint8Array): Uint8Array {
    const hash = new Uint8Array(this.hashBytes);
    this.#hasher.hashPage(page, bytes, hash, 0);
    return hash;
  }

  /** Records that a page now has this hash. */
  setPageHash(page: PageNumber, hash: Uint8Array): void {
    const pages = this.#levels[0];
    this.#forget(page);
    if (pages === undefined) return;
    pages.hashes.set(hash, (page - 1) * this.hashBytes);
    pages.known[page - 1] = 1;
  }

  /** From now on all pages exist, and `readPages` reads the pages that must be hashed again. */
  complete(readPages: ReadPages): void {
    // Nodes at the old end were hashed over fewer pages than they now have.
    if (this.#presentCount > 0 && this.#presentCount < this.pageCount) {
      const known = this.#levels[0]?.known[this.#presentCount - 1];
      this.#forget(pageNumber(this.#presentCount));
      // The page itself has not changed.
      if (known !== undefined) (this.#levels[0] as KeptLevel).known[this.#presentCount - 1] = known;
    }
    this.#presentCount = this.pageCount;
    this.#readPages = readPages;
  }

  #takeKnown({ level, pageCount, hashes, changed }: KnownNodes): void {
    const kept = this.#levels[level];
    if (kept === undefined || level !== this.keptLevel) return;
    // The last node is of use only if it covers the same pages.
    const pages = Math.min(pageCount, this.#presentCount) / TREE_FANOUT ** level;
    const nodes = pageCount === this.#presentCount ? Math.ceil(pages) : Math.floor(pages);
    // Takes the array itself if it can: another one may be 64 MB.
    if (hashes.length === kept.hashes.length) this.#levels[level] = { hashes, known: kept.known };
    else kept.hashes.set(hashes.subarray(0, nodes * this.hashBytes));
    kept.known.fill(1, 0, nodes);
    for (const page of changed ?? []) if (page <= this.#presentCount) this.#forget(pageNumber(page));
  }

  /** Marks the hashes of all kept nodes above this page as out of date. */
  #forget(page: PageNumber): void {
    for (let level = this.keptLevel; level < this.#levels.length; level++) {
      (this.#levels[level] as KeptLevel).known[Math.floor((page - 1) / TREE_FANOUT ** level)] = 0;
    }
  }

  #keep(kept: KeptLevel, level: number, index: number): void {
    this.#compute(level, index, kept.hashes, index * this.hashBytes);
    kept.known[index] = 1;
  }

  #compute(level: number, index: number, out: Uint8Array, offset: number): void {
    if (level === 0) return this.#hashPages(index, index + 1, out, offset);
    const first = index * TREE_FANOUT;
    const below = level - 1;
    const present = Math.ceil(this.#presentCount / TREE_FANOUT ** below);
    const end = Math.min(first + TREE_FANOUT, present);
    if (this.keptLevel === 0) this.#learnPages(level, index);
    const kept = this.#levels[below];
    if (kept !== undefined) {
      for (let child = first; child < end; child++)
        if (kept.known[child] === 0) this.#keep(kept, below, child);
      return this.#hasher.hash(
        kept.hashes.subarray(first * this.hashBytes, end * this.hashBytes),
        out,
        offset,
      );
    }
    const children = new Uint8Array((end - first) * this.hashBytes);
    if (below === 0) {
      this.#hashPages(first, end, children, 0);
    } else {
      for (let child = first; child < end; child++) {
        this.hashNode(below, child, children, (child - first) * this.hashBytes);
      }
    }
    this.#hasher.hash(children, out, offset);
  }

  /** Hashes the pages of a node that have no hash yet, in runs of neighbours. */
  #learnPages(level: number, index: number): void {
    const { hashes, known } = this.#levels[0] as KeptLevel;
    const end = Math.min((index + 1) * TREE_FANOUT ** level, this.#presentCount);
    let from = index * TREE_FANOUT ** level;
    while (from < end) {
      while (from < end && known[from] === 1) from++;
      let to = from;
      while (to < end && known[to] === 0) to++;
      if (to > from) this.#hashPages(from, to, hashes, from * this.hashBytes);
      known.fill(1, from, to);
      from = to;
    }
  }

  /** Writes the hashes of pages `first + 1` to `end`, one after another, to `out` at `offset`. */
  #hashPages(first: number, end: number, out: Uint8Array, offset: number): void {
    const { pageSize } = this.#hasher;
    const step = Math.max(1, Math.floor(RUN_BYTES / pageSize));
    for (let from = first; from < end; from += step) {
      const count = Math.min(step, end - from);
      const page = pageNumber(from + 1);
      const run = this.#readPages(page, count);
      this.#hasher.hashPages(page, run, out, offset + (from - first) * this.hashBytes);
    }
  }
}
