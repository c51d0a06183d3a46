import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { commandPath } from '../sync/program.ts';

/** What `sqlsync doctor --json` says of a database with thousands of processes and tables. */
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;

/** How a run of the command ended. `last` is its last line of output, parsed; undefined if that is no JSON. */
export interface CommandEnd {
  readonly status: unknown;
  readonly last: unknown;
  /** The error of a run with another status than 0. */
  readonly error: unknown;
}

/**
 * Runs our own command in a child process, as every look at the files of an open database has to. `maxTimeMs` ends it
 * where a file system hangs.
 */
export async function runOwnCommand(args: readonly string[], maxTimeMs?: number): Promise<CommandEnd> {
  const env = { ...process.env };
  // The application's own options, such as --inspect-brk, are not for the child.
  delete env['NODE_OPTIONS'];
  const run = promisify(execFile)(process.execPath, [commandPath(), ...args], {
    encoding: 'utf8',
    maxBuffer: MAX_OUTPUT_BYTES,
    windowsHide: true,
    timeout: maxTimeMs,
    killSignal: 'SIGKILL',
    env,
  });
  try {
    const { stdout } = await run;
    return { status: 0, last: lastLine(stdout), error: undefined };
  } catch (error) {
    const { code, stdout = '' } = error as { code?: unknown; stdout?: string };
    return { status: code, last: lastLine(stdout), error };
  }
}

function lastLine(stdout: string): unknown {
  try {
    return JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '') as unknown;
  } catch {
    return undefined;
  }
}
