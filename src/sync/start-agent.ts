import { formatLocation } from '../transport/location.ts';
import type { Location } from '../transport/location.ts';
import { spawnProcess } from '../transport/process.ts';
import { connectSsh } from '../transport/ssh.ts';
import type { Transport } from '../transport/transport.ts';
import { commandPath } from './program.ts';

/** How remote hosts are reached. */
export interface RemoteOptions {
  /** Where sshd listens; by default what the location says, or 22. */
  readonly port?: number | undefined;
  /** Private keys, instead of the user's default ones. */
  readonly identityFiles?: readonly string[] | undefined;
  /** Files of trusted host keys, instead of `~/.ssh/known_hosts` and the system's. */
  readonly knownHostsFiles?: readonly string[] | undefined;
  /** What the remote shell runs; by default `sqlsync`. */
  readonly remoteExe?: string | undefined;
  /** How long connecting and logging in may take, in milliseconds. */
  readonly connectTimeoutMs?: number | undefined;
}

export interface StartOptions {
  readonly remote: RemoteOptions;
  readonly signal?: AbortSignal | undefined;
  /** What the far agent writes to its stderr, made safe to show. */
  readonly onStderr?: ((text: string) => void) | undefined;
}

const DEFAULT_REMOTE_EXE = 'sqlsync';

/**
 * Starts a far agent where `location` is: a child process here, or sqlsync on the other host. A database is never
 * opened in the process of an embedding application, where closing any descriptor of it would drop the locks that the
 * application's own SQLite holds.
 */
export async function startAgent(location: Location, options: StartOptions): Promise<Transport> {
  const { signal, onStderr, remote } = options;
  const common = {
    ...(signal === undefined ? {} : { signal }),
    ...(onStderr === undefined ? {} : { onStderr }),
  };
  if (location.kind === 'local') {
    return spawnProcess({
      command: process.execPath,
      args: [commandPath(), 'agent'],
      description: `the agent for ${formatLocation(location)}`,
      ...common,
    });
  }
  const port = remote.port ?? location.port;
  return connectSsh({
    host: location.host,
    command: `${remote.remoteExe ?? DEFAULT_REMOTE_EXE} agent`,
    ...(port === undefined ? {} : { port }),
    ...(location.user === undefined ? {} : { user: location.user }),
    ...(remote.identityFiles === undefined ? {} : { identityFiles: [...remote.identityFiles] }),
    ...(remote.knownHostsFiles === undefined ? {} : { knownHostsFiles: [...remote.knownHostsFiles] }),
    ...(remote.connectTimeoutMs === undefined ? {} : { connectTimeoutMs: remote.connectTimeoutMs }),
    ...common,
  });
}
