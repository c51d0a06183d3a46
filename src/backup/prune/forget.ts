import { severalAtOnce } from '../backends/backend.ts';
import type { StoredFile } from '../backends/backend.ts';
import { decodeChecked, encodeChecked } from '../files/checked-json.ts';
import { isForgotten } from '../files/forgotten-notes.ts';
import { isHexId } from '../packs/object-id.ts';
import { isThereRoom } from '../backends/out-of-space.ts';
import { StoreDamage } from '../store-error.ts';
import { MAX_JSON_BYTES, namesIn } from '../files/store-files.ts';
import type { StoreAccess } from '../files/store-files.ts';

/**
 * Takes snapshots away, including those whose records cannot be read. Returns the ids of those that were there. First
 * puts a note that each was taken away on purpose, which alone takes it away. If there is no room for the note, deletes the record first, which
 * frees some. Throws SqlsyncError STORE_UNAVAILABLE.
 */
export async function forgetSnapshots(access: StoreAccess, ids: readonly string[]): Promise<string[]> {
  const { backend } = access;
  access.memory?.refuseOlder();
  const there = await namesIn(access, 'snapshots');
  const unnoted: string[] = [];
  const doomed = [...new Set(ids)].filter((id) => isHexId(id) && there.has(id));
  await severalAtOnce(backend, doomed, async (id) => {
    if (!(await isThereRoom(backend, () => noteForgotten(access, id)))) unnoted.push(id);
    await backend.delete(`snapshots/${id}`);
  });
  // Without a note, a snapshot that another names as its parent counts as missing, until that one is forgotten too.
  for (const id of unnoted) await isThereRoom(backend, () => noteForgotten(access, id));
  return doomed;
}

/** The notes that cannot be read, with what is wrong. Throws SqlsyncError STORE_UNAVAILABLE. */
export async function damagedNotes(
  { backend, sealer }: StoreAccess,
  notes: readonly StoredFile[],
): Promise<{ readonly id: string; readonly file: string; readonly message: string }[]> {
  const damaged: { id: string; file: string; message: string }[] = [];
  for (const { name: id } of notes.filter(({ name }) => isHexId(name))) {
    const file = `forgotten/${id}`;
    try {
      const sealed = await backend.get(file, { offset: 0, length: MAX_JSON_BYTES });
      decodeChecked(sealer.open({ kind: 'forgotten', file, name: id }, sealed), file);
    } catch (error) {
      // A prune may have deleted the note meanwhile.
      if (!(error instanceof StoreDamage)) throw error;
      if (error.code !== 'STORE_FILE_MISSING') damaged.push({ id, file, message: error.message });
    }
  }
  return damaged;
}

/**
 * Rewrites damaged notes on forgotten snapshots; the name of a note contains everything that matters. In an encrypted
 * store it only removes them: a note that its key did not make says nothing, and a new one would make it true.
 *
 * @returns the ids of the snapshots, and of those that are gone without a note.
 */
export async function repairNotes(
  access: StoreAccess,
): Promise<{ readonly repaired: readonly string[]; readonly unnoted: readonly string[] }> {
  const damaged = await damagedNotes(access, await access.backend.list('forgotten'));
  const isPlain = access.sealer.scheme === 'none';
  for (const { id, file } of damaged) {
    await access.backend.delete(file);
    if (isPlain) await noteForgotten(access, id);
  }
  const repaired = damaged.map(({ id }) => id);
  const there = isPlain || damaged.length === 0 ? new Set(repaired) : await namesIn(access, 'snapshots');
  return { repaired, unnoted: repaired.filter((id) => !there.has(id)) };
}

/**
 * Notes that a snapshot is not missing: it was taken away on purpose. Replaces a note of an encrypted store that its key
 * did not make.
 */
export async function noteForgotten(access: StoreAccess, id: string): Promise<void> {
  const { backend, sealer } = access;
  const note = encodeChecked({ version: 1, time: new Date().toISOString() });
  const record = sealer.seal({ kind: 'forgotten', name: id }, note);
  const file = `forgotten/${id}`;
  if ((await backend.put(file, [record])) === 'created') return;
  if (sealer.scheme === 'none' || (await isForgotten(access, id))) return;
  await backend.delete(file);
  await backend.put(file, [record]);
}
