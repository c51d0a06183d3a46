import { MAX_SENT_PAGES } from '../../../protocol/limits.ts';

/**
 * The block hashes of the pages that an origin agent sent last to a replica that follows it: the replica need not send
 * them again. Holds those of the last MAX_SENT_PAGES pages, 48 bytes for one of 4 KiB.
 */
export class SentVersions {
  readonly #hashes = new Map<number, Uint8Array>();

  /** The block hashes of the version of a page that was sent last; undefined if they are not known any more. */
  of(page: number): Uint8Array | undefined {
    return this.#hashes.get(page);
  }

  /** Takes the block hashes of a version that is being sent; copies them. */
  add(page: number, blockHashes: Uint8Array): void {
    addLast(this.#hashes, page, Uint8Array.from(blockHashes));
  }
}

/** The pages that a replica got from its origin and still has as they came: those that the other end remembers. */
export class ReceivedPages {
  readonly #pages = new Map<number, undefined>();

  has(page: number): boolean {
    return this.#pages.has(page);
  }

  add(page: number): void {
    addLast(this.#pages, page, undefined);
  }
}

/** Both ends forget the same pages, so that few are asked for in vain. */
function addLast<T>(pages: Map<number, T>, page: number, value: T): void {
  pages.delete(page);
  pages.set(page, value);
  if (pages.size <= MAX_SENT_PAGES) return;
  const [oldest] = pages.keys();
  pages.delete(oldest as number);
}
