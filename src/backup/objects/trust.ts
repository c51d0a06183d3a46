import type { FramePlace } from '../packs/index-file.ts';

/**
 * How far the parts of a store can be trusted. The code uses these words for nothing else; each line implies the line
 * above it, except that a right copy need not be usable.
 *
 *     pack        present    its file exists, and has the length that its index says
 *                 trusted    no prune marked it, and no run found it damaged: something new may rely on it
 *     copy        sound      it is whole, or a delta on a sound copy, in packs that count: indexes and frames say so
 *                 usable     it is sound in trusted packs: something new may rely on it
 *                 right      its bytes were assembled, and match its id
 *     snapshot    intact     each of its objects has a sound copy
 *
 * A copy is an object in one pack; the same object may have copies in several packs. Only `right` compares content, so
 * a reader checks what it assembles, and a backup that meets damage no longer trusts the pack.
 *
 * `ObjectIndex` knows the packs, `Soundness` and `CopyJudge` judge the copies, `ObjectReader` asks them, and `Damage`
 * judges the snapshots.
 */
export interface PackTrust {
  readonly present: boolean;
  readonly trusted: boolean;
}

/** A pack that an index names. */
export interface KnownPack extends PackTrust {
  readonly id: string;
  /** See `PackSealer`. */
  readonly salt?: Uint8Array | undefined;
  readonly bytes: number;
  /** Number of its first frame; the others follow. */
  readonly firstFrame: number;
  readonly frameCount: number;
  /** Number of its first object; the others follow. */
  readonly firstObject: number;
  readonly objectCount: number;
}

export interface KnownFrame extends FramePlace {
  readonly pack: KnownPack;
  /** Number of its first object. */
  readonly firstObject: number;
}

/** Stands in the place of an object's number: none. */
export const NO_OBJECT = 0xffffffff;
