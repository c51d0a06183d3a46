import { severalAtOnce } from '../backends/backend.ts';
import type { Backend, StoredFile } from '../backends/backend.ts';
import type { Sealer } from '../sealed/sealer.ts';
import { StoreDamage } from '../store-error.ts';

/** A longer one is not ours. */
const MAX_NOTE_BYTES = 1024;

/**
 * The files of these snapshots that no note takes away. In an encrypted store a note counts only if it was written with
 * its key: otherwise anyone who may put files there could have the next prune delete what he likes.
 *
 * @param noted - the names of the notes.
 */
export async function withoutForgotten(
  { backend, sealer }: { readonly backend: Backend; readonly sealer: Sealer },
  snapshots: readonly StoredFile[],
  noted: ReadonlySet<string>,
): Promise<StoredFile[]> {
  const doubtful = snapshots.filter(({ name }) => noted.has(name)).map(({ name }) => name);
  const gone = new Set(doubtful);
  if (sealer.scheme !== 'none')
    await severalAtOnce(backend, doubtful, async (name) => {
      if (!(await isForgotten({ backend, sealer }, name))) gone.delete(name);
    });
  return snapshots.filter(({ name }) => !gone.has(name));
}

/** True if the note on this snapshot is there and can be read. */
export async function isForgotten(
  { backend, sealer }: { readonly backend: Backend; readonly sealer: Sealer },
  id: string,
): Promise<boolean> {
  const file = `forgotten/${id}`;
  try {
    sealer.open(
      { kind: 'forgotten', file, name: id },
      await backend.get(file, { offset: 0, length: MAX_NOTE_BYTES }),
    );
    return true;
  } catch (error) {
    if (error instanceof StoreDamage) return false;
    throw error;
  }
}
