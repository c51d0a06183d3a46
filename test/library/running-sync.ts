import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { sync } from '../../src/index.ts';
import type { SyncOptions, SyncSummary } from '../../src/index.ts';
import { toSqlsyncError } from '../../src/errors.ts';
import type { SqlsyncError } from '../../src/errors.ts';
import { Hold } from '../cli/command.ts';

const PATIENCE_MS = 60_000;

/** A sync that stands still in the middle of its transfer. */
export interface RunningSync {
  readonly hold: Hold;
  readonly result: Promise<SyncSummary>;
  /** Process ids of the child and of its agents. */
  readonly child: number;
  readonly agents: readonly number[];
}

/** Starts a sync and returns when its agent has sent so many bytes and no more. */
export async function runningSync(
  t: TestContext,
  options: SyncOptions,
  bytes: number = 2.5e6,
): Promise<RunningSync> {
  const hold = new Hold(t, bytes);
  const result = withEnvironment(hold.environment, () => sync({ compress: 'none', ...options }));
  let failure: unknown;
  result.catch((error: unknown) => (failure = error));
  await until(() => {
    if (failure !== undefined) throw toSqlsyncError(failure);
    return isReached(hold);
  });
  const [child, ...others] = libraryChildren(process.pid);
  assert.ok(child !== undefined && others.length === 0, 'one child');
  const agents = childrenOf(child);
  assert.equal(agents.length, 1);
  return { hold, result, child, agents };
}

export function isReached(hold: Hold): boolean {
  const { held } = JSON.parse(hold.environment['SQLSYNC_TEST_HOLD'] ?? '') as { held: string };
  return existsSync(held);
}

/** Calls `start` while these variables are set in this process, whose environment the child gets. */
export function withEnvironment<T>(variables: NodeJS.ProcessEnv, start: () => T): T {
  const before = { ...process.env };
  Object.assign(process.env, variables);
  try {
    return start();
  } finally {
    for (const name of Object.keys(variables)) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  }
}

/** Process ids of the children of any thread of this process, without those that have ended. */
export function childrenOf(pid: number): number[] {
  if (!existsSync(`/proc/${pid}`)) return [];
  return readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
  );
}

export function libraryChildren(pid: number): number[] {
  return childrenOf(pid).filter((child) => commandLine(child).includes('--library-child'));
}

/** Its words, separated by NUL. */
export function commandLine(pid: number): string {
  return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
}

export async function rejection(promise: Promise<unknown>): Promise<SqlsyncError> {
  const outcome = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  assert.ok(outcome !== undefined, 'it did not reject');
  return outcome as SqlsyncError;
}

export async function until(happened: () => boolean): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!happened()) {
    if (performance.now() > deadline) assert.fail('it did not happen');
    await delay(5);
  }
}
