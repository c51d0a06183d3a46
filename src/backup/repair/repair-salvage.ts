import { nodeIds, nodeLevel } from '../packs/node.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import { FRAME_KINDS } from '../packs/frame.ts';
import type { Frame } from '../packs/frame.ts';
import type { NodeObject } from '../packs/node-frame.ts';
import { ID_BYTES } from '../packs/object-id.ts';
import type { PageObject } from '../packs/page-frame.ts';
import type { PackWriter } from '../objects/pack-writer.ts';
import { NO_DEPTH } from './repair-scan.ts';
import { Soundness } from '../objects/soundness.ts';
import { throwIfAborted } from '../store-error.ts';
import type { StoreCallOptions } from '../types.ts';

/** The decisions of a repair; the answers must not change. */
export interface SalvagePlan {
  /** True if a pack stays. */
  readonly survives: (pack: string) => boolean;
  /** True if an object in a pack is worth writing again. */
  readonly isWanted: (id: Uint8Array, pack: string) => boolean;
}

/**
 * Saves what would go with abandoned packs: every object that can still be read and that exists nowhere else. Writes
 * deltas as they are if their bases are safe, otherwise whole. Also writes whole those deltas in remaining packs whose
 * base is damaged only in blocks that they replace. Bases come before the objects made of them.
 */
export class Salvage {
  /** Objects that were written again. */
  saved = 0;
  readonly #reader: ObjectReader;
  readonly #plan: SalvagePlan;
  readonly #writer: PackWriter;
  /** By object number: the depth of its copy; `NO_DEPTH` if there will be none. */
  readonly #depths: Uint8Array;

  constructor(reader: ObjectReader, plan: SalvagePlan, writer: PackWriter) {
    const { index } = reader;
    this.#reader = reader;
    this.#plan = plan;
    this.#writer = writer;
    this.#depths = new Uint8Array(index.objectCount).fill(NO_DEPTH);
    const soundness = new Soundness(reader, (object) => plan.survives(index.packOf(object)?.id ?? ''));
    for (let object = 0; object < this.#depths.length; object++)
      if (soundness.isSound(object)) this.#depths[object] = index.depthOf(object);
  }

  /** Throws SqlsyncError STORE_UNAVAILABLE, INTERRUPTED. */
  async run({ signal, onProgress }: StoreCallOptions): Promise<void> {
    const { index } = this.#reader;
    const unsafe = [...index.frames.entries()].filter(
      ([, { pack, firstObject, objectCount }]) =>
        pack.present && this.#depths.subarray(firstObject, firstObject + objectCount).includes(NO_DEPTH),
    );
    // A cut pack has frames before the cut; a missing one has none to read.
    const cut = [...index.frames.entries()].filter(([, { pack }]) => !pack.present);
    const frames = [...unsafe, ...cut];
    const deepest = this.#deepest();
    for (let depth = 0; depth <= deepest && frames.length > 0; depth++) {
      onProgress?.({ phase: 'read', done: depth, total: deepest + 1 });
      for (const [number] of frames) {
        throwIfAborted(signal);
        this.#saveFrame(number, depth);
        await this.#writer.ready();
      }
    }
  }

  #deepest(): number {
    let deepest = 0;
    for (let object = 0; object < this.#depths.length; object++) {
      const depth = this.#reader.index.depthOf(object);
      if (depth !== NO_DEPTH && depth > deepest) deepest = depth;
    }
    return deepest;
  }

  /** Saves the objects of the frame that have this depth. */
  #saveFrame(number: number, depth: number): void {
    const { index } = this.#reader;
    const place = index.frames[number] as { firstObject: number; objectCount: number };
    const open: number[] = [];
    for (let i = 0; i < place.objectCount; i++) {
      const object = place.firstObject + i;
      if (this.#depths[object] === NO_DEPTH && index.depthOf(object) === depth) open.push(i);
    }
    if (open.length === 0) return;
    const frame = this.#reader.readFrameOrNothing(number);
    if (frame === undefined) return;
    for (const i of open) this.#saveObject(frame, i, place.firstObject + i);
  }

  #saveObject(frame: Frame, i: number, object: number): void {
    const { index } = this.#reader;
    const pack = index.packOf(object)?.id ?? '';
    const stays = this.#plan.survives(pack);
    const id = index.idOf(object).slice();
    const depth = index.depthOf(object);
    if (this.#isSafe(id) || (!stays && !this.#plan.isWanted(id, pack))) return;
    const base = frame.baseOf(i);
    const isBaseSafe = base === undefined || this.#isSafe(base, depth);
    if (stays && isBaseSafe) {
      this.#depths[object] = depth;
      return;
    }
    const whole = this.#wholeOf(object);
    if (whole === undefined) return;
    this.#add(id, isBaseSafe ? frame.object(i) : whole, isBaseSafe ? depth : 0, frame);
    this.#depths[object] = isBaseSafe ? depth : 0;
  }

  #add(id: Uint8Array, object: PageObject | NodeObject, depth: number, frame: Frame): void {
    this.saved++;
    if ('page' in object)
      this.#writer.addPage(id, object, depth, frame.kind === 'pages' ? frame.pageSize : 0);
    else this.#writer.addNode(id, object, depth);
  }

  /** True if a copy of less depth than `below` will exist. */
  #isSafe(id: Uint8Array, below = NO_DEPTH): boolean {
    return this.#reader.index.copies(id).some((copy) => (this.#depths[copy] as number) < below);
  }

  /** undefined if it cannot be assembled, or does not match its id. */
  #wholeOf(object: number): PageObject | NodeObject | undefined {
    const bytes = this.#reader.readCopy(object);
    if (bytes === undefined) return undefined;
    if (this.#reader.index.frameOf(object)?.kind === FRAME_KINDS.pages)
      return { page: { bitmap: undefined, data: bytes }, base: undefined };
    const ids = nodeIds(bytes);
    return { level: nodeLevel(bytes), childCount: ids.length / ID_BYTES, ids, delta: undefined };
  }
}
