import type { WarningKind } from '../sync/request/announcements.ts';
import type { ErrorData } from '../errors.ts';
import type { CopyProgress } from '../sync/agents/page-copy.ts';
import type { BackupOptions, BackupSummary, RestoreOptions, RestoreSummary } from '../backup/options.ts';
import type { FollowOptions, FollowStep, FollowSummary } from '../sync/follow/follow.ts';
import type { FollowIntoStoreOptions } from '../backup/follow/follow-store.ts';
import type { SyncOptions, SyncSummary } from '../sync/runs/sync.ts';
import type { VerifyOptions, VerifySummary } from '../sync/runs/verify.ts';

/** The only argument of the child: its task comes over the IPC channel, so that `ps` does not show it. */
const CHILD_FLAG = '--library-child';

export const CHILD_ARGUMENTS: readonly string[] = [CHILD_FLAG];

/** True if an application started this process by {@link runInChild}. */
export function isLibraryChild(argv: readonly string[]): boolean {
  return argv.length === 1 && argv[0] === CHILD_FLAG && process.send !== undefined;
}

/** The tasks of a child: the options that are data, and the result. */
export interface Tasks {
  readonly sync: { readonly options: DataOf<SyncOptions>; readonly summary: SyncSummary };
  readonly follow: { readonly options: DataOf<FollowOptions>; readonly summary: FollowSummary };
  readonly followStore: {
    readonly options: DataOf<FollowIntoStoreOptions>;
    readonly summary: FollowSummary;
  };
  readonly verify: { readonly options: DataOf<VerifyOptions>; readonly summary: VerifySummary };
  readonly backup: { readonly options: DataOf<BackupOptions>; readonly summary: BackupSummary };
  readonly restore: { readonly options: DataOf<RestoreOptions>; readonly summary: RestoreSummary };
}

export type TaskName = keyof Tasks;

/** Options without those that cannot cross to another process. */
export type DataOf<Options> = Omit<
  Options,
  'signal' | 'onProgress' | 'onWarning' | 'onNote' | 'onStep' | 'onFailure'
>;

export type Task = {
  readonly [N in TaskName]: { readonly name: N; readonly options: Tasks[N]['options'] };
}[TaskName];

/** From the application to the child. */
export type Request = { readonly type: 'start'; readonly task: Task } | { readonly type: 'abort' };

/** From the child to the application; `result` or `error` is the last. */
export type Report =
  | { readonly type: 'progress'; readonly progress: CopyProgress }
  | { readonly type: 'warning'; readonly text: string; readonly kind: WarningKind }
  | { readonly type: 'step'; readonly step: FollowStep }
  | { readonly type: 'failure'; readonly error: ErrorData; readonly pauseMs: number }
  | { readonly type: 'note'; readonly text: string }
  | { readonly type: 'result'; readonly summary: Tasks[TaskName]['summary'] }
  | { readonly type: 'error'; readonly error: ErrorData };
