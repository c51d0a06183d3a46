import type { WarningKind } from '../sync/request/announcements.ts';
import { runBackup } from '../backup/copy/backup.ts';
import { runRestore } from '../backup/restore/restore.ts';
import { keepYoungGenerationSmall } from '../backup/young-generation.ts';
import { errorToData, toSqlsyncError } from '../errors.ts';
import type { SqlsyncError } from '../errors.ts';
import { withMaxTime } from '../sync/runs/max-time.ts';
import { runFollowStore } from '../backup/follow/follow-store.ts';
import { runFollow } from '../sync/follow/follow.ts';
import type { FollowOptions } from '../sync/follow/follow.ts';
import type { CopyProgress } from '../sync/agents/page-copy.ts';
import { runSync } from '../sync/runs/sync.ts';
import { runVerify } from '../sync/runs/verify.ts';
import type { Report, Request, Task, TaskName, Tasks } from './messages.ts';

/**
 * How long a run may take to undo its work and end its agents after it was asked to end; then this process ends itself,
 * since the application may not be there to kill it.
 */
const END_GRACE_MS = 10_000;

/**
 * The child's side of {@link runInChild}: does the one task that comes over the IPC channel, reports, and closes the
 * channel. Ends early if the application aborts, or is gone: then the channel closes.
 *
 * @returns the error that was reported, if any
 */
export async function runChild(): Promise<SqlsyncError | undefined> {
  const controller = new AbortController();
  const { promise: started, resolve: start } = Promise.withResolvers<Task | undefined>();
  process.on('message', (request: Request) => {
    if (request.type === 'start') start(request.task);
    else controller.abort();
  });
  process.once('disconnect', () => {
    start(undefined);
    controller.abort();
    setTimeout(() => process.exit(), END_GRACE_MS).unref();
  });
  // Ctrl-C at the application's terminal reaches this process too; the application decides what it means.
  process.on('SIGINT', () => {});
  for (const name of ['SIGTERM', 'SIGHUP'] as const) process.on(name, () => controller.abort());
  const task = process.connected ? await started : undefined;
  try {
    if (task !== undefined) await report({ type: 'result', summary: await perform(task, controller.signal) });
    return undefined;
  } catch (error) {
    const failure = toSqlsyncError(error);
    await report({ type: 'error', error: errorToData(failure) });
    return failure;
  } finally {
    if (process.connected) process.disconnect();
  }
}

function perform(task: Task, signal: AbortSignal): Promise<Tasks[TaskName]['summary']> {
  const listeners = {
    onWarning: (text: string, kind: WarningKind): void => void report({ type: 'warning', text, kind }),
    onNote: (text: string): void => void report({ type: 'note', text }),
  };
  if (task.name === 'follow' || task.name === 'followStore') {
    const following: Pick<FollowOptions, 'signal' | 'onStep' | 'onFailure'> = {
      ...listeners,
      signal,
      onStep: (step) => void report({ type: 'step', step }),
      onFailure: ({ failure, pauseMs }) =>
        void report({ type: 'failure', error: errorToData(failure), pauseMs }),
    };
    if (task.name === 'follow') return runFollow({ ...task.options, ...following });
    keepYoungGenerationSmall();
    return runFollowStore({ ...task.options, replica: task.options.store, ...following });
  }
  return withMaxTime<Tasks[TaskName]['summary']>(task.options.maxTimeMs, signal, (ending) => {
    if (task.name === 'verify') return runVerify({ ...task.options, ...listeners, signal: ending });
    const copying = {
      ...listeners,
      signal: ending,
      onProgress: (progress: CopyProgress): void => void report({ type: 'progress', progress }),
    };
    if (task.name !== 'sync') keepYoungGenerationSmall();
    switch (task.name) {
      case 'backup':
        return runBackup({ ...task.options, ...copying });
      case 'restore':
        return runRestore({ ...task.options, ...copying });
      case 'sync':
        return runSync({ ...task.options, ...copying });
    }
  });
}

/** Resolves when the message was sent. Ignores that the application is gone. */
function report(message: Report): Promise<void> {
  return new Promise((resolve) => {
    process.send?.(message, undefined, {}, () => resolve());
  });
}
