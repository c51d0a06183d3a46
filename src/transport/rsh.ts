import { execFile } from 'node:child_process';
import { basename } from 'node:path';
import { SqlsyncError, sanitizeText, shortageError } from '../errors.ts';
import { splitCommand } from './command-words.ts';
import { spawnProcess } from './process.ts';
import { explainOpenssh } from './rsh-exit.ts';
import { EXIT_CANNOT_RUN, SilentExit, cannotRun, missingExecutable } from './silent-exit.ts';
import type { Transport, TransportExit } from './transport.ts';

export interface RshOptions {
  /** The user's command, such as `ssh -p 2222`; split by {@link splitCommand}, run without a shell. */
  rsh: string;
  host: string;
  user?: string | undefined;
  /** The words after the host: the remote command. OpenSSH joins them with spaces for the remote shell. */
  remoteCommand: readonly string[];
  /** True if the remote command is the name of a subsystem of the SSH server, such as sftp. */
  isSubsystem?: boolean | undefined;
  /** Settings that only OpenSSH's own options can express; for other programs the user puts them into `rsh`. */
  ssh?: SshSettings | undefined;
  signal?: AbortSignal | undefined;
  onStderr?: ((text: string) => void) | undefined;
}

/** Settings that become options of `ssh`; its configuration holds for all others. */
export interface SshSettings {
  configFile?: string | undefined;
  port?: number | undefined;
  identityFiles?: readonly string[] | undefined;
  knownHostsFiles?: readonly string[] | undefined;
  /** As `ssh -J`. */
  jump?: string | undefined;
  connectTimeoutMs?: number | undefined;
  acceptNewHostKey?: boolean | undefined;
}

/**
 * Starts the user's own remote shell, as rsync's `-e` does, and talks to the remote command over its stdin and stdout:
 *
 *     ssh -p 2222                      [-l user] host sqlsync agent
 *     └─ rsh, split ─┘ └─ settings ─┘
 *
 * The remote shell itself asks the user on the terminal, if it must. `input` and `exited` report how it ends: before
 * the first byte, `input` has an 'error' CONNECT_FAILED, HOST_KEY_UNKNOWN, HOST_KEY_MISMATCH, AUTH_FAILED,
 * CONNECTION_LOST, REMOTE_EXE_NOT_FOUND or NODE_UNSUPPORTED.
 *
 * @throws {SqlsyncError} USAGE if `rsh` cannot be split, or cannot express a given setting.
 */
export async function connectRsh(options: RshOptions): Promise<Transport> {
  const { host, user, signal, onStderr } = options;
  const [program, ...given] = splitCommand(options.rsh);
  const settings = settingsOf(program, options.ssh ?? {});
  const login = user === undefined ? [] : ['-l', user];
  const subsystem = options.isSubsystem === true ? ['-s'] : [];
  if (isOpenssh(program)) {
    settings.push(...BYTE_STREAM);
    settings.push(...(await resolvedSettings(program, [...given, ...settings, ...login, host])));
  }
  const name = basename(program);
  const description = `${sanitizeText(name, 50)} ${user === undefined ? '' : `${user}@`}${host}`;
  const parts = { description, command: options.remoteCommand.join(' ') };
  return spawnProcess({
    command: program,
    // Before the settings: of two kinds of sessions `ssh` takes the first.
    args: [...given, ...subsystem, ...settings, ...login, host, ...options.remoteCommand],
    description,
    explainSilentExit: (exit) => explainExit(parts, exit, isOpenssh(program)),
    explainStart: (error) => startError(program, error),
    ...(signal === undefined ? {} : { signal }),
    ...(onStderr === undefined ? {} : { onStderr }),
  });
}

function isOpenssh(program: string): boolean {
  return /^ssh(\.exe)?$/i.test(basename(program));
}

