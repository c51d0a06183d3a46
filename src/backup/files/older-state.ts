import type { Backend } from '../backends/backend.ts';
import type { SeenSnapshot, StoreMemory } from '../keys/known-stores.ts';
import type { Sealer } from '../sealed/sealer.ts';
import { isForgotten } from './forgotten-notes.ts';
import { isMissing } from '../store-error.ts';
import type { StoreSnapshot } from '../types.ts';

/** What looking for an older state needs of an open store. */
interface Remembered {
  readonly backend: Backend;
  readonly sealer: Sealer;
  readonly memory?: StoreMemory | undefined;
}

/**
 * Warns if the newest snapshot that this host saw is gone, was not forgotten, and nothing newer is there: then somebody
 * put an older state of the store in its place. Nobody without the key can make a newer snapshot. Remembers the newest
 * snapshot otherwise.
 *
 * @param snapshots - all that can be read, in order.
 */
export async function noticeOlderState(
  { backend, sealer, memory }: Remembered,
  snapshots: readonly StoreSnapshot[],
): Promise<void> {
  if (memory === undefined) return;
  const newest = snapshots.at(-1);
  const { newest: seen } = memory;
  const generation = newest?.generation ?? 0;
  const isOlder =
    seen !== undefined &&
    (memory.isOlder || generation <= seen.generation) &&
    snapshots.every(({ id }) => id !== seen.id);
  if (isOlder && !(await isThereOrForgotten({ backend, sealer }, seen.id))) {
    warnOfOlder({ backend, memory }, seen.id);
    return;
  }
  memory.isOlder = false;
  if (newest !== undefined) memory.saw({ id: newest.id, generation });
}

/**
 * Remembers a new snapshot as the newest, if the one before it is there or was forgotten. For a backup that did not read
 * the snapshots of the store.
 */
export async function rememberNew(
  { backend, sealer, memory }: Remembered,
  added: SeenSnapshot,
  parent: string | undefined,
): Promise<void> {
  if (memory === undefined) return;
  const { newest: seen } = memory;
  const isKnown = seen === undefined || seen.id === parent;
  if (isKnown || (await isThereOrForgotten({ backend, sealer }, seen.id))) memory.saw(added);
  else warnOfOlder({ backend, memory }, seen.id);
}

function warnOfOlder({ backend, memory }: { backend: Backend; memory: StoreMemory }, id: string): void {
  memory.isOlder = true;
  memory.warn(
    `The store ${backend.description} lacks the snapshot ${id.slice(0, 8)}, which was its newest when this host last saw it, and nobody noted that it was forgotten: an older state of the store was put in its place. Should it be that an old prune removed the note, --accept-new-store ends this warning`,
  );
}

/** A record that cannot be read is damage, which `check` reports. */
async function isThereOrForgotten({ backend, sealer }: Remembered, id: string): Promise<boolean> {
  try {
    await backend.get(`snapshots/${id}`, { offset: 0, length: 1 });
    return true;
  } catch (error) {
    if (!isMissing(error)) throw error;
    return isForgotten({ backend, sealer }, id);
  }
}
