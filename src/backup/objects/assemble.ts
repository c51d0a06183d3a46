import type { BatchPage } from '../../../protocol/page-batch.ts';
import { applyDelta } from '../../pages/delta.ts';
import type { NodeObject } from '../packs/node-frame.ts';
import { encodeNode, nodeIds } from '../packs/node.ts';
import { ID_BYTES } from '../packs/object-id.ts';

/** A page of `pageSize` bytes in new memory: whole, or the base's with other blocks. Accepts a base of any length. */
export function assemblePage(page: BatchPage, base: Uint8Array, pageSize: number): Uint8Array {
  const bytes = new Uint8Array(pageSize);
  bytes.set(page.bitmap === undefined ? page.data : base.subarray(0, pageSize));
  if (page.bitmap !== undefined) applyDelta(bytes, page.bitmap, page.data);
  return bytes;
}

/** The bytes of a node in new memory: whole, or the base's with other children. Accepts any bytes as a base. */
export function assembleNode({ level, childCount, ids, delta }: NodeObject, base: Uint8Array): Uint8Array {
  if (delta === undefined) return encodeNode(level, ids);
  const children = new Uint8Array(childCount * ID_BYTES);
  children.set(nodeIds(base).subarray(0, children.length));
  let from = 0;
  for (let child = 0; child < childCount; child++) {
    if (((delta.bitmap[child >> 3] as number) & (1 << (child & 7))) === 0) continue;
    children.set(ids.subarray(from, from + ID_BYTES), child * ID_BYTES);
    from += ID_BYTES;
  }
  return encodeNode(level, children);
}
