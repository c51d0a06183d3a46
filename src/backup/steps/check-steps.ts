import { SqlsyncError } from '../../errors.ts';
import type { StoreAccess } from '../files/store-files.ts';
import { isMissing, throwIfAborted } from '../store-error.ts';
import type { CheckProblem, StoreSnapshot } from '../types.ts';
import { byStream, mergedAmong, reachableStates } from './step-name.ts';
import type { StepFile } from './step-name.ts';
import { beginsWith, listSteps, readStep } from './stored-steps.ts';

/**
 * Finds gaps between the steps after each snapshot and, if `readData` is true, damaged files. Steps whose snapshot is
 * gone are garbage.
 */
export async function checkSteps(
  access: StoreAccess,
  snapshots: readonly StoreSnapshot[],
  { readData, signal }: { readonly readData: boolean; readonly signal?: AbortSignal | undefined },
): Promise<CheckProblem[]> {
  const listed = await listSteps(access);
  const problems: CheckProblem[] = [];
  const bad = new Set<StepFile>();
  const needed = listed.filter(({ stream }) => snapshots.some((each) => beginsWith(stream, each)));
  for (const file of readData ? needed : []) {
    throwIfAborted(signal);
    try {
      await readStep(access, file);
    } catch (error) {
      // It was put together with others.
      if (isMissing(error)) continue;
      if (!(error instanceof SqlsyncError) || error.code === 'STORE_UNAVAILABLE') throw error;
      bad.add(file);
      problems.push({ file: `steps/${file.name}`, message: error.message });
    }
  }
  for (const [stream, inOrder] of byStream(needed)) {
    const via = reachableStates(inOrder.filter((file) => !bad.has(file)));
    const longer = mergedAmong(inOrder).filter(({ to }) => via.has(to));
    const lost = inOrder.find(
      (file) =>
        !bad.has(file) &&
        !via.has(file.to) &&
        !longer.some(({ from, to }) => from <= file.to && file.to <= to),
    );
    if (lost === undefined || bad.size > 0) continue;
    const base = snapshots.find((each) => beginsWith(stream, each));
    problems.push({
      file: `steps/${lost.name}`,
      message: `steps/${lost.name} in the store cannot be restored: a file of steps between it and snapshot ${base?.id} is missing`,
    });
  }
  return problems;
}
