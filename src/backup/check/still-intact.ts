import { Damage } from './damage.ts';
import type { StoreContents } from '../files/store-files.ts';
import type { StoreSnapshot } from '../types.ts';

/**
 * The snapshots that need nothing of the files which `contents` was found to lack so far: what is missing, cut, or was
 * read and is not what it should be. Damage that nobody has read yet is not known.
 */
export function stillIntact({ reader }: StoreContents, snapshots: readonly StoreSnapshot[]): StoreSnapshot[] {
  for (;;) {
    const known = reader.found.size;
    const damage = Damage.ofPacks(reader, (pack) => reader.found.has(`packs/${pack}`));
    const intact = snapshots.filter((snapshot) => damage.lostPages(snapshot) === 0);
    // Reading the trees may have found more.
    if (reader.found.size === known) return intact;
  }
}
