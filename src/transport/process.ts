import { spawn } from 'node:child_process';
import type { ChildProcess, ChildProcessByStdio } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { SqlsyncError, sanitizeText, shortageError, systemErrorCode } from '../errors.ts';
import { freeChunk } from './chunk-memory.ts';
import { relayInput } from './relay-input.ts';
import { EXIT_CANNOT_RUN, cannotRun } from './silent-exit.ts';
import { StderrTail } from './stderr-tail.ts';
import type { Transport, TransportExit } from './transport.ts';

export interface ProcessOptions {
  /** An executable: a path, or a name to find on PATH. No shell is involved. */
  command: string;
  args: string[];
  /** For messages; by default `child process PID (COMMAND)`. */
  description?: string;
  /** The whole environment of the child; by default this process's. */
  env?: NodeJS.ProcessEnv;
  /** Terminates the child when it aborts; its input then fails with INTERRUPTED. */
  signal?: AbortSignal;
  /** Receives what the child writes to stderr, as it comes, sanitized. `exited` also holds the last part of it. */
  onStderr?: (text: string) => void;
  /**
   * Explains a child that ended without a byte on its stdout; `ssh` reports it in several ways. If it returns
   * undefined, the input just ends. By default 126 and 127, a shell's "cannot run that", are REMOTE_EXE_NOT_FOUND, and
   * 9, sqlsync's own "cannot run here", is NODE_UNSUPPORTED.
   */
  explainSilentExit?: (exit: TransportExit) => SqlsyncError | undefined;
  /** Explains why the child could not be started; by default REMOTE_EXE_NOT_FOUND, or SYSTEM_ERROR. */
  explainStart?: (error: Error) => SqlsyncError;
}

/** The time between asking a child to end and killing it. */
const TERMINATE_GRACE_MS = 2000;

/** How long stderr may stay open after the exit of the child: a grandchild may hold it for ever. */
const STDERR_GRACE_MS = 1000;

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

/**
 * Starts a child and talks to it over its stdin and stdout. When this process dies in any way, the child sees the end
 * of its stdin. A command that cannot be started is an 'error' on `input`.
 */
export function spawnProcess(options: ProcessOptions): Transport {
  const explainStart = options.explainStart ?? ((error: Error) => startError(options.command, error));
  const child = start(options, explainStart);
  const stderr = new StderrTail(child.stderr, options.onStderr);
  const exited = watchExit(child, stderr);
  const explain = options.explainSilentExit ?? ((exit) => explainSilence(options.command, exit));
  const input = relayInput(child.stdout, async (byteCount) =>
    byteCount === 0 ? explain(await exited) : undefined,
  );
  const terminate = once(() => {
    input.destroy();
    stop(child);
  });
  const onAbort = (): void => {
    input.destroy(interrupted(options.command));
    terminate();
  };
  child.on('error', (error) => input.destroy(explainStart(error)));
  child.stdin.on('error', () => {}); // EPIPE: `input` and `exited` report the end of the child
  options.signal?.addEventListener('abort', onAbort, { once: true });
  void exited.then(() => options.signal?.removeEventListener('abort', onAbort));
  if (options.signal?.aborted) onAbort();
  return {
    description: options.description ?? `child process ${child.pid ?? '(not started)'} (${options.command})`,
    input,
    output: child.stdin,
    freeChunk,
    exited,
    terminate,
  };
}

/**
 * Throws SqlsyncError if even the pipes to the child cannot be made: Node.js then emits an event for a child without
 * streams, or throws.
 */
function start(options: ProcessOptions, explain: (error: Error) => SqlsyncError): Child {
  let child: ChildProcess;
  try {
    child = spawn(options.command, options.args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      windowsHide: true,
      ...(options.env === undefined ? {} : { env: options.env }),
    });
  } catch (error) {
    throw error instanceof Error ? explain(error) : error;
  }
  if (hasStreams(child)) return child;
  child.on('error', () => {}); // the throw below reports it
  throw explain(Object.assign(new Error('no pipe could be made'), { code: 'EMFILE' }));
}

/** The types of Node.js claim that a child always has streams. */
function hasStreams(child: ChildProcess): child is Child {
  return [child.stdin, child.stdout, child.stderr].every((stream) => stream != null);
}

/** Settles when the child is gone and its stderr was read, or when it never started. */
function watchExit(child: Child, stderr: StderrTail): Promise<TransportExit> {
  const { promise, resolve } = Promise.withResolvers<TransportExit>();
  const settle = (): void => {
    resolve({ status: child.exitCode, signal: child.signalCode, stderr: stderr.text });
  };
  child.on('exit', () => {
    if (child.stderr.closed) return settle();
    child.stderr.once('close', settle);
    setTimeout(settle, STDERR_GRACE_MS).unref();
  });
  child.on('error', () => {
    // Node.js also emits this if a signal could not be sent; only a child without a pid never started.
    if (child.pid === undefined) resolve({ status: null, signal: null, stderr: stderr.text });
  });
  return promise;
}

function stop(child: Child): void {
  child.stdin.destroy();
  child.stdout.destroy();
  child.stderr.destroy();
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), TERMINATE_GRACE_MS).unref();
  child.once('exit', () => clearTimeout(timer));
}

function startError(command: string, error: Error): SqlsyncError {
  const shown = sanitizeText(command, 200);
  const code = systemErrorCode(error);
  if (code === 'ENOENT' || code === 'EACCES') {
    const why = code === 'ENOENT' ? 'was not found' : 'may not be executed';
    return new SqlsyncError('REMOTE_EXE_NOT_FOUND', `the command "${shown}" ${why}`, {
      hint: `Check that "${shown}" is installed, executable and on the PATH.`,
      cause: error,
    });
  }
  const what = `the command "${shown}" could not be started`;
  return (
    shortageError(what, error) ??
    new SqlsyncError('SYSTEM_ERROR', `${what}: ${error.message}`, {
      hint: 'Check the limits of this process and the system log.',
      cause: error,
    })
  );
}

function explainSilence(command: string, exit: TransportExit): SqlsyncError | undefined {
  if (exit.status === EXIT_CANNOT_RUN) return cannotRun(`"${sanitizeText(command, 200)}"`, exit);
  if (exit.status !== 126 && exit.status !== 127) return undefined;
  const detail = exit.stderr === '' ? '' : `: ${exit.stderr}`;
  return new SqlsyncError(
    'REMOTE_EXE_NOT_FOUND',
    `"${sanitizeText(command, 200)}" ended with status ${exit.status} before it sent anything${detail}`,
    { hint: 'Install sqlsync on the far side, or name its executable there with --remote-exe.' },
  );
}

function interrupted(command: string): SqlsyncError {
  return new SqlsyncError('INTERRUPTED', `"${sanitizeText(command, 200)}" was interrupted`, {
    hint: 'Run sqlsync again.',
  });
}

function once(action: () => void): () => void {
  let done = false;
  return () => {
    if (done) return;
    done = true;
    action();
  };
}
