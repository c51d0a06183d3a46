import { spawn } from 'node:child_process';
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { OpenOptions } from '../../backup/files/access.ts';
import { Password } from '../../backup/keys/password.ts';
import { throwIfAborted } from '../../backup/store-error.ts';
import { SqlsyncError, sanitizeText, systemErrorCode } from '../../errors.ts';
import { terminalAsk } from '../../transport/terminal.ts';
import type { OptionValues } from '../options/command.ts';
import type { Output } from '../terminal/output.ts';

/** More is no password, from a program that may never end. */
const MAX_OUTPUT_BYTES = 8192;

/** How often a pipe is looked at, and how long a pipe without a writer is waited for. */
const PIPE_LOOK_MS = 10;
const WRITER_WAIT_MS = 10_000;

const FILE = {
  value: 'FILE',
  describe: 'File with the password of the encrypted store (or SQLSYNC_PASSWORD_FILE)',
  more: 'The password is its one line. Without it, and without `--password-command`, sqlsync asks on the terminal.',
} as const;

const COMMAND = {
  value: 'COMMAND',
  describe: 'Shell command that prints the password of the encrypted store',
} as const;

type PasswordOptions = {
  readonly 'password-file': typeof FILE;
  readonly 'password-command': typeof COMMAND;
};

/** Never the password itself: everybody on the host can read the words of a command. */
export const PASSWORD_OPTIONS: PasswordOptions = { 'password-file': FILE, 'password-command': COMMAND };

const ACCEPT = {
  describe: 'Accept another store than the encrypted one that was here, or an older state of it',
  more: 'See [security.md](security.md#another-store-in-its-place).',
} as const;

/** The options of every command that opens a store. */
export const ACCESS_OPTIONS: PasswordOptions & { readonly 'accept-new-store': typeof ACCEPT } = {
  'password-file': FILE,
  'password-command': COMMAND,
  'accept-new-store': ACCEPT,
};

export type PasswordArguments = OptionValues<typeof PASSWORD_OPTIONS>;
export type AccessArguments = OptionValues<typeof ACCESS_OPTIONS> & {
  readonly noCache?: boolean;
  readonly dryRun?: boolean;
};

/** How to open one store. The password is asked for once, whatever a command opens the store for. */
export function storeAccessOf(
  args: AccessArguments,
  store: string,
  output: Output,
  signal?: AbortSignal,
): OpenOptions & { readonly password: Password | undefined } {
  return {
    password: givenPassword(args) ?? askedPassword(store),
    acceptNewStore: args.acceptNewStore,
    cache: args.noCache !== true,
    dryRun: args.dryRun,
    signal,
    onWarning: (warning) => output.warning(warning),
  };
}

/** The password that options, or else the environment, name. Throws SqlsyncError USAGE. */
export function givenPassword(args: Partial<PasswordArguments>): Password | undefined {
  const fallback = process.env['SQLSYNC_PASSWORD_FILE'] || undefined;
  const named = namedPassword(args);
  if (named !== undefined || fallback === undefined) return named;
  return new Password((signal) => lineIn(fallback, signal));
}

/** The password that options name. Throws SqlsyncError USAGE. */
export function namedPassword({
  passwordFile,
  passwordCommand,
}: Partial<PasswordArguments>): Password | undefined {
  if (passwordFile !== undefined && passwordCommand !== undefined)
    throw new SqlsyncError('USAGE', '--password-file and --password-command exclude each other', {
      hint: 'Give one of them.',
    });
  if (passwordCommand !== undefined) return new Password((signal) => printedBy(passwordCommand, signal));
  return passwordFile === undefined ? undefined : new Password((signal) => lineIn(passwordFile, signal));
}

/** A password that the user is asked for if the store is encrypted; undefined without a terminal. */
export function askedPassword(store: string): Password | undefined {
  const ask = terminalAsk();
  return ask && new Password(() => ask(`Password of the store ${store}: `, false), false);
}

/** A new password that the user types twice. Throws SqlsyncError STORE_PASSWORD without a terminal. */
export function typedPassword(what: string): Password {
  const ask = terminalAsk();
  if (ask === undefined)
    throw new SqlsyncError('STORE_PASSWORD', `The ${what} is missing, and there is no terminal to ask on`, {
      hint: 'Name a file that has it, or a command that prints it.',
    });
  return new Password(async () => {
    const text = await ask(`${what}: `, false);
    if ((await ask('The same again: ', false)) === text) return text;
    throw new SqlsyncError('STORE_PASSWORD', 'The two passwords differ', { hint: 'Run sqlsync again.' });
  });
}

