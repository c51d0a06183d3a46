import type { KnownPack, ObjectIndex } from '../objects/object-index.ts';
import type { ObjectReader } from '../objects/object-reader.ts';

const NO_OBJECT = 0xffffffff;

/**
 * The objects of these packs, ordered by the frame with the whole object at the root of each, so that every such frame
 * is decompressed once, and not once for each backup that changed its pages. Takes 8 bytes per object of the store.
 */
export function orderByRoot(reader: ObjectReader, packs: readonly KnownPack[]): Uint32Array {
  const { index } = reader;
  const rootFrames = rootFramesOf(index, basesOf(reader));
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

/**
 * By object number: the base that a reader tries first; NO_OBJECT for an object that is whole, has no base, or cannot
 * be read.
 */
function basesOf(reader: ObjectReader): Uint32Array {
  const { index } = reader;
  const bases = new Uint32Array(index.objectCount).fill(NO_OBJECT);
  for (const [number, { firstObject, objectCount }] of index.frames.entries()) {
    let deltas = 0;
    for (let object = firstObject; object < firstObject + objectCount; object++)
      if (index.depthOf(object) > 0) deltas++;
    if (deltas === 0) continue;
    reader.forEachBase(number, (object, base) => {
      const best = index.bestCopy(base, index.depthOf(object));
      if (best !== -1) bases[object] = best;
    });
  }
  return bases;
}

/** The frames of the objects at the ends of the chains. Chains end, since each base is less deep. */
function rootFramesOf(index: ObjectIndex, bases: Uint32Array): Uint32Array {
  const rootFrames = new Uint32Array(bases.length);
  for (let object = 0; object < bases.length; object++) {
    let root = object;
    while (bases[root] !== NO_OBJECT) root = bases[root] as number;
    rootFrames[object] = index.frameNumberOf(root);
  }
  return rootFrames;
}
