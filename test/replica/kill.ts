import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { PROGRAM, sqlsync } from '../cli/command.ts';
import type { Run } from '../cli/command.ts';
import { tempDir } from '../support/compare.ts';

/**
 * Runs sqlsync with code before it that changes `fs`, in every process of it. `kill()` is kill -9 of the
 * process that calls it.
 */
export function sqlsyncWith(code: string, args: readonly string[]): Promise<Run> {
  const preload = `
    import fs from 'node:fs';
    import { syncBuiltinESMExports } from 'node:module';
    const kill = () => process.kill(process.pid, 'SIGKILL');
    ${code}
    syncBuiltinESMExports();`;
  const url = `data:text/javascript;base64,${Buffer.from(preload).toString('base64')}`;
  return sqlsync(args, { env: { NODE_OPTIONS: `--import=${url}` } });
}

/** Runs sqlsync under strace; returns how often its main thread, in which SQLite runs, called pwrite64. */
export function countWrites(t: TestContext, args: readonly string[]): number {
  const log = join(tempDir(t), 'log');
  assert.equal(underStrace(['-o', log, '-e', 'trace=pwrite64'], args).status, 0);
  return [...readFileSync(log, 'utf8').matchAll(/^pwrite64\(/gm)].length;
}

/** Kills sqlsync in the main thread's pwrite64 of this number, from 1. */
export function killAtWrite(args: readonly string[], number: number): void {
  const inject = `inject=pwrite64:signal=SIGKILL:when=${number}`;
  const { signal, status } = underStrace(['-o', '/dev/null', '-e', 'trace=pwrite64', '-e', inject], args);
  assert.ok(signal === 'SIGKILL' || status === 137, `it was not killed at write ${number}`);
}

function underStrace(
  options: readonly string[],
  args: readonly string[],
): { status: number | null; signal: NodeJS.Signals | null } {
  const run = spawnSync('strace', ['-qq', ...options, process.execPath, PROGRAM, ...args], {
    encoding: 'utf8',
    // Otherwise it would write the compile cache as well.
    env: { ...process.env, NODE_DISABLE_COMPILE_CACHE: '1' },
  });
  assert.equal(run.error, undefined, 'strace is needed to kill it within a commit');
  return run;
}
