import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { DatabaseParts } from './database-parts.ts';
import type { IntegrityFindings } from './integrity-findings.ts';

/** The findings of a check, or why it was not made. */
export type IntegrityResult =
  | ({ readonly made: true; readonly parts?: DatabaseParts | undefined } & IntegrityFindings)
  | { readonly made: false; readonly why: string };

/** The request to the process that checks. */
export interface CheckStart {
  readonly integrityCheckOf: string;
  readonly timeoutMs: number;
  readonly immutable: boolean;
  readonly withParts: boolean;
}

export interface CheckOptions {
  readonly signal?: AbortSignal | undefined;
  /** Reads without locks and without -wal and -shm; only for a file that no program changes meanwhile. */
  readonly immutable?: boolean | undefined;
  /** Also looks for broken references, and measures each table and index. */
  readonly withParts?: boolean | undefined;
  /** Called now and then with the bytes that the check has read so far. */
  readonly onBytesRead?: ((bytes: number) => void) | undefined;
}

const PROGRESS_INTERVAL_MS = 200;

/** The program of the checking process. The path comes over its IPC channel, so that `ps` does not show it. */
const PROGRAM = fileURLToPath(new URL(`integrity-process${extname(import.meta.filename)}`, import.meta.url));

/**
 * What is wrong with a database, at most 100 sentences. Never rejects. `path` is absolute; `timeoutMs` is how long to
 * wait for locks.
 *
 *     this process ── path ──► child ──► its thread: one statement, which may take minutes
 *                  ◄─ result ─
 *
 * A thread cannot be stopped within a statement, but a process can: `signal` kills it, and it kills itself when this
 * process is gone. It only reads, so a kill leaves nothing undone.
 */
export async function checkIntegrity(
  path: string,
  timeoutMs: number,
  { signal, immutable = false, withParts = false, onBytesRead }: CheckOptions = {},
): Promise<IntegrityResult> {
  if (signal?.aborted === true) return { made: false, why: 'it was interrupted' };
  const child = spawn(process.execPath, [PROGRAM], {
    // In a separate process group: this process decides what Ctrl-C or the end of a terminal means.
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    windowsHide: true,
  });
  const ended = endOf(child);
  const kill = (): void => void child.kill('SIGKILL');
  signal?.addEventListener('abort', kill, { once: true });
  const timer = setInterval(() => onBytesRead?.(bytesReadBy(child)), PROGRESS_INTERVAL_MS);
  try {
    let result: IntegrityResult | undefined;
    child.on('message', (message: IntegrityResult) => (result = message));
    child.send({ integrityCheckOf: path, timeoutMs, immutable, withParts } satisfies CheckStart, () => {});
    const how = await ended;
    return result ?? { made: false, why: how };
  } finally {
    clearInterval(timer);
    signal?.removeEventListener('abort', kill);
  }
}

/** By read(2), as the system counts; 0 if it does not. */
function bytesReadBy({ pid }: ChildProcess): number {
  try {
    return Number(/^rchar: (\d+)/m.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** How the process ended, after all of its messages have arrived. */
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