/** Throws SqlsyncError STORE_PASSWORD, INTERRUPTED. */
async function lineIn(file: string, signal: AbortSignal | undefined): Promise<string> {
  let bytes: Buffer;
  try {
    bytes = await bytesIn(file, signal);
  } catch (error) {
    if (error instanceof SqlsyncError) throw error;
    const why = error instanceof Error ? error.message : String(error);
    throw new SqlsyncError('STORE_PASSWORD', `The password file cannot be read: ${sanitizeText(why, 400)}`, {
      hint: 'Name a file that this user can read, and nobody else.',
      cause: error,
    });
  }
  return oneLine(bytes, `The password file ${sanitizeText(file, 200)}`);
}

/**
 * The beginning of a file, more than any password has. A pipe, as of `<(pass show app)`, is waited for, but
 * never inside the system: no signal would end that. Throws the system's errors, and SqlsyncError INTERRUPTED.
 */
async function bytesIn(file: string, signal: AbortSignal | undefined): Promise<Buffer> {
  const descriptor = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const bytes = Buffer.alloc(MAX_OUTPUT_BYTES + 1);
    const isPipe = fstatSync(descriptor).isFIFO();
    const writerComesUntil = performance.now() + WRITER_WAIT_MS;
    for (let length = 0; ;) {
      const read = readNow(descriptor, bytes.subarray(length));
      length += read ?? 0;
      const isExpected = isPipe && length === 0 && performance.now() < writerComesUntil;
      if (length === bytes.length || (read === 0 && !isExpected)) return bytes.subarray(0, length);
      if (read === undefined || read === 0) await delay(PIPE_LOOK_MS);
      throwIfAborted(signal);
    }
  } finally {
    closeSync(descriptor);
  }
}

/** undefined if a writer has the pipe open and has written nothing more yet. */
function readNow(descriptor: number, into: Uint8Array): number | undefined {
  try {
    return readSync(descriptor, into);
  } catch (error) {
    if (systemErrorCode(error) === 'EAGAIN') return undefined;
    throw error;
  }
}

/**
 * What the command writes is shown nowhere; it may ask on the terminal itself, so it stays in the group of this process.
 */
function printedBy(command: string, signal: AbortSignal | undefined): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn('/bin/sh', ['-c', command], { stdio: ['inherit', 'pipe', 'inherit'] });
    const pieces: Buffer[] = [];
    let bytes = 0;
    // What the command itself started may go on with the pipe open: nothing waits for it.
    const end = (): void => {
      child.kill();
      child.stdout.destroy();
      child.unref();
    };
    const fail = (why: string): void =>
      reject(
        new SqlsyncError('STORE_PASSWORD', `The command of --password-command gave no password: ${why}`, {
          hint: 'Run the command by hand.',
        }),
      );
    const onAbort = (): void => {
      end();
      try {
        throwIfAborted(signal);
      } catch (error) {
        reject(error);
      }
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    child.stdout.on('data', (piece: Buffer) => {
      pieces.push(piece);
      bytes += piece.length;
      if (bytes <= MAX_OUTPUT_BYTES) return;
      end();
      fail(`it printed more than ${MAX_OUTPUT_BYTES} bytes`);
    });
    child.on('error', (error) => fail(error.message));
    child.on('close', (status, killedBy) => {
      signal?.removeEventListener('abort', onAbort);
      if (status !== 0) return fail(killedBy === null ? `status ${String(status)}` : killedBy);
      try {
        resolve(oneLine(Buffer.concat(pieces), 'What --password-command printed'));
      } catch (error) {
        reject(error);
      }
    });
  });
}

/** Throws SqlsyncError STORE_PASSWORD: a password ends with its line, and more lines are another file. */
function oneLine(bytes: Uint8Array, what: string): string {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    // Replaced by one and the same character, other bytes would make a weak password.
    throw new SqlsyncError('STORE_PASSWORD', `${what} is not UTF-8; expected one line, the password`, {
      hint: 'Random bytes can be written as text, as `base64` does.',
      cause: error,
    });
  }
  const line = text.replace(/\r?\n$/, '');
  if (line !== '' && !/[\r\n]/.test(line)) return line;
  throw new SqlsyncError(
    'STORE_PASSWORD',
    `${what} has ${line === '' ? 'no password' : 'more than one line'}; expected one line, the password`,
    { hint: 'Write the password there, and nothing else.' },
  );
}
