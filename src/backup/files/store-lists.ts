import { SqlsyncError } from '../../errors.ts';
import { StoreDamage } from '../store-error.ts';
import type { StoreSnapshot } from '../types.ts';
import { loadContents, loadSnapshots, snapshotNames } from './store-files.ts';
import type { OnDamage, StoreAccess, StoreContents } from './store-files.ts';

/** The contents of a store when a reader loaded it. */
export interface StoreLists {
  readonly snapshots: readonly StoreSnapshot[];
  readonly contents: StoreContents;
}

export interface ListOptions {
  /** Snapshots that the reader needs; by default all that are listed. */
  readonly needs?: readonly Pick<StoreSnapshot, 'id'>[];
  /** Handle records, and indexes and marks, that cannot be read; by default their errors are thrown. */
  readonly onBadSnapshot?: OnDamage | undefined;
  readonly onBadContents?: OnDamage | undefined;
  /** Called before the reader begins again, with the reason. */
  readonly onAgain?: ((why: string) => void) | undefined;
  /** Turns damage into another error. */
  readonly explain?: (error: SqlsyncError, lists: StoreLists) => SqlsyncError;
}

/** How often a reader begins again. A grace period passes each time, unless the store has almost none. */
const MAX_ATTEMPTS = 4;

/**
 * Loads snapshots, then indexes, and runs `work` with them. A prune deletes only what no reader needs that began within
 * the grace period. A reader that was held up for longer, as on a suspended host, may find a file gone. That is no
 * damage: it loads the lists and begins again.
 *
 * Throws what `work` throws; SNAPSHOT_NOT_FOUND if a needed snapshot was forgotten meanwhile; STORE_PRUNED if prunes
 * keep overtaking it.
 */
export async function withLists<T>(
  access: StoreAccess,
  options: ListOptions,
  work: (lists: StoreLists) => Promise<T>,
): Promise<T> {
  const { needs = [], onBadSnapshot, onBadContents, onAgain, explain } = options;
  for (let attempt = 1; ; attempt++) {
    // In this order: the indexes name everything that these snapshots need.
    const snapshots = await loadSnapshots(access, onBadSnapshot);
    const contents = await loadContents(access, onBadContents);
    const lists = { snapshots, contents };
    try {
      return await work(lists);
    } catch (error) {
      if (!(error instanceof StoreDamage)) throw error;
      const there = await snapshotNames(access);
      const forgotten = needs.find(({ id }) => !there.has(id));
      if (forgotten !== undefined) throw forgottenMeanwhile(forgotten.id, error);
      const isGone = isGoneSince(contents, error);
      const isOutdated = isGone || snapshots.some(({ id }) => !there.has(id));
      if (isGone && attempt === MAX_ATTEMPTS) throw prunedMeanwhile(error);
      if (!isOutdated || attempt === MAX_ATTEMPTS) throw explain?.(error, lists) ?? error;
      onAgain?.(`${error.file} was deleted by a prune while it was needed; beginning again`);
    }
  }
}

/** True if a file is missing that was there when `contents` was loaded. */
export function isGoneSince({ index }: StoreContents, error: StoreDamage): boolean {
  if (error.code !== 'STORE_FILE_MISSING' || !error.file.startsWith('packs/')) return false;
  return index.packs.get(error.file.slice('packs/'.length))?.present === true;
}

/** The error for a reader that prunes kept overtaking. */
export function prunedMeanwhile(error: StoreDamage): SqlsyncError {
  return new SqlsyncError('STORE_PRUNED', `A prune deleted ${error.file} while it was being read`, {
    hint: 'Nothing is damaged: what is needed of it is in another file. Run sqlsync again. This run was held up for longer than the grace period of the store, or a prune ran with a shorter one.',
    cause: error,
  });
}

function forgottenMeanwhile(id: string, cause: StoreDamage): SqlsyncError {
  const text = `Snapshot ${id.slice(0, 8)} was forgotten while it was being read, and a prune deleted what only it needed`;
  return new SqlsyncError('SNAPSHOT_NOT_FOUND', text, {
    hint: 'Nothing is damaged. `sqlsync snapshots STORE` lists the snapshots.',
    cause,
  });
}