/** The options of `ssh` that express `settings`. `ssh` uses the first value of an option, so those in `rsh` win. */
function settingsOf(program: string, settings: SshSettings): string[] {
  const { configFile, port, identityFiles, knownHostsFiles, jump, connectTimeoutMs } = settings;
  const options = [
    ...(configFile === undefined ? [] : ['-F', configFile]),
    ...(port === undefined ? [] : ['-p', String(port)]),
    ...(identityFiles ?? []).flatMap((file) => ['-i', file]),
    ...(jump === undefined ? [] : ['-J', jump]),
    ...(knownHostsFiles === undefined
      ? []
      : ['-o', `UserKnownHostsFile=${knownHostsFiles.map(configWord).join(' ')}`, '-o', NO_GLOBAL_FILE]),
    ...(settings.acceptNewHostKey === true ? ['-o', 'StrictHostKeyChecking=accept-new'] : []),
  ];
  if (!isOpenssh(program)) {
    if (options.length === 0) return [];
    throw new SqlsyncError(
      'USAGE',
      `--rsh ${sanitizeText(basename(program), 50)} cannot take the given port, keys, known hosts, jump hosts or configuration; only ssh can`,
      { hint: 'Put them into the --rsh command itself, as options of that program.' },
    );
  }
  if (connectTimeoutMs !== undefined) {
    options.push('-o', `ConnectTimeout=${Math.max(1, Math.round(connectTimeoutMs / 1000))}`);
  }
  return options;
}

/**
 * Switches off what a user's configuration sets for a login by hand, and what would put other bytes into the stream or
 * run another command; scp does the same.
 */
const BYTE_STREAM = [
  '-T',
  ...['RemoteCommand=none', 'RequestTTY=no', 'PermitLocalCommand=no', 'ClearAllForwardings=yes'].flatMap(
    (setting) => ['-o', setting],
  ),
];

/** More of that kind, for OpenSSH 8.7 and later: older ones refuse them. */
const NEWER_SETTINGS = [
  ['stdinnull', 'StdinNull=no'],
  ['sessiontype', 'SessionType=default'],
  ['forkafterauthentication', 'ForkAfterAuthentication=no'],
] as const;

/**
 * Options that depend on what `ssh` reports about itself and the user's configuration. OpenSSH never notices a silent
 * host that is gone unless it probes, so this sets that if the user did not. If `ssh -G` fails, the login will fail
 * too, with a better message.
 */
async function resolvedSettings(program: string, words: string[]): Promise<string[]> {
  const resolved = await new Promise<string>((resolve) => {
    const child = execFile(program, ['-G', ...words], { timeout: SSH_G_TIMEOUT_MS }, (error, stdout) =>
      resolve(error === null ? stdout : ''),
    );
    child.stdin?.end();
  });
  const newer = NEWER_SETTINGS.filter(([name]) => new RegExp(`^${name} `, 'm').test(resolved));
  const isForEver = /^serveraliveinterval 0$/m.test(resolved);
  return [
    ...newer.flatMap(([, setting]) => ['-o', setting]),
    ...(isForEver
      ? ['-o', `ServerAliveInterval=${KEEPALIVE_INTERVAL_S}`, '-o', 'ServerAliveCountMax=3']
      : []),
  ];
}

const KEEPALIVE_INTERVAL_S = 15;
const SSH_G_TIMEOUT_MS = 20_000;

const NO_GLOBAL_FILE = 'GlobalKnownHostsFile=none';

/** A word of a line of ssh_config: quoted, with `%` doubled because it starts a token there. */
export function configWord(text: string): string {
  return `"${text.replaceAll('%', '%%').replaceAll('"', '\\"')}"`;
}

function explainExit(
  parts: { description: string; command: string },
  exit: TransportExit,
  openssh: boolean,
): SqlsyncError | undefined {
  if (exit.status === 126 || exit.status === 127) return missingExecutable(parts, exit);
  if (exit.status === EXIT_CANNOT_RUN) return cannotRun(parts.description, exit);
  if (exit.status !== 255) return undefined;
  // Another program is usually a script that ends with `ssh`.
  return explainOpenssh(parts.description, exit.stderr, openssh ? undefined : new SilentExit(exit.status));
}

function startError(program: string, error: Error): SqlsyncError {
  const shown = sanitizeText(program, 200);
  const shortage = shortageError(`the --rsh command "${shown}" could not be started`, error);
  if (shortage !== undefined) return shortage;
  return new SqlsyncError(
    'CONNECT_FAILED',
    `the --rsh command "${shown}" could not be started: ${error.message}`,
    { hint: `Check that "${shown}" is installed, executable and on the PATH.`, cause: error },
  );
}
