import type { BackupOptions, BackupSummary, RestoreOptions, RestoreSummary } from '../backup/options.ts';
import { runInChild } from './child-process.ts';
import { backupTaskOptions, restoreTaskOptions } from './options.ts';
import { withPassword } from './password.ts';

/**
 * Adds a snapshot of `origin` to the store in a folder, in a child process as {@link sync} does; the application may
 * write the origin meanwhile. An `AbortSignal` ends it as it ends a sync.
 *
 * @throws {SqlsyncError} with the codes of the command; the store is then as usable as before.
 */
export async function backup(options: BackupOptions): Promise<BackupSummary> {
  const task = { name: 'backup', options: backupTaskOptions(await withPassword(options)) } as const;
  return { ...(await runInChild<'backup'>(task, options)), origin: options.origin };
}

/**
 * Makes `target` the database of a stored snapshot: a new file of its exact bytes or, with `overwrite`, an existing
 * database in which only the differences are written, in one transaction. Runs in a child process, as {@link sync}.
 *
 * @throws {SqlsyncError} with the codes of the command; the target is then unchanged.
 */
export async function restore(options: RestoreOptions): Promise<RestoreSummary> {
  const task = { name: 'restore', options: restoreTaskOptions(await withPassword(options)) } as const;
  return { ...(await runInChild<'restore'>(task, options)), target: options.target };
}
