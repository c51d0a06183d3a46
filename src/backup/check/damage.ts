import { SqlsyncError } from '../../errors.ts';
import { nodeCountOf } from '../packs/node.ts';
import type { ObjectIndex } from '../objects/object-index.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import { SnapshotTree, walkTree } from '../snapshots/snapshot-tree.ts';
import { Soundness } from '../objects/soundness.ts';
import { StoreDamage } from '../store-error.ts';
import type { StoreSnapshot } from '../types.ts';

/** Pages between two progress reports. */
const PAGES_PER_NEWS = 1024;

/**
 * What follows from lost objects: the deltas that need them, and the snapshots that need any of these. An object with
 * another good copy is not lost.
 */
export class Damage {
  readonly #reader: ObjectReader;
  readonly #index: ObjectIndex;
  readonly #soundness: Pick<Soundness, 'has'>;
  /** Nodes below which everything is good. */
  readonly #goodNodes: Uint8Array;

  /** What follows from packs that are missing, cut, or known to be damaged, by id. */
  static ofPacks(reader: ObjectReader, isDamaged: (pack: string) => boolean = () => false): Damage {
    const bad = new Uint8Array(reader.index.objectCount);
    for (const { id, present, firstObject, objectCount } of reader.index.packs.values()) {
      if (!present || isDamaged(id)) bad.fill(1, firstObject, firstObject + objectCount);
    }
    return new Damage(reader, bad);
  }

  /**
   * `bad` has 1 for each copy known to be lost. With `isComplete` every copy was tried, and a delta may be good
   * although its base is not, if it replaces the damaged blocks.
   */
  constructor(reader: ObjectReader, bad: Uint8Array, isComplete = false) {
    this.#reader = reader;
    this.#index = reader.index;
    this.#goodNodes = new Uint8Array(bad.length);
    const isGood = (object: number): boolean => bad[object] === 0;
    this.#soundness = isComplete
      ? { has: (id) => this.#index.copies(id).some(isGood) }
      : new Soundness(reader, isGood);
  }

  /**
   * Why a snapshot's record contradicts the tree that it names; undefined if it does not, as far as the tree can be
   * read.
   */
  misfit(snapshot: StoreSnapshot): string | undefined {
    const { pageCount, pageSize } = snapshot;
    if (pageCount === 0) return undefined;
    try {
      const tree = new SnapshotTree(this.#reader, snapshot);
      // Along the right edge, which shows how many pages there are.
      for (let level = tree.rootLevel; level >= 0; level--)
        tree.childIds(level, nodeCountOf(pageCount, level) - 1);
      const size = this.#reader.pageSizeOf(tree.pageId(1));
      if (size === undefined || size === pageSize) return undefined;
      return `says that its pages have ${pageSize} bytes; they have ${size}`;
    } catch (error) {
      if (!(error instanceof SqlsyncError)) throw error;
      const isOfRecord = error instanceof StoreDamage && error.file === 'snapshots';
      return isOfRecord ? `says that it has ${pageCount} pages; its tree has another number` : undefined;
    }
  }

  /** The pages of a snapshot that cannot be read. `onPages` reports from time to time how many were checked. */
  lostPages(snapshot: StoreSnapshot, onPages?: (pages: number) => void): number {
    if (this.misfit(snapshot) !== undefined) return snapshot.pageCount;
    let lost = 0;
    let looked = 0;
    const path: { object: number; lostBefore: number }[] = [];
    walkTree(this.#reader, snapshot, {
      enterNode: (id) => {
        const object = this.#index.numberOf(id);
        if (object !== -1 && this.#goodNodes[object] === 1) return false;
        path.push({ object, lostBefore: lost });
        return true;
      },
      leaveNode: () => {
        const { object, lostBefore } = path.pop() as { object: number; lostBefore: number };
        if (lost === lostBefore && object !== -1) this.#goodNodes[object] = 1;
      },
      page: (id) => {
        if (++looked % PAGES_PER_NEWS === 0) onPages?.(looked);
        if (!this.#soundness.has(id)) lost++;
      },
      unreadable: (pages) => (lost += pages),
    });
    return lost;
  }
}
