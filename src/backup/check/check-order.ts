import type { ObjectIndex } from '../objects/object-index.ts';
import type { KnownPack } from '../objects/trust.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import { Soundness } from '../objects/soundness.ts';
import { NO_OBJECT } from '../objects/trust.ts';

/**
 * The objects of these packs, ordered by the frame with the whole object at the root of each, so that every such frame
 * is decompressed once, and not once for each backup that changed its pages. Takes 8 bytes per object of the store.
 */
export function orderByRoot(reader: ObjectReader, packs: readonly KnownPack[]): Uint32Array {
  const { index } = reader;
  const rootFrames = rootFramesOf(index, new Soundness(reader, (object) => index.isPresent(object)));
  // A counting sort: first where the objects of each frame begin, then each object to the next place of its frame.
  const nextPlaces = new Uint32Array(index.frames.length + 1);
  let total = 0;
  for (const { firstObject, objectCount } of packs) {
    total += objectCount;
    for (let object = firstObject; object < firstObject + objectCount; object++)
      (nextPlaces[(rootFrames[object] as number) + 1] as number)++;
  }
  for (let frame = 1; frame < nextPlaces.length; frame++)
    nextPlaces[frame] = (nextPlaces[frame] as number) + (nextPlaces[frame - 1] as number);
  const order = new Uint32Array(total);
  for (const { firstObject, objectCount } of packs) {
    for (let object = firstObject; object < firstObject + objectCount; object++) {
      const frame = rootFrames[object] as number;
      order[nextPlaces[frame] as number] = object;
      (nextPlaces[frame] as number)++;
    }
  }
  return order;
}

/** The frames of the objects at the ends of the chains. Chains end, since each base is less deep. */
function rootFramesOf(index: ObjectIndex, soundness: Soundness): Uint32Array {
  const rootFrames = new Uint32Array(index.objectCount);
  for (let object = 0; object < rootFrames.length; object++) {
    let root = object;
    for (let base = root; base !== NO_OBJECT; base = soundness.baseOf(root)) root = base;
    rootFrames[object] = index.frameNumberOf(root);
  }
  return rootFrames;
}
