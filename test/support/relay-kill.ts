import './environment.ts';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const CLI: string = fileURLToPath(new URL('../../bin/sqlsync.js', import.meta.url));
const PRELOAD = new URL('./relay-kill-preload.ts', import.meta.url).href;

/** Longer than anything here takes: a process that still exists then stays. */
const GONE_WITHIN_MS = 120_000;

/**
 * `self fine` counts a frame that is about to go out as a step too, which matters to a process that writes to
 * the disk before it sends.
 */
export type Victim = 'self' | 'self fine' | 'parent' | 'nobody';

/** The environment in which the next far agent kills itself or its parent at `step`; see relay-kill-preload.ts. */
export function killEnvironment(step: number | string, victim: Victim, log: string): Record<string, string> {
  return {
    NODE_OPTIONS: `--import=${PRELOAD}`,
    SQLSYNC_TEST_KILL: `${step} ${victim}`,
    SQLSYNC_TEST_LOG: log,
  };
}

export interface KillLog {
  readonly agentPid: number;
  /** Every step so far, such as `in open`. */
  readonly steps: readonly string[];
  /** The last step, if a process was killed there; undefined if the run had fewer steps. */
  readonly killedAt: string | undefined;
}

/** Throws if no agent has begun to run; see {@link hasStarted}. */
export function readKillLog(log: string): KillLog {
  const lines = readFileSync(log, 'utf8').trim().split('\n');
  const killed = lines.indexOf('killed');
  return {
    agentPid: Number(lines[0]?.slice('pid '.length)),
    steps: lines.slice(1, killed === -1 ? undefined : killed),
    killedAt: killed === -1 ? undefined : lines[killed - 1],
  };
}

/** True once the agent has begun to run. A near side that gives up early may never have met it. */
export function hasStarted(log: string): boolean {
  return existsSync(log) && readFileSync(log, 'utf8').includes('\n');
}

/** Resolves when the process has ended; rejects if it stays. */
export async function gone(pid: number, what: string): Promise<void> {
  for (let waitedMs = 0; isAlive(pid); waitedMs += 20) {
    if (waitedMs >= GONE_WITHIN_MS) throw new Error(`${what} (pid ${pid}) is still there`);
    await delay(20);
  }
}

/** A zombie, which only waits for its parent to collect it, is not alive. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  const stat = join('/proc', String(pid), 'stat');
  if (!existsSync('/proc/self/stat')) return true;
  try {
    return !/\) Z /.test(readFileSync(stat, 'latin1'));
  } catch {
    return false;
  }
}
