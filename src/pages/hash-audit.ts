import { TREE_FANOUT } from '../../protocol/limits.ts';
import type { KnownNodes } from './hash-tree.ts';
import type { PageHasher } from './hash.ts';
import type { PageNumber } from './page-types.ts';

/** Looks at pages that are read anyway, and finds those that changed although they are known not to have changed. */
export class HashAudit {
  /** The first page of each node that changed. */
  readonly wrong: Set<number> = new Set<number>();
  readonly #known: KnownNodes;
  readonly #hasher: PageHasher;
  readonly #changed: ReadonlySet<number>;
  readonly #pagesPerNode: number;

  /** @param hasher Of the key of `known`. */
  constructor(known: KnownNodes, hasher: PageHasher) {
    this.#known = known;
    this.#hasher = hasher;
    this.#pagesPerNode = TREE_FANOUT ** known.level;
    this.#changed = new Set(known.changed?.map((page) => this.#nodeOf(page)));
  }

  /** Looks at consecutive pages from `first` on, in which whole nodes follow each other. */
  check(first: PageNumber, bytes: Uint8Array): void {
    const { pageSize, hashBytes } = this.#hasher;
    // A node of a higher level is larger than a read; only databases of more than 512 GB have such nodes.
    if (this.#known.level > 1) return;
    const pages = new Uint8Array((bytes.length / pageSize) * hashBytes);
    this.#hasher.hashPages(first, bytes, pages, 0);
    const last = Math.min(first - 1 + bytes.length / pageSize, this.#known.pageCount);
    const step = this.#pagesPerNode;
    for (let page = Math.ceil((first - 1) / step) * step; page + step <= last; page += step) {
      const node = page / step;
      const at = (page - first + 1) * hashBytes;
      if (!this.#changed.has(node) && !this.#isSame(node, pages.subarray(at, at + step * hashBytes)))
        this.wrong.add(page + 1);
    }
  }

  #isSame(node: number, pages: Uint8Array): boolean {
    const { hashBytes } = this.#hasher;
    let hash = pages;
    if (this.#known.level > 0) {
      hash = new Uint8Array(hashBytes);
      this.#hasher.hash(pages, hash, 0);
    }
    const known = this.#known.hashes.subarray(node * hashBytes, (node + 1) * hashBytes);
    return Buffer.compare(hash, known) === 0;
  }

  #nodeOf(page: number): number {
    return Math.floor((page - 1) / this.#pagesPerNode);
  }
}
