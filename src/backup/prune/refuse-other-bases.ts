import { createHash } from 'node:crypto';
import type { StoreAccess } from '../files/store-files.ts';
import { compareBases } from '../objects/compare-bases.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import type { KnownPack } from '../objects/trust.ts';
import { damaged, throwIfAborted } from '../store-error.ts';
import type { StoreCallOptions } from '../types.ts';
import type { PrunePlan } from './prune-plan.ts';

/**
 * A plan goes by the bases that indexes name. If one of them were wrong, the plan could doom the pack of the true base. So
 * before a prune marks or deletes a pack with objects, it compares the bases of all deltas that stay. Where this host
 * keeps copies of a store's files, it notes each pack that it compared, and compares it once.
 *
 * Throws SqlsyncError STORE_DAMAGED for another base, STORE_UNAVAILABLE, INTERRUPTED.
 */
export function refuseOtherBases(
  { kept }: StoreAccess,
  reader: ObjectReader,
  { due, atOnce, toMark }: PrunePlan,
  { signal, onProgress }: StoreCallOptions,
): void {
  const { packs } = reader.index;
  if (![...due, ...atOnce, ...toMark].some((id) => (packs.get(id)?.objectCount ?? 0) > 0)) return;
  const staying = [...packs.values()].filter(({ id }) => !due.has(id) && !atOnce.has(id));
  for (const [done, pack] of staying.entries()) {
    throwIfAborted(signal);
    onProgress?.({ phase: 'read', done, total: staying.length });
    const note = noteOf(reader, pack);
    if (note === undefined || kept?.get(note) !== undefined) continue;
    const outcome = compareBases(reader, pack);
    if (outcome === 'other')
      throw damaged(`packs/${pack.id}`, 'has deltas on other bases than its index says');
    if (outcome === 'same') kept?.add(note, []);
  }
}

/** Names a pack with what its index says of it; undefined for one without deltas. */
function noteOf({ index }: ObjectReader, pack: KnownPack): string | undefined {
  const { ids, depths, bases } = index.describe(pack);
  if (bases.length === 0) return undefined;
  const digest = createHash('sha256').update(ids).update(depths).update(bases).digest('hex');
  return `bases/${pack.id}-${digest}`;
}
