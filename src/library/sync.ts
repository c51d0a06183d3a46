import type { FollowIntoStoreOptions } from '../backup/follow/follow-store.ts';
import type { FollowOptions, FollowSummary } from '../sync/follow/follow.ts';
import type { SyncOptions, SyncSummary } from '../sync/runs/sync.ts';
import type { VerifyOptions, VerifySummary } from '../sync/runs/verify.ts';
import { runInChild } from './child-process.ts';
import { withPassword } from './password.ts';
import { followStoreTaskOptions, followTaskOptions, syncTaskOptions, verifyTaskOptions } from './options.ts';
import { inTurn } from './turns.ts';

/**
 * Makes `replica` an exact copy of one snapshot of `origin`, as the command `sqlsync ORIGIN REPLICA` does. The
 * application may write the origin meanwhile; in WAL mode it does not wait.
 *
 * A child process does the work, so that the locks of the application's own connections are safe and its event loop
 * stays free. The child ends before the promise settles, and with the application. Relative paths are relative to the
 * working directory at the call. Calls of one process into one replica run one after the other.
 *
 * An `AbortSignal` asks the child to undo its work and end, and kills it after 5 s. The sync then rejects with
 * INTERRUPTED and the signal's reason as `cause`, or resolves if it had already committed. A listener that throws ends
 * the sync, which rejects with that error.
 *
 * @throws {SqlsyncError} with the codes of the command, `hint` included; USAGE for options that make no sense; and
 * WORKER_LOST if the child was killed or could not start. In every case the replica is the old or the new snapshot,
 * completely.
 */
export async function sync(options: SyncOptions): Promise<SyncSummary> {
  const task = { name: 'sync', options: syncTaskOptions(options) } as const;
  const run = (): Promise<SyncSummary> => runInChild<'sync'>(task, options);
  // Another process's run is waited for, too, but only until `busyTimeoutMs`: a new copy may take longer.
  const summary = await inTurn(task.options.replica, options.signal, run);
  return { ...summary, origin: options.origin, replica: options.replica };
}

/**
 * Makes `replica` an exact copy of `origin`, and again whenever `origin` has changed, as the command `sqlsync follow`
 * does, until `signal` aborts. It then resolves if the replica was whole once, and shows the last whole step. With
 * `store` instead of `replica`, adds a snapshot and then each state to a store. Everything else is as with {@link sync}.
 *
 * @throws {SqlsyncError} for failures that no later attempt can mend, before the first step for any that does
 * not pass by itself, and with `exitOnError` for every one. `onFailure` gets the others.
 */
export async function follow(options: FollowOptions | FollowIntoStoreOptions): Promise<FollowSummary> {
  if (isIntoStore(options)) return followIntoStore(options);
  const task = { name: 'follow', options: followTaskOptions(options) } as const;
  const summary = await runInChild<'follow'>(task, options);
  return { ...summary, origin: options.origin, replica: options.replica };
}

function isIntoStore(options: FollowOptions | FollowIntoStoreOptions): options is FollowIntoStoreOptions {
  return typeof options === 'object' && options !== null && 'store' in options;
}

async function followIntoStore(options: FollowIntoStoreOptions): Promise<FollowSummary> {
  const { store } = options;
  const task = { name: 'followStore', options: followStoreTaskOptions(await withPassword(options)) } as const;
  const summary = await runInChild<'followStore'>(task, options);
  return { ...summary, origin: options.origin, replica: store };
}

/**
 * Compares one snapshot each of two databases, local or remote, as `sqlsync verify A B` does, and writes nothing.
 * Databases that differ are no error: `same` is false. Everything else is as with {@link sync}.
 *
 * @throws {SqlsyncError}
 */
export async function verify(options: VerifyOptions): Promise<VerifySummary> {
  const task = { name: 'verify', options: verifyTaskOptions(options) } as const;
  const summary = await runInChild<'verify'>(task, options);
  const { a, b } = summary;
  return { ...summary, a: { ...a, location: options.a }, b: { ...b, location: options.b } };
}
