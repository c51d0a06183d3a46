import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import type { ErrorCode } from '../../src/errors.ts';
import { sha256File } from '../support/compare.ts';
import '../support/environment.ts';

/** The command as a person runs it. */
export const PROGRAM: string = join(dirname(dirname(import.meta.dirname)), 'bin', 'sqlsync.js');

/** A user who owns nothing here; only root can become one. */
export const NOBODY = { uid: 65534, gid: 65534 } as const;
export const NEEDS_ROOT: false | string =
  process.getuid?.() !== 0
    ? 'NOT TESTED: only root can run a command as another user'
    : [PROGRAM, process.execPath, join(dirname(dirname(PROGRAM)), 'src', 'cli', 'main.ts')].every(
          mayBeReadByAll,
        )
      ? false
      : 'NOT TESTED: another user cannot read this checkout';

/** Longer than anything here takes: an event that has not come by then does not come any more. */
const PATIENCE_MS = 60_000;

const HOLD_PROGRAM = pathToFileURL(join(import.meta.dirname, 'hold-agent.ts')).href;

export interface Run {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly user?: { readonly uid: number; readonly gid: number };
  readonly hold?: Hold;
  /** The command runs in a process group of its own, as a shell gives to each job. */
  readonly detached?: boolean;
  /** Its stdout and stderr are one terminal; the run's stdout has what that shows. */
  readonly terminal?: boolean;
  /** The width of that terminal; 80 without it. */
  readonly columns?: number;
}

/** Every command loads some 60 modules; Node.js keeps their compiled form in this folder, by their content. */
export const COMPILE_CACHE: string = join(
  dirname(dirname(PROGRAM)),
  'node_modules',
  '.cache',
  'sqlsync-compiled',
);

/** A command that is running. */
export class Command {
  readonly child: ChildProcess;
  readonly done: Promise<Run>;
  #stdout = '';
  #stderr = '';

