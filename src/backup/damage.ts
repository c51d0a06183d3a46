import type { ObjectIndex } from './object-index.ts';
import type { ObjectReader } from './object-reader.ts';
import { SnapshotTree, walkTree } from './snapshot-tree.ts';
import type { StoreSnapshot } from './types.ts';

/**
 * What follows from objects that are lost: the deltas that need them, and the snapshots that need any of these. An object of which
 * another copy is good is not lost.
 */
export class Damage {
  readonly #reader: ObjectReader;
  readonly #index: ObjectIndex;
  /** By number of object: 1 for a copy that cannot be read. */
  readonly bad: Uint8Array;
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
   * `bad` has 1 for each copy that is known to be lost; it is changed, unless `isComplete`: then every copy was tried, and a delta
   * may be good although its base is not, in blocks that it replaces.
   */
  constructor(reader: ObjectReader, bad: Uint8Array, isComplete = false) {
    this.#reader = reader;
    this.#index = reader.index;
    this.bad = bad;
    this.#goodNodes = new Uint8Array(bad.length);
    if (!isComplete && bad.includes(1)) this.#spread();
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
        if (!this.#isGood(ids.subarray(at, at + 32))) lost++;
      },
      unreadable: (_, first, last) => (lost += last - first + 1),
    });
    return lost;
  }

  #isGood(id: Uint8Array, below = 256): boolean {
    const best = this.#index.bestCopy(id, below);
    if (best === -1) return false;
    return this.bad[best] === 0 || this.#index.copies(id, below).some((object) => this.bad[object] === 0);
  }

  /** Deltas of which every base is lost are lost too: from the least deep on. */
  #spread(): void {
    const index = this.#index;
    const deepest = index.maxDepth();
    for (let depth = 1; depth <= deepest; depth++) {
      for (const [number, { firstObject, objectCount }] of index.frames.entries()) {
        let hasSome = false;
        for (let object = firstObject; object < firstObject + objectCount && !hasSome; object++)
          hasSome = index.depthOf(object) === depth && this.bad[object] === 0;
        if (hasSome) this.#spreadTo(number, firstObject, objectCount, depth);
      }
    }
  }

  #spreadTo(number: number, firstObject: number, objectCount: number, depth: number): void {
    const frame = this.#reader.readFrameOrNothing(number);
    for (let i = 0; i < objectCount; i++) {
      const object = firstObject + i;
      if (this.#index.depthOf(object) !== depth) continue;
      const base = frame?.kind === 'pages' ? frame.objects[i]?.base : frame?.objects[i]?.delta?.base;
      if (base === undefined || !this.#isGood(base, depth)) this.bad[object] = 1;
    }
  }
}
