import { Damage } from './damage.ts';
import { StoreDamage } from './store-error.ts';
import type { StoreContents } from './store-files.ts';
import type { StoreSnapshot } from './types.ts';

/** The snapshots that do not need the file of which an error says that it is damaged, nor any that is missing. */
export function stillIntact(
  { reader }: StoreContents,
  snapshots: readonly StoreSnapshot[],
  failure: unknown,
): StoreSnapshot[] {
  const damage = Damage.ofPacks(
    reader,
    (pack) => failure instanceof StoreDamage && failure.file === `packs/${pack}`,
  );
  return snapshots.filter((snapshot) => damage.lostPages(snapshot) === 0);
}
