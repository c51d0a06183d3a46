import type { WarningKind } from '../sync/request/announcements.ts';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { errorFromData, SqlsyncError } from '../errors.ts';
import type { FailureOutcome } from '../errors.ts';
import { commandPath } from '../sync/program.ts';
import type { FollowFailure, FollowStep } from '../sync/follow/follow.ts';
import type { CopyProgress } from '../sync/agents/page-copy.ts';
import { EXIT_CANNOT_RUN } from '../transport/silent-exit.ts';
import { StderrTail } from '../transport/stderr-tail.ts';
import { childEnvironment } from './environment.ts';
import { CHILD_ARGUMENTS } from './messages.ts';
import type { Report, Request, Task, TaskName, Tasks } from './messages.ts';

/** The application's callbacks, and its signal to end the task. */
export interface Listeners {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: CopyProgress) => void) | undefined;
  readonly onWarning?: ((warning: string, kind: WarningKind) => void) | undefined;
  readonly onNote?: ((note: string) => void) | undefined;
  readonly onStep?: ((step: FollowStep) => void) | undefined;
  readonly onFailure?: ((failure: FollowFailure) => void) | undefined;
}

type Summary = Tasks[TaskName]['summary'];

/**
 * The time between asking the child to end and killing it: it may be in the middle of a commit, or have to end its
 * agent.
 */
const ABORT_GRACE_MS = 5000;

/** How long a child that has reported its result may take to exit. */
const EXIT_GRACE_MS = 2000;

/** How long the stderr of an exited child may stay open: a process that it started may hold it. */
const STDERR_GRACE_MS = 1000;

/** The exit status of bin/sqlsync.js after an uncaught error. */
const EXIT_INTERNAL = 70;

/**
 * Runs one task in a child process, so that no database is opened in this one: closing a descriptor on it would drop
 * the locks of every connection that the application has to it, and two copies of SQLite in one process do that to each
 * other.
 *
 *     application ── start(task) ──► child ── stdin, stdout ──► agents
 *                 ◄─ progress, warning, note ─
 *                 ◄─ result or error ─         then the child exits, and only then the promise settles
 *
 * The child ends when its IPC channel closes, and so with the application, however that ends.
 */
export async function runInChild<N extends TaskName>(
  task: Extract<Task, { name: N }>,
  listeners: Listeners,
): Promise<Tasks[N]['summary']> {
  if (listeners.signal?.aborted === true) throw aborted(task, listeners.signal);
  const program = commandPath();
  if (!existsSync(program)) {
    throw new SqlsyncError(
      'NODE_UNSUPPORTED',
      `bin/sqlsync.js was not found in the folders above ${import.meta.dirname}`,
      {
        hint: 'Keep the package sqlsync-db out of your bundle (external): it starts processes from its own files.',
      },
    );
  }
  return new ChildRun(start(program, task), task, listeners).settled;
}

/** `spawn`, since `fork` passes on the application's own Node.js options, such as --inspect-brk and --test. */
function start(program: string, task: Task): ChildProcess {
  try {
    return spawn(process.execPath, [program, ...CHILD_ARGUMENTS], {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      serialization: 'advanced',
      windowsHide: true,
      env: childEnvironment(process.env),
    });
  } catch (error) {
    throw notStarted(task, error);
  }
}

class ChildRun {
  readonly settled: Promise<Summary>;
  readonly #child: ChildProcess;
  readonly #task: Task;
  readonly #listeners: Listeners;
  readonly #stderr: StderrTail | undefined;
  readonly #resolvers = Promise.withResolvers<Summary>();
  #outcome: Extract<Report, { type: 'result' | 'error' }> | undefined;
  /** The error that a function of the application threw. */
  #thrown: { readonly error: unknown } | undefined;
  #killTimer: NodeJS.Timeout | undefined;
  #killed = false;

