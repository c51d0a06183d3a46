import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync } from 'node:fs';
import { EXIT_OK } from '../../../../src/cli/terminal/exit.ts';
import { CLI } from '../../../support/relay-kill.ts';

export interface CommandOptions {
  /** System calls to record; without any, strace does not run. */
  readonly trace?: readonly string[];
  /** What strace does to these calls, such as `fsync:error=EIO:when=3`. */
  readonly inject?: readonly string[];
  /** Further options of strace. */
  readonly options?: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  /** Gets the id of the process. */
  readonly onStart?: (pid: number) => void;
  readonly compileCache: string;
  /** The place of strace's log while the command runs. */
  readonly log: string;
}

export interface CommandEnd {
  readonly status: number | null;
  readonly signal: string | null;
  /** Its last line of JSON: the summary, or the error. */
  readonly last: Readonly<Record<string, unknown>>;
  /** The outcome in a few words. */
  readonly outcome: string;
  /** All lines of strace. */
  readonly log: string;
}

/** Statuses of failures that name the cause: origin, target, connection, store, and damage in a store. */
const CLEAR_STATUSES: ReadonlySet<number | null> = new Set([EXIT_OK, 3, 4, 8, 10, 15, 18, 19]);

/** Runs one command of sqlsync to its end, with `--json`. */
export async function runCommand(
  args: readonly string[],
  { trace = [], inject = [], options = [], env, onStart, compileCache, log }: CommandOptions,
): Promise<CommandEnd> {
  const program = [process.execPath, CLI, ...args, '--json'];
  const injections = inject.flatMap((injection) => ['-e', `inject=${injection}`]);
  const strace = [
    'strace',
    '-f',
    '-y',
    '-o',
    log,
    '-e',
    `trace=${trace.join(',')}`,
    ...options,
    ...injections,
  ];
  const [command = '', ...rest] = trace.length === 0 ? program : [...strace, ...program];
  const child = spawn(command, rest, {
    // One thread in the pool, so that its calls have an order.
    env: { ...process.env, UV_THREADPOOL_SIZE: '1', NODE_COMPILE_CACHE: compileCache, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  onStart?.(child.pid ?? 0);
  let text = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (more: string) => (text += more));
  const [status, signal] = (await once(child, 'close')) as [number | null, string | null];
  const lines = text.split('\n').filter((line) => line.startsWith('{'));
  const last = JSON.parse(lines.at(-1) ?? '{}') as Record<string, unknown>;
  const isSummary = last['type'] === 'summary';
  const code =
    typeof last['code'] === 'string' ? last['code'] : isSummary ? `status ${status}` : text.slice(0, 300);
  const outcome = signal !== null ? `killed by ${signal}` : status === EXIT_OK ? 'done' : code;
  const traced = trace.length === 0 ? '' : readFileSync(log, 'latin1');
  rmSync(log, { force: true });
  return { status, signal, last, outcome, log: traced };
}

/** Checks that a command says what is wrong, whatever the fault. */
export function assertClear({ status, signal, last, outcome }: CommandEnd): void {
  assert.equal(signal, null, outcome);
  assert.ok(
    CLEAR_STATUSES.has(status),
    `an end that says nothing: ${status} ${outcome} ${String(last['message'])}`,
  );
}

/** The snapshot that the backup reported. */
export function snapshotIn({ last }: CommandEnd): string | undefined {
  const backups = last['backups'] as readonly { snapshot: { id: string } }[] | undefined;
  return backups?.[0]?.snapshot.id;
}
