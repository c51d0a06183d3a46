import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { openRaw } from './binding.ts';
import { databaseUri } from './database-uri.ts';
import { findIntegrityFaults } from './integrity-findings.ts';
import type { IntegrityFindings } from './integrity-findings.ts';

/** What a check found. A check that was not made says nothing. */
export type IntegrityResult =
  ({ readonly made: true } & IntegrityFindings) | { readonly made: false; readonly why: string };

/** What the process and its thread are told. */
interface CheckStart {
  readonly integrityCheckOf: string;
  readonly timeoutMs: number;
}

/** The one argument of the process; the path comes over its IPC channel, where `ps` does not show it. */
const PROCESS_FLAG = '--integrity-check';

/**
 * What is wrong with a database, at most 100 sentences. Never rejects. `path` is absolute; `timeoutMs` is how long to wait
 * for locks.
 *
 *     this process ── path ──► child ──► its thread: one statement, which may take minutes
 *                  ◄─ result ─
 *
 * No thread can be stopped within a statement, but a process can: it is killed when `signal` aborts, and kills itself
 * when this process is gone. It reads only, so that a kill leaves nothing undone.
 */
export async function checkIntegrity(
  path: string,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<IntegrityResult> {
  if (signal?.aborted === true) return { made: false, why: 'it was interrupted' };
  const child = spawn(process.execPath, [import.meta.filename, PROCESS_FLAG], {
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    windowsHide: true,
  });
  const ended = endOf(child);
  const kill = (): void => void child.kill('SIGKILL');
  signal?.addEventListener('abort', kill, { once: true });
  try {
    let result: IntegrityResult | undefined;
    child.on('message', (message: IntegrityResult) => (result = message));
    child.send({ integrityCheckOf: path, timeoutMs } satisfies CheckStart, () => {});
    const how = await ended;
    return result ?? { made: false, why: how };
  } finally {
    signal?.removeEventListener('abort', kill);
  }
}

/** How it ended, once all that it said has come. */
async function endOf(child: ChildProcess): Promise<string> {
  try {
    const disconnected = once(child, 'disconnect');
    disconnected.catch(() => {}); // one that never started
    await once(child, 'exit');
    await disconnected;
  } catch (error) {
    return `its process could not be started: ${error instanceof Error ? error.message : String(error)}`;
  }
  const { signalCode, exitCode } = child;
  return `its process ${signalCode === null ? `ended with status ${exitCode}` : `was killed by ${signalCode}`}`;
}

/** The process: its main thread stays free to notice that nobody waits any more. */
function runProcess(): void {
  // Ctrl-C at a terminal reaches this process too; what it means is for the other one to say.
  process.on('SIGINT', () => {});
  process.once('disconnect', () => process.kill(process.pid, 'SIGKILL'));
  process.once('message', (start: CheckStart) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: start });
    const report = (result: IntegrityResult): void => void process.send?.(result, () => process.exit());
    worker.once('message', report);
    worker.once('error', (error) =>
      report({ made: false, why: error instanceof Error ? error.message : String(error) }),
    );
  });
}

/** Throws where the file cannot be opened. */
function check({ integrityCheckOf: path, timeoutMs }: CheckStart): IntegrityResult {
  const database = openRaw(databaseUri(path, { mode: 'ro' }), {
    readonly: true,
    fileMustExist: true,
    timeout: timeoutMs,
  });
  try {
    return { made: true, ...findIntegrityFaults(database) };
  } catch (error) {
    return { made: false, why: error instanceof Error ? error.message : String(error) };
  } finally {
    database.close();
  }
}

// What runs here is told by flag and key, so that no other program or thread that loads this module checks anything.
if (isMainThread) {
  const [, program, flag] = process.argv;
  if (program === import.meta.filename && flag === PROCESS_FLAG && process.send !== undefined) runProcess();
} else if (typeof workerData === 'object' && workerData !== null && 'integrityCheckOf' in workerData) {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  parentPort?.postMessage(check(workerData as CheckStart));
}
