import type { ObjectIndex } from './object-index.ts';
import type { Frame } from '../packs/frame.ts';
import { NO_OBJECT } from './trust.ts';

/** Reads the frames of a store. */
export interface FrameReader {
  readonly index: ObjectIndex;
  /** undefined if it cannot be read. */
  readFrameOrNothing(number: number): Frame | undefined;
  /** Finds out what is wrong with an object that cannot be read. */
  lookAt(object: number): void;
}

const SOUND = 1;
const UNSOUND = 2;

/**
 * Decides which copies of objects are sound (trust.ts): those that count, and are whole or have a sound base of less
 * depth. Decides on demand, and reads each frame of deltas once, unless it goes by the indexes alone. An object on its
 * way to a pack is sound.
 */
export class Soundness {
  readonly #reader: FrameReader;
  readonly #index: ObjectIndex;
  readonly #counts: (object: number) => boolean;
  readonly #readsFrames: boolean;
  /** By object number; 0 if not judged yet. */
  #verdicts: Uint8Array = new Uint8Array(0);
  /** For each delta an object with its base's id: any until the delta is judged, then the copy that a reader uses. */
  #bases: Uint32Array = new Uint32Array(0);
  readonly #framesRead = new Set<number>();

  /**
   * @param counts - decides by number whether to consider a copy; its answers must not change.
   * @param readsFrames - false to take each base from the index, and so to find no damage in frames.
   */
  constructor(reader: FrameReader, counts: (object: number) => boolean, readsFrames: boolean = true) {
    this.#reader = reader;
    this.#readsFrames = readsFrames;
    this.#index = reader.index;
    this.#counts = counts;
  }

  /** Throws SqlsyncError STORE_UNAVAILABLE. */
  isSound(object: number): boolean {
    if (this.#index.frameOf(object) === undefined) return true;
    if (object >= this.#verdicts.length) this.#grow();
    if (this.#verdicts[object] === 0) this.#verdicts[object] = this.#judge(object) ? SOUND : UNSOUND;
    return this.#verdicts[object] === SOUND;
  }

  /** Records an object that was just assembled from copies that count. */
  learnSound(object: number): void {
    if (object >= this.#verdicts.length) this.#grow();
    this.#verdicts[object] = SOUND;
  }

  /** True if any copy of an object is sound. `id` may be the beginning of an id. */
  has(id: Uint8Array): boolean {
    return this.#index.copies(id).some((copy) => this.isSound(copy));
  }

  /** The base of a sound delta, as a reader uses it; `NO_OBJECT` for whole and for unsound objects. */
  baseOf(object: number): number {
    return this.isSound(object) ? (this.#bases[object] ?? NO_OBJECT) : NO_OBJECT;
  }

  #judge(object: number): boolean {
    if (!this.#counts(object)) return false;
    const depth = this.#index.depthOf(object);
    if (depth === 0) return true;
    this.#readBases(this.#index.frameNumberOf(object));
    const named = this.#bases[object] as number;
    if (named === NO_OBJECT) return false;
    const base = this.#index.copies(this.#index.idOf(named), depth).find((copy) => this.isSound(copy));
    if (base === undefined) return false;
    this.#bases[object] = base;
    return true;
  }

  #readBases(number: number): void {
    if (this.#framesRead.has(number)) return;
    this.#framesRead.add(number);
    const index = this.#index;
    const { firstObject, objectCount } = index.frames[number] as { firstObject: number; objectCount: number };
    const frame = this.#readsFrames ? this.#reader.readFrameOrNothing(number) : undefined;
    if (this.#readsFrames && frame === undefined) this.#reader.lookAt(firstObject);
    for (let i = 0; i < objectCount; i++) {
      const base = this.#readsFrames ? frame?.baseOf(i) : index.baseOf(firstObject + i);
      if (base !== undefined) this.#bases[firstObject + i] = index.copies(base)[0] ?? NO_OBJECT;
    }
  }

  #grow(): void {
    const { objectCount } = this.#index;
    const verdicts = new Uint8Array(objectCount);
    verdicts.set(this.#verdicts);
    const bases = new Uint32Array(objectCount).fill(NO_OBJECT);
    bases.set(this.#bases);
    this.#verdicts = verdicts;
    this.#bases = bases;
  }
}
