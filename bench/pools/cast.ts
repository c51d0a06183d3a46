import type { ChildProcess } from 'node:child_process';
import { execFile, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Scenario } from './child.ts';
import { makeDatabase } from './writers.ts';

const CHILD = join(import.meta.dirname, 'child.ts');

/** Runs `use` with a new database, in WAL mode, with so many counters and an empty table for an import. */
export async function withDatabase<T>(counters: number, use: (path: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'sqlsync-bench-'));
  try {
    const path = join(folder, 'app.db');
    makeDatabase(path, counters);
    return await use(path);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Processes that begin at the same time; resolves with what each sends at its end. */
export async function play<Outcome>(scenarios: readonly Scenario[]): Promise<Outcome[]> {
  const children = await Promise.all(scenarios.map(start));
  const outcomes = children.map(async (child) => {
    const exited = once(child, 'exit');
    const outcome = await nextMessage(child);
    await exited;
    return outcome as Outcome;
  });
  for (const child of children) child.send('go');
  return await Promise.all(outcomes);
}

/** Runs `use` beside a process that never ends by itself. */
export async function beside<T>(scenario: Scenario | undefined, use: () => Promise<T>): Promise<T> {
  const child = scenario === undefined ? undefined : await start(scenario);
  child?.send('go');
  try {
    return await use();
  } finally {
    child?.kill('SIGKILL');
  }
}

async function start(scenario: Scenario): Promise<ChildProcess> {
  const child = fork(CHILD, [JSON.stringify(scenario)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  await nextMessage(child);
  return child;
}

function nextMessage(child: ChildProcess): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const failed = (status: number | null): void =>
      reject(new Error(`a process of the benchmark ended with ${status}`));
    child.once('exit', failed);
    child.once('message', (message) => {
      child.off('exit', failed);
      resolve(message);
    });
  });
}

/** Syncs `origin` again and again while `use` runs, and once more at its end. Returns how often. */
export async function besideSyncs<T>(
  exe: string,
  origin: string,
  replica: string,
  use: () => Promise<T>,
): Promise<{ value: T; syncs: number }> {
  const sync = (): Promise<unknown> => promisify(execFile)(process.execPath, [exe, origin, replica]);
  let isDone = false;
  let syncs = 0;
  const syncing = (async () => {
    while (!isDone) {
      await sync();
      syncs++;
    }
  })();
  // A sync that fails ends the benchmark, but not before the writers.
  syncing.catch(() => {});
  const value = await use();
  isDone = true;
  await syncing;
  await sync();
  return { value, syncs };
}
