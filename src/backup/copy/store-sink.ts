import type { PageDelta, PageSink, PageSource, SinkTarget } from '../../pages/page-source.ts';
import type { PageNumber } from '../../pages/page-types.ts';
import { lockBytePage } from '../../pages/page-types.ts';
import type { IndexedPack } from '../packs/index-file.ts';
import { idOf, sameBytes } from '../packs/object-id.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import type { PackWriter, Written } from '../objects/pack-writer.ts';
import type { SnapshotSource } from '../snapshots/snapshot-source.ts';
import { TreeWriter } from '../snapshots/tree-writer.ts';
import { blocksIn } from './block-deltas.ts';
import type { BlockDeltas } from './block-deltas.ts';

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
  /** True if everything that the parent relies on is known to be in trusted packs. */
  readonly isParentWhole: boolean;
  /** Makes deltas without old versions; undefined if these are read. */
  readonly blocks: BlockDeltas | undefined;
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
  /** Page 1, not all of whose bytes are hashed; undefined if it did not come. */
  readonly firstPage: Uint8Array | undefined;
}

/**
 * A store that takes a new snapshot. Keeps pages that it does not have yet, whole or as deltas against the parent's.
 */
export class StoreSink implements PageSink {
  readonly keepsFirstPage = true;
  readonly warnings: readonly string[] = [];
  readonly #options: StoreSinkOptions;
  readonly #tree: TreeWriter;
  #hashes: Uint8Array = new Uint8Array(0);
  #firstPage: Uint8Array | undefined;
  #pagesChanged = 0;
  #ended = false;

  constructor(options: StoreSinkOptions) {
    this.#options = options;
    const { target, reader, parent } = options;
    this.#tree = new TreeWriter(target.pageCount, parent?.tree, reader);
  }

  get old(): PageSource | undefined {
    return this.#options.parent;
  }

  get oldHashes(): Uint8Array | undefined {
    return this.#options.oldHashes;
  }

  /** True if no page that came differs from the parent's, and no page is more or less. */
  get isUnchanged(): boolean {
    const { parent, target } = this.#options;
    return parent?.pageCount === target.pageCount && this.#pagesChanged === 0;
  }

  /** The hashes of all pages, one after another, once they are known. */
  get hashes(): Uint8Array {
    return this.#hashes;
  }

  needsOld(page: PageNumber): boolean {
    const oldId = this.#tree.parentId(page);
    return oldId === undefined || this.#options.blocks?.knows(page, oldId) !== true;
  }

  write(page: PageNumber, bytes: Uint8Array, received?: PageDelta): void {
    const { reader, blocks, isParentWhole } = this.#options;
    const id = idOf(bytes);
    if (page === 1) this.#firstPage = bytes.slice();
    const delta = blocks?.deltaOf(page, id, bytes) ?? received;
    const oldId = this.#tree.parentId(page)?.slice();
    const isSame = oldId !== undefined && sameBytes(oldId, id);
    // The first page may come twice.
    if (this.#tree.setPage(page, id)) this.#pagesChanged++;
    if (reader.isStored(id, isSame)) return;
    const object =
      delta === undefined || oldId === undefined ? undefined : reader.usable(oldId, isParentWhole);
    if (delta === undefined || oldId === undefined || object === undefined) return this.#addWhole(id, bytes);
    const depth = reader.index.depthOf(object) + 1;
    if (depth <= MAX_PAGE_DEPTH) this.#addDelta(id, bytes, delta, oldId, depth);
    else if (reader.reliesOnParent) this.#addWhole(id, bytes);
    else this.#addAgainstRoot(id, bytes, delta, oldId);
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
    const { reader, writer, target, blocks, beforeIndex } = this.#options;
    blocks?.check(reader, target.pageSize);
    const root = this.#tree.write(writer);
    const written = await writer.finish((packs) => beforeIndex(root, packs));
    const pagesChanged = this.#pagesChanged;
    await this.#options.finish({
      root,
      written,
      pagesChanged,
      hashes: this.#hashes,
      firstPage: this.#firstPage,
    });
    this.#ended = true;
    blocks?.close(true);
  }

  async abort(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#options.blocks?.close(false);
    await this.#options.writer.abort();
  }

  #addWhole(id: Uint8Array, bytes: Uint8Array): void {
    const { writer, target } = this.#options;
    writer.addPage(id, { page: { bitmap: undefined, data: bytes }, base: undefined }, 0, target.pageSize);
  }

  #addDelta(id: Uint8Array, bytes: Uint8Array, delta: PageDelta, base: Uint8Array, depth: number): void {
    const { writer, target, blocks } = this.#options;
    if (delta.data.length > bytes.length * WHOLE_PAGE_RATIO) return this.#addWhole(id, bytes);
    blocks?.sample(id, base, delta);
    writer.addPage(id, { page: delta, base }, depth, target.pageSize);
  }

  /** The chain has become long: from now on deltas are taken against the whole page at its end. */
  #addAgainstRoot(id: Uint8Array, bytes: Uint8Array, { bitmap, group }: PageDelta, oldId: Uint8Array): void {
    const { reader } = this.#options;
    const changed = bitmap.slice();
    const root = reader.rootOf(oldId, changed);
    const object = reader.usable(root);
    // The only usable copy may be a deep one, even if a whole copy exists elsewhere.
    if (object === undefined || reader.index.depthOf(object) >= MAX_PAGE_DEPTH)
      return this.#addWhole(id, bytes);
    const delta = { bitmap: changed, data: blocksIn(bytes, changed), group };
    this.#addDelta(id, bytes, delta, root, reader.index.depthOf(object) + 1);
  }
}
