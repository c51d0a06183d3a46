import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import type { Readable } from 'node:stream';
import { SqlsyncError, parseErrorCode } from '../../errors.ts';
import { LIFELINE } from '../../cli/terminal/signals.ts';
import { commandPath } from '../../sync/program.ts';
import { StderrTail } from '../../transport/stderr-tail.ts';

/** How long a command may take to undo its work after it was asked to end, in milliseconds. */
const END_GRACE_MS = 15_000;

/** How long the output of a process may go on after its end: a child of its own may keep it open for ever. */
const OUTPUT_GRACE_MS = 1000;

/** The process groups that are under way. */
const groups = new Set<number>();

/** Ends all commands and hooks at once, without waiting: for a process that cannot wait either. */
export function killAll(): void {
  for (const pid of groups) killGroup(pid, 'SIGTERM');
}

/** The summary of a command may be long: that of a backup lists all snapshots of a store. */
const MAX_LINE = 64 * 1024 * 1024;

export type Summary = Readonly<Record<string, unknown>>;

/**
 * Runs `sqlsync` with these words, which include `--json`; resolves to the summary and the exit status. A process of its
 * own keeps the service small, and a fault of one copy from the others.
 *
 * @throws {SqlsyncError} the error of the command, INTERRUPTED if `signal` aborted, WORKER_LOST if it was killed.
 */
export async function runCommand(
  words: readonly string[],
  signal: AbortSignal,
): Promise<{ readonly summary: Summary; readonly status: number }> {
  if (signal.aborted) throw interrupted();
  const child = spawn(process.execPath, [commandPath(), ...words], {
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    windowsHide: true,
    // It ends when this process does, however that ends: its successor makes the copy again.
    env: childEnvironment({ [LIFELINE]: '1' }),
    // In a process group of its own: this process decides what Ctrl-C means.
    detached: true,
  });
  const { stdout, stderr: errors } = child as ChildProcess & {
    readonly stdout: Readable;
    readonly stderr: Readable;
  };
  const stderr = new StderrTail(errors);
  let last = '';
  let rest = '';
  stdout.setEncoding('utf8').on('data', (chunk: string) => {
    const lines = `${rest}${chunk}`.split('\n');
    rest = (lines.pop() ?? '').slice(0, MAX_LINE);
    last = lines.at(-1) ?? last;
  });
  const how = await ended(child, signal);
  const line = parse(last);
  if (line?.['type'] === 'summary' && how.status !== null) return { summary: line, status: how.status };
  if (signal.aborted) throw interrupted();
  if (line?.['type'] === 'error') {
    const { code, message, hint } = line as Record<string, string | undefined>;
    throw new SqlsyncError(parseErrorCode(code ?? ''), message ?? '', hint === undefined ? {} : { hint });
  }
  const end = how.status === null ? `was killed by ${how.by}` : `ended with status ${how.status}`;
  throw new SqlsyncError('WORKER_LOST', `The process of the copy ${end} before it was done: ${stderr.text}`, {
    hint: 'It is made again at its next moment.',
  });
}

interface End {
  readonly status: number | null;
  readonly by: string;
}

/**
 * Asks the child, and all in its process group, to end if `signal` aborts, and then kills them. Resolves when the child
 * has ended.
 */
export function ended(child: ChildProcess, signal: AbortSignal): Promise<End> {
  let timer: NodeJS.Timeout | undefined;
  let outputTimer: NodeJS.Timeout | undefined;
  const { pid } = child;
  const end = (): void => {
    if (pid === undefined) return;
    killGroup(pid, 'SIGTERM');
    timer = setTimeout(() => killGroup(pid, 'SIGKILL'), END_GRACE_MS);
  };
  if (pid !== undefined) groups.add(pid);
  if (signal.aborted) end();
  else signal.addEventListener('abort', end, { once: true });
  return new Promise<End>((resolve) => {
    child.once('error', (error) => {
      if (child.pid === undefined) resolve({ status: null, by: error.message });
    });
    child.once('exit', () => {
      outputTimer = setTimeout(
        () => [child.stdin, child.stdout, child.stderr].map((each) => each?.destroy()),
        OUTPUT_GRACE_MS,
      );
    });
    child.once('close', (status, by) => resolve({ status, by: by ?? 'a signal' }));
  }).finally(() => {
    clearTimeout(timer);
    clearTimeout(outputTimer);
    if (pid !== undefined) groups.delete(pid);
    signal.removeEventListener('abort', end);
  });
}

/** The group may have ended meanwhile. */
function killGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // ESRCH: it has.
  }
}

/** Without what is meant for the service itself: a child that reports to systemd would speak in its name. */
export function childEnvironment(more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const { NOTIFY_SOCKET: _socket, WATCHDOG_USEC: _usec, WATCHDOG_PID: _pid, ...environment } = process.env;
  return { ...environment, ...more };
}

function parse(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function interrupted(): SqlsyncError {
  return new SqlsyncError('INTERRUPTED', 'The service ended, or was told to make this copy no more', {
    hint: 'A service that starts again makes it.',
  });
}
