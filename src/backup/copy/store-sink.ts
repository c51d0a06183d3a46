import { BLOCK_BYTES } from '../../../protocol/limits.ts';
import { bitmapBytes } from '../../../protocol/page-batch.ts';
import type { PageDelta, PageSink, PageSource, SinkTarget } from '../../pages/page-source.ts';
import type { PageNumber } from '../../pages/page-types.ts';
import { lockBytePage } from '../../pages/page-types.ts';
import type { IndexedPack } from '../packs/index-file.ts';
import { idOf, sameBytes } from '../packs/object-id.ts';
import type { RootPage } from '../objects/chain-reader.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import type { PackWriter, Written } from '../objects/pack-writer.ts';
import type { SnapshotSource } from '../snapshots/snapshot-source.ts';
import { TreeWriter } from '../snapshots/tree-writer.ts';

/** The most deltas on deltas for one page, which a reader has to assemble. */
export const MAX_PAGE_DEPTH = 8;

/** A page is written whole if more than this part differs from the base. */
const WHOLE_PAGE_RATIO = 0.75;

export interface StoreSinkOptions {
  readonly target: SinkTarget;
  readonly reader: ObjectReader;
  readonly writer: PackWriter;
  /** The snapshot to compare with, and the hashes of its pages if known. */
  readonly parent: SnapshotSource | undefined;
  readonly oldHashes: Uint8Array | undefined;
  /**
   * Called when all packs are durable, with those that no index names yet. If it throws, no index names them, and the
   * copy ends.
   */
  readonly beforeIndex: (root: string | undefined, packs: readonly IndexedPack[]) => Promise<void>;
  /** Called when all pages and nodes are durable and indexed: creates the snapshot. */
  readonly finish: (stored: StoredPages) => Promise<void>;
}

/** The stored pages of a snapshot. */
export interface StoredPages {
  /** undefined for a database without pages. */
  readonly root: string | undefined;
  readonly written: Written;
  readonly pagesChanged: number;
  /** The hashes of all pages, one after another. */
  readonly hashes: Uint8Array;
}

/**
 * A store that takes a new snapshot. Keeps pages that it does not have yet, whole or as deltas against the parent's.
 */
export class StoreSink implements PageSink {
  readonly keepsFirstPage = true;
  readonly warnings: readonly string[] = [];
  readonly #options: StoreSinkOptions;
  readonly #tree: TreeWriter;
  readonly #rootPage: Uint8Array;
  #hashes: Uint8Array = new Uint8Array(0);
  #pagesChanged = 0;
  #ended = false;

  constructor(options: StoreSinkOptions) {
    this.#options = options;
    const { target, reader, parent } = options;
    this.#tree = new TreeWriter(target.pageCount, parent?.tree, reader);
    this.#rootPage = new Uint8Array(target.pageSize);
  }

  get old(): PageSource | undefined {
    return this.#options.parent;
  }

  get oldHashes(): Uint8Array | undefined {
    return this.#options.oldHashes;
  }

  write(page: PageNumber, bytes: Uint8Array, delta?: PageDelta): void {
    const { reader } = this.#options;
    const id = idOf(bytes);
    const oldRoot = this.#options.parent?.takeRoot(page);
    const oldId = this.#tree.parentId(page)?.slice();
    if (oldId === undefined || !sameBytes(oldId, id)) this.#pagesChanged++;
    this.#tree.setPage(page, id);
    if (reader.usable(id) !== undefined) return;
    const object = delta === undefined || oldId === undefined ? undefined : reader.usable(oldId);
    if (delta === undefined || oldId === undefined || object === undefined) return this.#addWhole(id, bytes);
    const depth = reader.index.depthOf(object) + 1;
    if (depth <= MAX_PAGE_DEPTH) this.#addDelta(id, bytes, delta, oldId, depth);
    else this.#addAgainstRoot(id, bytes, delta.group, oldRoot ?? this.#rootOf(oldId));
  }

  async ready(): Promise<void> {
    await this.#options.writer.ready();
  }

  /** Every page was hashed when it came; only the lock-byte page never comes. */
  readNew(page: PageNumber): Uint8Array {
    const { pageSize } = this.#options.target;
    if (page !== lockBytePage(pageSize)) throw new Error(`page ${page} was not hashed when it came`);
    return new Uint8Array(pageSize);
  }

  takeHashes(hashes: Uint8Array): void {
    this.#hashes = hashes;
  }

  async commit(): Promise<void> {
    const { writer, beforeIndex } = this.#options;
    const root = this.#tree.write(writer);
    const written = await writer.finish((packs) => beforeIndex(root, packs));
    const pagesChanged = this.#pagesChanged;
    await this.#options.finish({ root, written, pagesChanged, hashes: this.#hashes });
    this.#ended = true;
  }

  async abort(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await this.#options.writer.abort();
  }

  #addWhole(id: Uint8Array, bytes: Uint8Array): void {
    const { writer, target } = this.#options;
    writer.addPage(id, { page: { bitmap: undefined, data: bytes }, base: undefined }, 0, target.pageSize);
  }

  #addDelta(id: Uint8Array, bytes: Uint8Array, delta: PageDelta, base: Uint8Array, depth: number): void {
    const { writer, target } = this.#options;
    if (delta.data.length > bytes.length * WHOLE_PAGE_RATIO) return this.#addWhole(id, bytes);
    writer.addPage(id, { page: delta, base }, depth, target.pageSize);
  }

  /** The chain has become long: from now on deltas are taken against the whole page at its end. */
  #addAgainstRoot(id: Uint8Array, bytes: Uint8Array, group: number, root: RootPage): void {
    const { reader } = this.#options;
    const { index } = reader;
    const object = reader.usable(root.id);
    // The only usable copy may be a deep one, even if a whole copy exists elsewhere.
    if (object === undefined || index.depthOf(object) >= MAX_PAGE_DEPTH) return this.#addWhole(id, bytes);
    const delta = { ...blocksThatDiffer(root.bytes, bytes), group };
    this.#addDelta(id, bytes, delta, root.id, index.depthOf(object) + 1);
  }

  #rootOf(id: Uint8Array): RootPage {
    return { id: this.#options.reader.rootOfPage(id, this.#rootPage), bytes: this.#rootPage };
  }
}

/** The blocks of `bytes` that differ from those of `base`. */
function blocksThatDiffer(base: Uint8Array, bytes: Uint8Array): { bitmap: Uint8Array; data: Uint8Array } {
  const bitmap = new Uint8Array(bitmapBytes(bytes.length));
  const blocks: Uint8Array[] = [];
  for (let block = 0; block * BLOCK_BYTES < bytes.length; block++) {
    const at = block * BLOCK_BYTES;
    if (sameBytes(base, bytes, BLOCK_BYTES, at, at)) continue;
    bitmap[block >> 3] = (bitmap[block >> 3] as number) | (1 << (block & 7));
    blocks.push(bytes.subarray(at, at + BLOCK_BYTES));
  }
  return { bitmap, data: new Uint8Array(Buffer.concat(blocks)) };
}
