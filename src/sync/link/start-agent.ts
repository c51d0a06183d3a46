import { withFallback } from '../../transport/fallback.ts';
import { formatLocation } from '../../transport/location.ts';
import type { Location } from '../../transport/location.ts';
import { spawnProcess } from '../../transport/process.ts';
import { limitRate } from '../../transport/rate-limit.ts';
import { connectRsh } from '../../transport/rsh.ts';
import { connectSsh } from '../../transport/ssh/ssh.ts';
import type { SshOptions } from '../../transport/ssh/ssh.ts';
import type { Ask } from '../../transport/terminal.ts';
import { AnswerMemory, terminalAsk } from '../../transport/terminal.ts';
import { PATIENCE_FACTOR } from './heartbeat.ts';
import type { Transport } from '../../transport/transport.ts';
import { commandPath } from '../program.ts';

/** How to reach remote hosts. */
export interface RemoteOptions {
  /** The user's own remote shell, as rsync's `-e`, instead of the SSH built into sqlsync. */
  readonly rsh?: string | undefined;
  /** Another SSH configuration file, as `ssh -F`; `none` means no configuration. */
  readonly configFile?: string | undefined;
  /** The port of sshd; by default from the location or the configuration, or 22. */
  readonly port?: number | undefined;
  /** Hosts to go through, as `ssh -J`. */
  readonly jump?: string | undefined;
  /** Private keys, instead of the user's default ones. */
  readonly identityFiles?: readonly string[] | undefined;
  /** Files of trusted host keys, instead of `~/.ssh/known_hosts` and the system's. */
  readonly knownHostsFiles?: readonly string[] | undefined;
  /** Trust a host that known_hosts does not list, and write its key there. */
  readonly acceptNewHostKey?: boolean | undefined;
  /** The command that the remote shell runs; by default `sqlsync`. */
  readonly remoteExe?: string | undefined;
  /** How long connecting and logging in may take, in milliseconds. */
  readonly connectTimeoutMs?: number | undefined;
  /** The most bytes per second each way, to local agents too. */
  readonly bandwidthBytesPerS?: number | undefined;
}

export interface StartOptions {
  readonly remote: RemoteOptions;
  /** How to ask for passphrases and passwords; by default on the terminal, if there is one. */
  readonly ask?: Ask | undefined;
  readonly signal?: AbortSignal | undefined;
  /** What the far agent writes to its stderr, made safe to show. */
  readonly onStderr?: ((text: string) => void) | undefined;
  readonly onWarning?: ((text: string) => void) | undefined;
}

export type SshLocation = Extract<Location, { kind: 'ssh' }>;

export const DEFAULT_REMOTE_EXE = 'sqlsync';

/**
 * Where `sqlsync setup --install` puts the command: no PATH of a login need have it. Every login shell expands the
 * tilde.
 */
export const INSTALLED_EXE = '~/.local/bin/sqlsync';

/**
 * Starts a far agent at `location`: a child process here, or sqlsync on the other host. A database is never opened in
 * the process of an embedding application: closing any descriptor of it would drop the locks that the application's own
 * SQLite holds.
 */
export async function startAgent(location: Location, options: StartOptions): Promise<Transport> {
  const transport = await reachAgent(location, options);
  const { bandwidthBytesPerS } = options.remote;
  return bandwidthBytesPerS === undefined ? transport : limitRate(transport, bandwidthBytesPerS);
}

async function reachAgent(location: Location, options: StartOptions): Promise<Transport> {
  if (location.kind === 'ssh') return reachRemoteAgent(location, options);
  const { signal, onStderr } = options;
  return spawnProcess({
    command: process.execPath,
    args: [commandPath(), 'agent'],
    description: `the agent for ${formatLocation(location)}`,
    ...(signal === undefined ? {} : { signal }),
    ...(onStderr === undefined ? {} : { onStderr }),
  });
}

/** A password is asked for once, though the second attempt is a login of its own. */
async function reachRemoteAgent(location: SshLocation, options: StartOptions): Promise<Transport> {
  const exe = options.remote.remoteExe ?? DEFAULT_REMOTE_EXE;
  if (exe !== DEFAULT_REMOTE_EXE) return connectRemote(location, [exe, 'agent'], options);
  const ask = options.ask ?? terminalAsk();
  const answers = ask === undefined ? undefined : new AnswerMemory(ask);
  const reach = (command: string): Promise<Transport> =>
    connectRemote(location, [command, 'agent'], { ...options, ask: answers?.forNextLogin() });
  return withFallback(
    await reach(exe),
    () => reach(INSTALLED_EXE),
    () => options.onStderr?.(`no ${exe} is on the PATH of that login; ${INSTALLED_EXE} is used`),
  );
}

/** Runs a command on another host; the remote shell sees its words joined by spaces. Throws SqlsyncError. */
export async function connectRemote(
  location: SshLocation,
  command: readonly string[],
  options: StartOptions,
): Promise<Transport> {
  const { signal, onStderr, remote } = options;
  if (remote.rsh === undefined) return connectSsh(sshOptions(location, command, options));
  return connectRsh({
    rsh: remote.rsh,
    host: location.host,
    user: location.user,
    remoteCommand: [...command],
    ssh: { ...remote, port: remote.port ?? location.port },
    ...(signal === undefined ? {} : { signal }),
    ...(onStderr === undefined ? {} : { onStderr }),
  });
}

/** How the SSH built in runs a command on another host. */
export function sshOptions(
  { host, user, port }: SshLocation,
  command: readonly string[],
  { remote, ask, signal, onStderr, onWarning }: StartOptions,
): SshOptions {
  const { configFile, jump, identityFiles, knownHostsFiles, acceptNewHostKey, connectTimeoutMs } = remote;
  return {
    host,
    port: remote.port ?? port,
    user,
    configFile,
    jump,
    identityFiles,
    knownHostsFiles,
    acceptNewHostKey,
    connectTimeoutMs,
    ask,
    command: command.join(' '),
    signal,
    onStderr,
    onWarning,
  };
}

/** How long a user may take to type a password when `ssh` itself asks for it. */
const TYPING_MS = 120_000;

/**
 * How long the agent's greeting may take, in milliseconds; 0 means no limit. An agent on this host is a child process,
 * which only takes long if the host is overloaded.
 */
export function greetingTimeoutMs(location: Location, remote: RemoteOptions, idleTimeoutMs: number): number {
  if (location.kind === 'local') return idleTimeoutMs * PATIENCE_FACTOR;
  if (remote.connectTimeoutMs !== undefined) return remote.connectTimeoutMs;
  const asks = remote.rsh !== undefined && terminalAsk() !== undefined;
  return asks && idleTimeoutMs > 0 ? Math.max(idleTimeoutMs, TYPING_MS) : idleTimeoutMs;
}
