import { deleteAll } from '../backends/backend.ts';
import type { StoreAccess } from '../files/store-files.ts';
import type { StoreSnapshot } from '../types.ts';
import type { StepFile } from './step-name.ts';
import { beginsWith } from './stored-steps.ts';

/**
 * The steps whose snapshot is gone. List `files` before `snapshots`: a snapshot is put before its first step, so one that
 * is not listed afterwards was forgotten.
 */
export function orphanedSteps(files: readonly StepFile[], snapshots: readonly StoreSnapshot[]): StepFile[] {
  return files.filter(({ stream }) => !snapshots.some((each) => beginsWith(stream, each)));
}

/** How many files go between two looks at a signal. */
const BATCH = 32;

/**
 * Deletes files, and returns those that are gone: all, unless the signal aborts. Throws SqlsyncError STORE_UNAVAILABLE;
 * then some may be gone.
 */
export async function removeSteps(
  { backend }: StoreAccess,
  files: readonly StepFile[],
  signal?: AbortSignal,
): Promise<ReadonlySet<StepFile>> {
  // A sound store has no gap that a reader could take for damage: the last states go first.
  const lastFirst = files.toSorted((a, b) => b.to - a.to);
  let gone = 0;
  for (; gone < lastFirst.length && signal?.aborted !== true; gone += BATCH) {
    const batch = lastFirst.slice(gone, gone + BATCH);
    await deleteAll(
      backend,
      batch.map(({ name }) => `steps/${name}`),
    );
  }
  return new Set(lastFirst.slice(0, gone));
}