  constructor(args: readonly string[], options: CommandOptions = {}) {
    const [command, ...rest] =
      options.terminal === true ? onTerminal(args, options.columns) : [process.execPath, PROGRAM, ...args];
    this.child = spawn(command as string, rest, {
      env: environment(options),
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: options.detached === true,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...options.user,
    });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => (this.#stdout += text));
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.#stderr += text));
    this.done = new Promise((resolve, reject) => {
      this.child.on('error', reject);
      this.child.on('close', (status, signal) =>
        resolve({ status, signal, stdout: this.#stdout, stderr: this.#stderr }),
      );
    });
  }

  /** The output so far, for the message of a failure. */
  get said(): string {
    return `exit ${this.child.exitCode ?? this.child.signalCode ?? '(running)'}\n${this.#stdout}${this.#stderr}`;
  }

  /** Resolves when the command has printed this. */
  async says(text: string): Promise<void> {
    await until(() => this.said.includes(text), this);
  }

  /** Process ids of its children that are alive. */
  children(): number[] {
    const { pid } = this.child;
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
  }
}

export function sqlsync(args: readonly string[], options: CommandOptions = {}): Promise<Run> {
  return new Command(args, options).done;
}

/** Runs it with --json and returns the summary, after it ended well. */
export async function summaryOf(args: readonly string[], options: CommandOptions = {}): Promise<Summary> {
  const run = await sqlsync([...args, '--json'], options);
  assert.equal(run.status, 0, `${args.join(' ')}: ${run.stdout}${run.stderr}`);
  return jsonLines(run.stdout).at(-1) as Summary;
}

/** What `sqlsync` must refuse: with this code and exit status, and for people with a message and a hint. */
export async function assertRefused(
  args: readonly string[],
  expected: { code: ErrorCode; status: number; says: RegExp; hint?: RegExp },
  options: CommandOptions = {},
): Promise<void> {
  const { status, stdout, stderr } = await sqlsync(args, options);
  assert.match(stderr, new RegExp(`\\[${expected.code}\\]`), `expected ${expected.code}: ${stdout}${stderr}`);
  assert.equal(status, expected.status, stderr);
  assert.equal(stdout, '');
  assert.match(stderr, expected.says);
  const [, ...hintLines] = stderr.slice(stderr.indexOf(`[${expected.code}]`)).split('\n');
  assert.match(hintLines.join('\n'), expected.hint ?? /\S/, 'the hint');
}

export type Summary = Record<string, unknown> & { type: string };

export function jsonLines(stdout: string): Summary[] {
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Summary);
}

/**
 * Makes the far agent of a command stop its output after `bytes` bytes, for ever or until `release`. It still
 * listens and reacts to signals, as an agent behind a network that stalls.
 */
export class Hold {
  readonly bytes: number;
  readonly #folder: string;

  constructor(t: TestContext, bytes: number) {
    this.bytes = bytes;
    this.#folder = mkdtempSync(join(tmpdir(), 'sqlsync-hold-'));
    // The agent may be another user's, and has to leave a sign here.
    chmodSync(this.#folder, 0o777);
    t.after(() => rmSync(this.#folder, { recursive: true, force: true }));
  }

  get environment(): NodeJS.ProcessEnv {
    return {
      NODE_OPTIONS: `--import=${HOLD_PROGRAM}`,
      SQLSYNC_AGENT_PROCESS: '1',
      SQLSYNC_TEST_HOLD: JSON.stringify({ bytes: this.bytes, held: this.#held, released: this.#released }),
    };
  }

  /** Resolves when the agent has stopped. */
  async reached(command: Command): Promise<void> {
    await until(() => existsSync(this.#held), command);
  }

  release(): void {
    writeFileSync(this.#released, '');
  }

  get #held(): string {
    return join(this.#folder, 'held');
  }

  get #released(): string {
    return join(this.#folder, 'released');
  }
}

/** Waits until a condition holds; fails if the command ends first. */
export async function until(happened: () => boolean, command: Command): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!happened()) {
    const ended = command.child.exitCode !== null || command.child.signalCode !== null;
    if (ended || performance.now() > deadline) assert.fail(`it did not happen: ${command.said}`);
    await delay(5);
  }
}

/** Waits until these processes have ended; fails if they do not. */
export async function untilGone(pids: readonly number[]): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (pids.some((pid) => existsSync(`/proc/${pid}`))) {
    if (performance.now() > deadline) assert.fail(`still running: ${pids.join(', ')}`);
    await delay(5);
  }
}

/**
 * All files of a folder with their SHA-256, mode and owner, except what a mere reader of a WAL database leaves (-shm
 * and an empty -wal). Other things than files are named with their kind.
 */
export function folderState(folder: string): Record<string, string> {
  const entries = readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
  const state: Record<string, string> = {};
  for (const name of entries) {
    const path = join(folder, name);
    const stats = lstatSync(path);
    if (name.endsWith('-shm') || (name.endsWith('-wal') && stats.size === 0)) continue;
    const content = stats.isFile() ? sha256File(path) : `mode ${stats.mode.toString(8)}`;
    state[name] = `${content} ${(stats.mode & 0o7777).toString(8)} ${stats.uid} ${stats.ino}`;
  }
  return state;
}

/** The checkout may lie in root's home, or have been made under a strict umask. */
function mayBeReadByAll(path: string): boolean {
  const others = statSync(path).mode & (path === PROGRAM ? 0o004 : 0o005);
  if (others === 0) return false;
  for (let folder = dirname(path); folder !== dirname(folder); folder = dirname(folder)) {
    if ((statSync(folder).mode & 0o001) === 0) return false;
  }
  return true;
}

/** The command line that gives it a terminal. */
function onTerminal(args: readonly string[], columns: number = 80): string[] {
  const words = [process.execPath, PROGRAM, ...args].map(
    (word) => `'${word.replaceAll("'", String.raw`'\''`)}'`,
  );
  return [
    'script',
    '--quiet',
    '--return',
    '--command',
    `stty cols ${columns}; ${words.join(' ')}`,
    '/dev/null',
  ];
}

export function environment(options: CommandOptions): NodeJS.ProcessEnv {
  // The tests themselves may run in a unit of systemd, to which no service of theirs reports.
  const { NOTIFY_SOCKET: _socket, WATCHDOG_USEC: _usec, WATCHDOG_PID: _pid, ...own } = process.env;
  return { ...own, NODE_COMPILE_CACHE: COMPILE_CACHE, ...options.hold?.environment, ...options.env };
}
