import { encodeChecked } from './checked-json.ts';
import { isHexId } from './object-id.ts';
import { isThereRoom } from './out-of-space.ts';
import type { StoreAccess } from './store-files.ts';

/**
 * Takes snapshots away, also those whose records cannot be read. Returns those that were there. The note that one was taken away on purpose
 * comes first, unless there is no room for it: then the record goes first, and makes some. Throws SqlsyncError STORE_UNAVAILABLE.
 */
export async function forgetSnapshots(access: StoreAccess, ids: readonly string[]): Promise<string[]> {
  const { backend } = access;
  const there = new Set((await backend.list('snapshots')).map(({ name }) => name));
  const forgotten: string[] = [];
  const unnoted: string[] = [];
  for (const id of ids) {
    if (!isHexId(id) || !there.has(id)) continue;
    if (!(await isThereRoom(backend, () => noteForgotten(access, id)))) unnoted.push(id);
    await backend.delete(`snapshots/${id}`);
    forgotten.push(id);
  }
  // Without a note it counts as missing, where another names it as its parent, until that is forgotten too.
  for (const id of unnoted) await isThereRoom(backend, () => noteForgotten(access, id));
  return forgotten;
}

/** Says that a snapshot is not missing: it was taken away on purpose. */
export async function noteForgotten({ backend, sealer }: StoreAccess, id: string): Promise<void> {
  const record = sealer.seal('forgotten', encodeChecked({ version: 1, time: new Date().toISOString() }));
  await backend.put(`forgotten/${id}`, [record]);
}
