import type { StoredFile } from '../backends/backend.ts';
import { decodeChecked, encodeChecked } from '../files/checked-json.ts';
import { isHexId } from '../packs/object-id.ts';
import { isThereRoom } from '../backends/out-of-space.ts';
import { StoreDamage } from '../store-error.ts';
import { MAX_JSON_BYTES } from '../files/store-files.ts';
import type { StoreAccess } from '../files/store-files.ts';

/**
 * Takes snapshots away, also those whose records cannot be read. Returns those that were there. The note that one was
 * taken away on purpose comes first, unless there is no room for it: then the record goes first, and makes some. Throws
 * SqlsyncError STORE_UNAVAILABLE.
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

/** Those of these notes that cannot be read, with what is wrong. Throws SqlsyncError STORE_UNAVAILABLE. */
export async function damagedNotes(
  { backend, sealer }: StoreAccess,
  notes: readonly StoredFile[],
): Promise<{ readonly id: string; readonly file: string; readonly message: string }[]> {
  const damaged: { id: string; file: string; message: string }[] = [];
  for (const { name: id } of notes.filter(({ name }) => isHexId(name))) {
    const file = `forgotten/${id}`;
    try {
      const sealed = await backend.get(file, { offset: 0, length: MAX_JSON_BYTES });
      decodeChecked(sealer.open('forgotten', sealed), file);
    } catch (error) {
      // A prune may have deleted it meanwhile.
      if (!(error instanceof StoreDamage)) throw error;
      if (error.code !== 'STORE_FILE_MISSING') damaged.push({ id, file, message: error.message });
    }
  }
  return damaged;
}

/** Writes anew what tells of a forgotten snapshot; its name says all that matters. */
export async function repairNotes(access: StoreAccess): Promise<number> {
  const damaged = await damagedNotes(access, await access.backend.list('forgotten'));
  for (const { id, file } of damaged) {
    await access.backend.delete(file);
    await noteForgotten(access, id);
  }
  return damaged.length;
}

/** Says that a snapshot is not missing: it was taken away on purpose. */
export async function noteForgotten({ backend, sealer }: StoreAccess, id: string): Promise<void> {
  const record = sealer.seal('forgotten', encodeChecked({ version: 1, time: new Date().toISOString() }));
  await backend.put(`forgotten/${id}`, [record]);
}
