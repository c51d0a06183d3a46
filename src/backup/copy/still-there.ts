import { SqlsyncError } from '../../errors.ts';
import type { IndexedPack } from '../packs/index-file.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import { Soundness } from '../objects/soundness.ts';
import type { TreeShape } from '../snapshots/snapshot-tree.ts';
import { firstUnusable } from '../snapshots/usable-tree.ts';
import { lookForSnapshot } from '../files/recall.ts';
import { readConfig } from '../files/config.ts';
import { addPack, namesIn } from '../files/store-files.ts';
import type { StoreAccess, StoreContents } from '../files/store-files.ts';
import { forgetSnapshots, noteForgotten } from '../prune/forget.ts';

/** The part of the grace period after which a writer checks again that everything it relies on is still there. */
const SAFE_GRACE_RATIO = 0.5;

/**
 * What new snapshots rely on in a store: a prune may have taken it away since the writer loaded the contents. The writer
 * checks before its last index, and again after each record.
 */
export class StillThere {
  readonly #access: StoreAccess;
  readonly #contents: StoreContents;
  readonly #loadAgain: () => Promise<StoreContents>;
  /** When the writer last checked that everything the snapshots rely on is there. */
  #looked: Pick<StoreContents, 'loadedAtMs' | 'loadedTime'>;
  /** The only snapshot that the new one relies on, while `contents` may be of an earlier time. */
  #parent: string | undefined;
  #hasLookedAgain = false;

  /**
   * @param loadAgain - loads the contents again, as they are now.
   * @param parent - if `contents` are those that an earlier run left, the id of the snapshot that this run relies on: as
   * long as its record is there, so is all that it needs.
   */
  constructor(
    access: StoreAccess,
    contents: StoreContents,
    loadAgain: () => Promise<StoreContents>,
    parent?: string,
  ) {
    this.#parent = parent;
    this.#access = access;
    this.#contents = contents;
    this.#loadAgain = loadAgain;
    this.#looked = contents;
  }

  /**
   * Checks, before the new packs are indexed, that what the snapshots rely on is still there. Walks through their trees
   * if a pack is gone, which only a jumping clock can cause within the grace period, or if much of that period has
   * passed. Throws SqlsyncError STORE_PRUNED.
   */
  async beforeIndex(shapes: readonly TreeShape[], newPacks: readonly IndexedPack[]): Promise<void> {
    const isRecalled = this.#parent !== undefined;
    const isLate = this.#isLate();
    const isGone = isLate || (isRecalled ? await this.#isParentGone() : await this.#isPackGone());
    if (isGone) await this.#lookAgain(shapes, newPacks, isLate || isRecalled);
  }

  /**
   * Only the record protects what the snapshot relies on from a prune. If much of the grace period passed before the
   * record was there, as on a suspended host, or the parent is gone, or damage was given up meanwhile,
   * checks once more. Takes away a snapshot that has lost something, as `forget` does: another backup may have chosen it
   * as its parent. Throws SqlsyncError STORE_PRUNED.
   *
   * @param parent - the parent that the record names: a prune may have removed the note that it was forgotten.
   */
  async afterRecord(id: string, shape: TreeShape, parent: string | undefined): Promise<void> {
    if (!this.#isLate() && !(await this.#isParentGone()) && !(await this.#isAnotherEpoch())) return;
    try {
      await this.#lookAgain([shape], [], true);
    } catch (error) {
      if (error instanceof SqlsyncError && error.code === 'STORE_PRUNED')
        await forgetSnapshots(this.#access, [id]);
      throw error;
    }
    if (parent !== undefined && (await lookForSnapshot(this.#access, parent)) === 'gone')
      await noteForgotten(this.#access, parent);
  }

  /** True if the snapshots are not known to rely on `contents` any more, but on what is there now. */
  get hasLookedAgain(): boolean {
    return this.#hasLookedAgain;
  }

  /** True if half the grace period has passed since the last check. */
  #isLate(): boolean {
    const safeMs = this.#access.config.graceSeconds * 1000 * SAFE_GRACE_RATIO;
    const steadyMs = performance.now() - this.#looked.loadedAtMs;
    // The larger of the two: one clock stands still while the system is suspended, the other may be set.
    return Math.max(steadyMs, Math.abs(Date.now() - this.#looked.loadedTime.getTime())) >= safeMs;
  }

  async #lookAgain(
    shapes: readonly TreeShape[],
    newPacks: readonly IndexedPack[],
    isLate: boolean,
  ): Promise<void> {
    const now = await this.#loadAgain();
    this.#looked = now;
    this.#parent = undefined;
    this.#hasLookedAgain = true;
    for (const pack of newPacks) addPack(now, pack);
    const present = soundIfPresent(now.reader);
    for (const shape of shapes) {
      const lost = isLate
        ? firstUnusable(now.reader, shape)
        : firstUnusable(now.reader, shape, (id) => present.has(id));
      if (lost === undefined) continue;
      throw new SqlsyncError('STORE_PRUNED', `A prune took the object ${lost} away from this backup`, {
        hint: `Run sqlsync again: it writes what is missing. A backup should take less than half the grace period of ${this.#access.config.graceSeconds} s.`,
      });
    }
  }

  /** True if a snapshot that the new one relies on was forgotten. */
  async #isParentGone(): Promise<boolean> {
    return this.#parent !== undefined && (await lookForSnapshot(this.#access, this.#parent)) !== 'there';
  }

  /** True if a repair or prune gave something up since this run began: a base may be deeper than an earlier run found. */
  async #isAnotherEpoch(): Promise<boolean> {
    if (this.#parent === undefined) return false;
    const { backend, sealer, config } = this.#access;
    return (await readConfig(backend)).open(sealer).epoch !== config.epoch;
  }

  async #isPackGone(): Promise<boolean> {
    const there = await namesIn(this.#access, 'packs');
    return [...this.#contents.index.packs.values()].some(({ id, present }) => present && !there.has(id));
  }
}

/** Also counts objects in marked packs, which stay for the grace period. */
export function soundIfPresent(reader: ObjectReader): Soundness {
  return new Soundness(reader, (object) => reader.index.isPresent(object));
}
