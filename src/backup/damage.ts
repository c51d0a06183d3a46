import type { ObjectIndex } from './object-index.ts';
import type { ObjectReader } from './object-reader.ts';
import { SnapshotTree, walkTree } from './snapshot-tree.ts';
import { Soundness } from './soundness.ts';
import type { StoreSnapshot } from './types.ts';

/**
 * What follows from objects that are lost: the deltas that need them, and the snapshots that need any of these. An object of which
 * another copy is good is not lost.
 */
export class Damage {
  readonly #reader: ObjectReader;
  readonly #index: ObjectIndex;
  readonly #soundness: Pick<Soundness, 'has'>;
  /** Nodes of which everything below is good. */
  readonly #goodNodes: Uint8Array;

  /** What follows where packs are missing or cut, or are known to be damaged, by id. */
  static ofPacks(reader: ObjectReader, isDamaged: (pack: string) => boolean = () => false): Damage {
    const bad = new Uint8Array(reader.index.objectCount);
    for (const { id, present, firstObject, objectCount } of reader.index.packs.values()) {
      if (!present || isDamaged(id)) bad.fill(1, firstObject, firstObject + objectCount);
    }
    return new Damage(reader, bad);
  }

  /**
   * `bad` has 1 for each copy that is known to be lost. Where it `isComplete`, every copy was tried, and a delta may be good
   * although its base is not, in blocks that it replaces.
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

  /** Pages of a snapshot that cannot be read. */
  lostPages(snapshot: StoreSnapshot): number {
    let lost = 0;
    const path: { object: number; lostBefore: number }[] = [];
    walkTree(new SnapshotTree(this.#reader, snapshot), snapshot, {
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
      page: (ids, at) => {
        if (!this.#soundness.has(ids.subarray(at, at + 32))) lost++;
      },
      unreadable: (_, first, last) => (lost += last - first + 1),
    });
    return lost;
  }
}
