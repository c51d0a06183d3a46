import { randomInt } from 'node:crypto';
import type { StoredFile } from '../backends/backend.ts';
import type { DataSubset } from '../types.ts';

/**
 * The packs of a part of the data, by name; all if no part is named. A random part takes packs until they have the
 * size, at least one.
 */
export function choosePacks(
  packs: readonly Pick<StoredFile, 'name' | 'bytes'>[],
  subset: DataSubset | undefined,
): string[] {
  if (subset === undefined) return packs.map(({ name }) => name);
  if ('n' in subset) return packs.filter((_, i) => i % subset.m === subset.n - 1).map(({ name }) => name);
  const total = packs.reduce((sum, { bytes }) => sum + bytes, 0);
  const wanted = 'percent' in subset ? (total * subset.percent) / 100 : subset.bytes;
  const left = [...packs];
  const chosen: string[] = [];
  for (let bytes = 0; left.length > 0 && bytes < wanted;) {
    const [pack] = left.splice(randomInt(left.length), 1) as [Pick<StoredFile, 'name' | 'bytes'>];
    chosen.push(pack.name);
    bytes += pack.bytes;
  }
  return chosen;
}
