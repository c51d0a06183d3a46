import { Damage } from '../check/damage.ts';
import { forgetSnapshots, noteForgotten } from '../prune/forget.ts';
import { isForgotten } from '../files/forgotten-notes.ts';
import type { LostSnapshot } from '../types.ts';
import { throwIfAborted } from '../store-error.ts';
import { loadContents, loadSnapshots, namesIn } from '../files/store-files.ts';
import type { StoreAccess } from '../files/store-files.ts';
import type { StoreCallOptions } from '../types.ts';

/**
 * The snapshots that cannot be restored completely, judging by records, indexes and lengths of packs; those whose
 * records cannot be read; and those that another names as its parent, that are gone, and that no one forgot. Throws
 * SqlsyncError STORE_UNAVAILABLE, INTERRUPTED.
 *
 * @param unnoted - ids of snapshots that are gone, and whose notes say nothing.
 */
export async function findLost(
  access: StoreAccess,
  options: StoreCallOptions,
  unnoted: readonly string[] = [],
): Promise<LostSnapshot[]> {
  const lost: LostSnapshot[] = [];
  const unreadable = (id: string): LostSnapshot => ({ id, snapshot: undefined, pagesLost: undefined });
  const snapshots = await loadSnapshots(access, (file) =>
    lost.push(unreadable(file.slice('snapshots/'.length))),
  );
  const { reader } = await loadContents(access, () => {});
  const damage = Damage.ofPacks(reader);
  // Counts pages: the trees share most nodes, so the first takes longer than all others.
  const total = snapshots.reduce((sum, { pageCount }) => sum + pageCount, 0);
  let done = 0;
  for (const snapshot of snapshots) {
    throwIfAborted(options.signal);
    const before = done;
    options.onProgress?.({ phase: 'read', done, total });
    const pagesLost = damage.lostPages(snapshot, (pages) =>
      options.onProgress?.({ phase: 'read', done: before + pages, total }),
    );
    done += snapshot.pageCount;
    if (pagesLost > 0) lost.push({ id: snapshot.id, snapshot, pagesLost });
  }
  // In this order: a forget puts its note before it deletes.
  const there = await namesIn(access, 'snapshots');
  const forgotten = await namesIn(access, 'forgotten');
  const gone = new Set([...snapshots.map(({ parent }) => parent), ...unnoted]);
  for (const id of gone) {
    if (id === undefined || there.has(id)) continue;
    if (!forgotten.has(id) || !(await isForgotten(access, id))) lost.push(unreadable(id));
  }
  return lost;
}

/** Forgets the lost snapshots, so that no command asks for them any more; returns their ids. */
export async function forgetLost(access: StoreAccess, lost: readonly LostSnapshot[]): Promise<string[]> {
  const ids = lost.map(({ id }) => id);
  const there = new Set(await forgetSnapshots(access, ids));
  for (const id of ids) if (!there.has(id)) await noteForgotten(access, id);
  return ids;
}