  constructor(child: ChildProcess, task: Task, listeners: Listeners) {
    this.settled = this.#resolvers.promise;
    this.#child = child;
    this.#task = task;
    this.#listeners = listeners;
    this.#stderr = child.stderr === null ? undefined : new StderrTail(child.stderr);
    child.on('message', (report: Report) => this.#onReport(report));
    child.on('error', (error) => {
      // Node.js also emits this if a message or a signal could not be sent; only a child without a pid never started.
      if (child.pid === undefined) this.#settle(() => this.#resolvers.reject(notStarted(task, error)));
    });
    child.on('exit', () => setTimeout(() => child.stderr?.destroy(), STDERR_GRACE_MS).unref());
    // Its last messages may be read after its exit is known.
    const ended = [once(child, 'close'), once(child, 'disconnect')];
    void Promise.all(ended).then(() => this.#settle(() => this.#conclude()));
    this.#send({ type: 'start', task });
    listeners.signal?.addEventListener('abort', this.#askToEnd, { once: true });
  }

  #onReport(report: Report): void {
    if (this.#thrown !== undefined) return;
    try {
      switch (report.type) {
        case 'progress':
          return this.#listeners.onProgress?.(report.progress);
        case 'warning':
          return this.#listeners.onWarning?.(report.text, report.kind);
        case 'note':
          return this.#listeners.onNote?.(report.text);
        case 'step':
          return this.#listeners.onStep?.(report.step);
        case 'failure':
          return this.#listeners.onFailure?.({
            failure: errorFromData(report.error) as SqlsyncError,
            pauseMs: report.pauseMs,
          });
        case 'result':
        case 'error':
          this.#outcome = report;
          return this.#killAfter(EXIT_GRACE_MS);
      }
    } catch (error) {
      this.#thrown = { error };
      this.#askToEnd();
    }
  }

  readonly #askToEnd = (): void => {
    if (this.#outcome !== undefined) return;
    this.#send({ type: 'abort' });
    this.#killAfter(ABORT_GRACE_MS);
  };

  #killAfter(ms: number): void {
    clearTimeout(this.#killTimer);
    this.#killTimer = setTimeout(() => {
      this.#killed = true;
      this.#child.kill('SIGKILL');
    }, ms);
  }

  /** If the message cannot be sent, the child has ended, and its end explains why. */
  #send(request: Request): void {
    this.#child.send(request, () => {});
  }

  #settle(conclude: () => void): void {
    clearTimeout(this.#killTimer);
    this.#listeners.signal?.removeEventListener('abort', this.#askToEnd);
    conclude();
  }

  #conclude(): void {
    const { resolve, reject } = this.#resolvers;
    const signal = this.#listeners.signal;
    const outcome = this.#outcome;
    const wasAborted = signal?.aborted === true;
    if (this.#thrown !== undefined) reject(this.#thrown.error);
    else if (outcome?.type === 'result') resolve(outcome.summary);
    else if (outcome === undefined) {
      reject(
        wasAborted && (this.#killed || this.#wasAskedToEnd())
          ? aborted(this.#task, signal, outcomeOfLoss(this.#task))
          : this.#lost(),
      );
    } else if (wasAborted && outcome.error.code === 'INTERRUPTED') {
      reject(aborted(this.#task, signal, outcome.error.outcome));
    } else reject(errorFromData(outcome.error));
  }

  /** Ctrl-C at the application's terminal ends a child that does not ignore it yet. */
  #wasAskedToEnd(): boolean {
    return ['SIGINT', 'SIGTERM', 'SIGHUP'].includes(this.#child.signalCode ?? '');
  }

  /** The child ended without a report. */
  #lost(): SqlsyncError {
    const { exitCode, signalCode } = this.#child;
    const said = this.#stderr?.text ?? '';
    const detail = said === '' ? '' : `: ${said}`;
    if (exitCode === EXIT_CANNOT_RUN) {
      return new SqlsyncError(
        'NODE_UNSUPPORTED',
        `The child process of ${this.#task.name}() cannot run${detail}`,
      );
    }
    if (exitCode === EXIT_INTERNAL) {
      return new SqlsyncError('INTERNAL', `The child process of ${this.#task.name}() failed${detail}`, {
        hint: `${whatIsLeft(this.#task)} This is a bug in sqlsync: please report it.`,
      });
    }
    const how = signalCode === null ? `ended with status ${exitCode}` : `was killed by ${signalCode}`;
    return new SqlsyncError(
      'WORKER_LOST',
      `The child process of ${this.#task.name}() ${how} before it was done${detail}`,
      { hint: `${whatIsLeft(this.#task)} Run it again.`, outcome: outcomeOfLoss(this.#task) },
    );
  }
}

function once(child: ChildProcess, event: 'close' | 'disconnect'): Promise<void> {
  return new Promise((resolve) => child.once(event, () => resolve()));
}

function aborted(task: Task, signal: AbortSignal, outcome?: FailureOutcome): SqlsyncError {
  return new SqlsyncError('INTERRUPTED', `${task.name}() was aborted`, {
    hint: whatIsLeft(task),
    cause: signal.reason,
    outcome,
  });
}

function notStarted(task: Task, error: unknown): SqlsyncError {
  const why = error instanceof Error ? error.message : String(error);
  return new SqlsyncError('WORKER_LOST', `The child process of ${task.name}() could not be started: ${why}`, {
    hint: 'Nothing was changed. Check that this process may start others: memory, limits on processes, --permission.',
    cause: error,
  });
}

function outcomeOfLoss(task: Task): FailureOutcome | undefined {
  return isReadOnly(task) ? undefined : 'unknown';
}

function isReadOnly(task: Task): boolean {
  if (task.name === 'backup' || task.name === 'follow' || task.name === 'followStore') return false;
  return task.name === 'verify' || task.options.dryRun === true;
}

function whatIsLeft(task: Task): string {
  if (task.name === 'backup')
    return 'The store is as usable as before; what was written is used by the next backup.';
  if (isReadOnly(task)) return 'Nothing was written.';
  return 'The replica is the old or the new snapshot, whole; what has arrived of a new one is kept.';
}
