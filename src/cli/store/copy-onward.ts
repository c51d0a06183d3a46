import type { OpenOptions } from '../../backup/files/access.ts';
import type { BackupSummary } from '../../backup/options.ts';
import type { CopyOptions, CopySummary, Store } from '../../backup/types.ts';
import { SqlsyncError, toSqlsyncError } from '../../errors.ts';
import { EXIT_OK, exitStatusOf } from '../terminal/exit.ts';
import { counted, formatBytes } from '../terminal/format.ts';
import type { Copies, Copy, CopyLabels } from '../job/copies.ts';
import type { Output } from '../terminal/output.ts';
import { openStoreAt, openStoreToWrite } from './store-command.ts';

/** New snapshots that other stores get too. */
export interface Onward {
  /** The store that has them. */
  readonly store: string;
  /** How to open it, and the others: they have the same password. */
  readonly access: OpenOptions;
  readonly others: readonly string[];
  readonly summaries: readonly BackupSummary[];
  readonly output: Output;
  readonly copies: Copies;
  readonly signal: AbortSignal | undefined;
  readonly labelsOf: (origin: string, store: string) => CopyLabels;
  readonly figuresOf: (summary: BackupSummary) => Copy['figures'];
}

/** What one other store got, or why it got nothing. */
export interface OnwardResult {
  readonly store: string;
  readonly copied: number;
  readonly bytesAdded: number;
  readonly error: SqlsyncError | undefined;
}

/** Copies the new snapshots to each of the other stores. One that fails does not stop the others. */
export async function copyOnward(run: Onward): Promise<OnwardResult[]> {
  const results: OnwardResult[] = [];
  if (run.summaries.length === 0) return results;
  for (const store of run.others) results.push(await copyTo(store, run));
  return results;
}

async function copyTo(other: string, run: Onward): Promise<OnwardResult> {
  const { output, summaries, signal } = run;
  const startedAt = performance.now();
  const report = (exitStatus: number): void => {
    const durationMs = performance.now() - startedAt;
    for (const summary of summaries) {
      const figures = exitStatus === EXIT_OK ? run.figuresOf(summary) : undefined;
      run.copies.report({ labels: run.labelsOf(summary.origin, other), exitStatus, durationMs, figures });
    }
  };
  try {
    const from = await openStoreAt(run.store, run.access);
    const ids = summaries.map(({ snapshot }) => snapshot.id);
    const onWarning = (warning: string): void => output.warning(warning);
    const to = await openStoreToWrite(other, { ...run.access, onWarning });
    const { copied, bytesAdded } = await copyThoseThere(from, to, ids, { signal, onWarning });
    report(EXIT_OK);
    output.result(
      `Copied to ${other}: ${counted(copied.length, 'snapshot')}, ${formatBytes(bytesAdded)} added`,
    );
    return { store: other, copied: copied.length, bytesAdded, error: undefined };
  } catch (error) {
    const failure = toSqlsyncError(error);
    if (failure.code === 'INTERRUPTED') throw failure;
    report(exitStatusOf(failure.code));
    output.failure(other, failure);
    return { store: other, copied: 0, bytesAdded: 0, error: failure };
  }
}

/**
 * Copies snapshots, without those that somebody forgot since this run found them: that of a database that has not changed
 * may be old.
 */
async function copyThoseThere(
  from: Store,
  to: Store,
  ids: readonly string[],
  options: CopyOptions,
): Promise<Pick<CopySummary, 'copied' | 'bytesAdded'>> {
  try {
    return await from.copyTo(to, { ...options, ids });
  } catch (error) {
    if (toSqlsyncError(error).code !== 'SNAPSHOT_NOT_FOUND') throw error;
    const there = new Set((await from.snapshots()).map(({ id }) => id));
    const left = ids.filter((id) => there.has(id));
    if (left.length === ids.length) throw error;
    options.onWarning?.(
      `${counted(ids.length - left.length, 'snapshot')} cannot be copied: forgotten by another run, or another user, since this one found it there`,
    );
    return left.length === 0 ? { copied: [], bytesAdded: 0 } : copyThoseThere(from, to, left, options);
  }
}

/** The error at the end of a run in which other stores did not get their copies. */
export function onwardFailure(results: readonly OnwardResult[]): SqlsyncError | undefined {
  const failed = results.filter(({ error }) => error !== undefined).map(({ store }) => store);
  if (failed.length === 0) return undefined;
  return new SqlsyncError('BACKUP_PARTIAL', `The new snapshots could not be copied to ${failed.join(', ')}`, {
    hint: 'The store itself has them. The next run copies its own; for these: sqlsync copy STORE OTHER.',
  });
}
