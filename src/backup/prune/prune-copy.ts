import { PackWriter } from '../objects/pack-writer.ts';
import type { PrunePlan } from './prune-plan.ts';
import { throwIfAborted } from '../store-error.ts';
import type { StoreAccess, StoreContents } from '../files/store-files.ts';
import type { PruneOptions } from '../types.ts';

/**
 * Copies needed objects, in the form that they have, out of packs that are or will be marked. Checks each object first:
 * a wrong one in a new pack could no longer be detected by the name of its pack, and so never be repaired. Throws
 * SqlsyncError STORE_*.
 */
export async function copyNeeded(
  access: StoreAccess,
  { index, reader }: StoreContents,
  { toCopy, needed }: PrunePlan,
  options: PruneOptions,
): Promise<void> {
  const writer = new PackWriter(access, index);
  try {
    for (const [done, pack] of toCopy.entries()) {
      options.onProgress?.({ phase: 'write', done, total: toCopy.length });
      for (let frame = pack.firstFrame; frame < pack.firstFrame + pack.frameCount; frame++) {
        throwIfAborted(options.signal);
        copyFrame(writer, { index, reader }, frame, needed);
        await writer.ready();
      }
    }
    await writer.finish();
  } catch (error) {
    await writer.abortAfter(error);
    throw error;
  }
}

function copyFrame(
  writer: PackWriter,
  { index, reader }: Pick<StoreContents, 'index' | 'reader'>,
  number: number,
  needed: Uint8Array,
): void {
  const { firstObject, objectCount } = index.frames[number] as { firstObject: number; objectCount: number };
  if (needed.subarray(firstObject, firstObject + objectCount).indexOf(1) === -1) return;
  const frame = reader.readFrame(number);
  const page = new Uint8Array(frame.kind === 'pages' ? frame.pageSize : 0);
  for (let i = 0; i < objectCount; i++) {
    const object = firstObject + i;
    if (needed[object] !== 1) continue;
    reader.checkObject(object, () => page);
    const id = index.idOf(object).slice();
    const depth = index.depthOf(object);
    if (frame.kind === 'pages') writer.addPage(id, frame.object(i), depth, frame.pageSize);
    else writer.addNode(id, frame.object(i), depth);
  }
}
