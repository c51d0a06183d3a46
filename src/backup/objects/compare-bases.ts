import type { ObjectReader } from './object-reader.ts';
import type { KnownPack } from './trust.ts';

/**
 * Reads the frames of a pack that hold deltas, and compares the bases in them with those in its index. Throws
 * SqlsyncError STORE_UNAVAILABLE.
 *
 * @returns `unreadable` if a frame could not be compared, and the others have the same bases.
 */
export function compareBases(reader: ObjectReader, pack: KnownPack): 'same' | 'other' | 'unreadable' {
  const { index } = reader;
  let isReadable = pack.present;
  for (let number = pack.firstFrame; pack.present && number < pack.firstFrame + pack.frameCount; number++) {
    const { firstObject, objectCount } = index.frames[number] as { firstObject: number; objectCount: number };
    const objects = Array.from({ length: objectCount }, (_, i) => firstObject + i);
    if (objects.every((object) => index.depthOf(object) === 0)) continue;
    if (reader.readFrameOrNothing(number) === undefined) isReadable = false;
  }
  if (reader.misindexed.has(pack.id)) return 'other';
  return isReadable ? 'same' : 'unreadable';
}
