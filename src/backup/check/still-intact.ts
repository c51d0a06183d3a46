import { Damage } from './damage.ts';
import type { StoreContents } from '../files/store-files.ts';
import type { StoreSnapshot } from '../types.ts';

/**
 * The snapshots that need none of the files found faulty so far: missing, cut, or read and wrong. Damage that was not
 * read yet is unknown.
 */
export function stillIntact({ reader }: StoreContents, snapshots: readonly StoreSnapshot[]): StoreSnapshot[] {
  for (;;) {
    const known = reader.found.size;
    const damage = Damage.ofPacks(reader, (pack) => reader.found.has(`packs/${pack}`));
    const intact = snapshots.filter((snapshot) => damage.lostPages(snapshot) === 0);
    // Reading the trees may have found more damage.
    if (reader.found.size === known) return intact;
  }
}
