import { getCiphers } from 'node:crypto';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { userInfo } from 'node:os';
import type { Client, ConnectConfig } from 'ssh2';
import { SqlsyncError, sanitizeText, systemErrorCode } from '../errors.ts';
import { DEFAULT_SSH_PORT } from './known-hosts.ts';
import type { KnownHostsFile } from './known-hosts.ts';
import { SshAuthentication } from './ssh-auth.ts';
import { channelTransport, missingExecutable } from './ssh-channel.ts';
import { hostKeyAlgorithms, hostKeyFault, readKnownHosts, shellQuote } from './ssh-host-key.ts';
import type { Transport } from './transport.ts';

export interface SshOptions {
  host: string;
  /** By default 22. */
  port?: number;
  /** By default the name of the user who runs this process. */
  user?: string;
  /** Private keys to offer; by default those of ~/.ssh/id_ed25519, id_ecdsa and id_rsa that exist. */
  identityFiles?: string[];
  /** By default ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts. */
  knownHostsFiles?: string[];
  /** The socket of an SSH agent, false for none; by default SSH_AUTH_SOCK. */
  agentSocket?: string | false;
  /** A line for the remote shell, which says what to run. Never the path of a database. */
  command: string;
  /** For everything up to the start of the command; by default 20 s. */
  connectTimeoutMs?: number;
  /** The host is asked for a sign of life this often, and given up after three unanswered; by default 15 s. */
  keepaliveIntervalMs?: number;
  /** Aborts connecting (INTERRUPTED); of no effect afterwards. */
  signal?: AbortSignal;
  /** What the remote command writes to stderr, as it comes, sanitized. */
  onStderr?: (text: string) => void;
}

const DEFAULT_CONNECT_TIMEOUT_MS = 20_000;
const DEFAULT_KEEPALIVE_INTERVAL_MS = 15_000;
const KEEPALIVE_COUNT_MAX = 3;

/** Fastest first (measured: AES-128-GCM at twice the rate of ChaCha20); those that this OpenSSL lacks are left out. */
const CIPHERS = [
  ['aes128-gcm@openssh.com', 'aes-128-gcm'],
  ['aes256-gcm@openssh.com', 'aes-256-gcm'],
  ['chacha20-poly1305@openssh.com', 'chacha20'],
  ['aes128-ctr', 'aes-128-ctr'],
  ['aes192-ctr', 'aes-192-ctr'],
  ['aes256-ctr', 'aes-256-ctr'],
] as const;

type Phase = 'connecting' | 'negotiating' | 'authenticating' | 'starting the command';

/** One attempt to connect, from the socket to the started command. */
interface Attempt {
  options: SshOptions;
  user: string;
  port: number;
  /** `user@host`, with the port where it is not 22. */
  target: string;
  knownHosts: KnownHostsFile[];
  auth: SshAuthentication;
  phase: Phase;
  hostKeyFault: SqlsyncError | undefined;
}

/**
 * Logs in to a host, runs `command` there and talks to it over its stdin and stdout. Checks the host's key against
 * known_hosts before anything secret is sent, and asks the user for nothing.
 *
 * @throws {SqlsyncError} CONNECT_FAILED, HOST_KEY_UNKNOWN, HOST_KEY_MISMATCH, AUTH_FAILED, REMOTE_EXE_NOT_FOUND
 * (where the host refuses to run any command), CONNECTION_LOST, INTERRUPTED, USAGE. A command that is not there is
 * told later, as the error REMOTE_EXE_NOT_FOUND of `input`.
 */
export async function connectSsh(options: SshOptions): Promise<Transport> {
  const user = options.user ?? currentUser();
  const port = options.port ?? DEFAULT_SSH_PORT;
  const target = `${user}@${options.host}${port === DEFAULT_SSH_PORT ? '' : `:${port}`}`;
  if (options.signal?.aborted) throw interruptedError(target);
  const knownHosts = await readKnownHosts(options.knownHostsFiles);
  // Loaded here, so that a local sync does not pay for it.
  const ssh2 = (await import('ssh2')).default;
  const { identityFiles, agentSocket } = options;
  const auth = await SshAuthentication.plan(ssh2, { user, identityFiles, agentSocket });
  const attempt: Attempt = {
    options,
    user,
    port,
    target,
    knownHosts,
    auth,
    phase: 'connecting',
    hostKeyFault: undefined,
  };
  return openTransport(attempt, new ssh2.Client());
}

/** Either resolves with the transport, or destroys all and rejects: by a fault, the time limit, or the signal. */
function openTransport(attempt: Attempt, client: Client): Promise<Transport> {
  const { options, target } = attempt;
  const { promise, resolve, reject } = Promise.withResolvers<Transport>();
  const socket = connect({ host: options.host, port: attempt.port, noDelay: true });
  const timeoutMs = options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS;
  const timer = setTimeout(() => fail(timeoutError(attempt, timeoutMs)), timeoutMs);
  const onAbort = (): void => fail(interruptedError(target));
  const settle = (): void => {
    clearTimeout(timer);
    options.signal?.removeEventListener('abort', onAbort);
  };
  const fail = (error: SqlsyncError): void => {
    settle();
    reject(error);
    client.destroy();
    socket.destroy();
  };
  options.signal?.addEventListener('abort', onAbort, { once: true });
  if (options.signal?.aborted) onAbort();
  socket.on('error', (error) => attempt.phase === 'connecting' && fail(connectError(attempt, error)));
  socket.once('connect', () => {
    attempt.phase = 'negotiating';
    negotiate(attempt, client, socket, fail);
  });
  client.on('ready', () => {
    attempt.phase = 'starting the command';
    client.exec(options.command, (error, channel) => {
      if (error) return fail(execError(attempt, socket, error));
      settle();
      const { command, onStderr } = options;
      resolve(channelTransport({ description: `ssh ${target}`, command, client, socket, channel, onStderr }));
    });
  });
  return promise;
}

function negotiate(
  attempt: Attempt,
  client: Client,
  socket: Socket,
  fail: (error: SqlsyncError) => void,
): void {
  client.on('handshake', () => {
    if (attempt.phase === 'negotiating') attempt.phase = 'authenticating';
  });
  client.on('error', (error: Error & { level?: string }) => {
    const goesOn =
      error.level === 'agent' || (error.level === 'client-authentication' && !attempt.auth.exhausted);
    if (goesOn) attempt.auth.noteFault(error);
    else fail(clientError(attempt, error));
  });
  client.on('close', () => fail(clientError(attempt, undefined)));
  client.connect(clientConfig(attempt, socket));
}

function clientConfig(attempt: Attempt, socket: Socket): ConnectConfig {
  const { options, auth, knownHosts, port } = attempt;
  // ssh2 also takes the answer as a return value, and `false` for "nothing left", which its types do not say.
  const authHandler = (methodsLeft: string[] | null): unknown => auth.next(methodsLeft);
  return {
    sock: socket,
    username: attempt.user,
    authHandler,
    hostVerifier: (key: Buffer): boolean => {
      attempt.hostKeyFault = hostKeyFault(knownHosts, options.host, port, key);
      return attempt.hostKeyFault === undefined;
    },
    readyTimeout: 0, // the limit of `openTransport` covers all
    keepaliveInterval: options.keepaliveIntervalMs ?? DEFAULT_KEEPALIVE_INTERVAL_MS,
    keepaliveCountMax: KEEPALIVE_COUNT_MAX,
    algorithms: {
      serverHostKey: hostKeyAlgorithms(knownHosts, options.host, port),
      cipher: availableCiphers(),
      compress: ['none'],
    } as NonNullable<ConnectConfig['algorithms']>,
  };
}

function availableCiphers(): string[] {
  const available = new Set(getCiphers());
  return CIPHERS.filter(([, name]) => available.has(name)).map(([cipher]) => cipher);
}

function currentUser(): string {
  try {
    return userInfo().username;
  } catch (error) {
    // A user id without an entry in the system's list of users, as in some containers.
    const user = process.env['USER'] ?? process.env['LOGNAME'];
    if (user !== undefined && user !== '') return user;
    throw new SqlsyncError('USAGE', 'the user to log in as is not known; expected user@host', {
      hint: 'Write the user into the location, as in user@host:path.',
      cause: error,
    });
  }
}

/** A fault of the SSH client before the command was started; `undefined` where the connection just closed. */
function clientError(attempt: Attempt, error: (Error & { code?: unknown }) | undefined): SqlsyncError {
  if (attempt.hostKeyFault !== undefined) return attempt.hostKeyFault;
  const { phase, target, auth } = attempt;
  if (phase === 'authenticating') {
    // A number is the reason of the host's own goodbye, such as "too many authentication failures".
    if (auth.exhausted) return auth.failure(target, loginCommand(attempt));
    if (typeof error?.code === 'number') return auth.failure(target, loginCommand(attempt), error.message);
  }
  const detail = error === undefined ? 'the host closed the connection' : sanitizeText(error.message, 200);
  if (phase === 'starting the command') {
    return new SqlsyncError('CONNECTION_LOST', `${target}: ${detail} before the command was started`, {
      hint: 'Run the sync again.',
      cause: error,
    });
  }
  return new SqlsyncError('CONNECT_FAILED', `${target}: ${detail} while ${phase}; expected an SSH login`, {
    hint: 'Check that an SSH server answers there; settings of ~/.ssh/config are not read.',
    cause: error,
  });
}

/** The same login with OpenSSH, for the user to try. */
function loginCommand({ user, port, options }: Attempt): string {
  const option = port === DEFAULT_SSH_PORT ? '' : `-p ${port} `;
  return `ssh ${option}${shellQuote(`${user}@${options.host}`)}`;
}

function execError(attempt: Attempt, socket: Socket, error: Error): SqlsyncError {
  if (socket.destroyed) return clientError(attempt, error);
  const parts = { description: `ssh ${attempt.target}`, command: attempt.options.command };
  return missingExecutable(parts, { status: null, stderr: sanitizeText(error.message) });
}

function connectError(attempt: Attempt, error: Error): SqlsyncError {
  const code = systemErrorCode(error);
  const { host } = attempt.options;
  const [why, hint] =
    code === 'ENOTFOUND' || code === 'EAI_AGAIN'
      ? [
          `the host name could not be resolved (${code})`,
          'Give the real host name, user and --port: aliases of ~/.ssh/config are not read.',
        ]
      : code === 'ECONNREFUSED'
        ? [
            `port ${attempt.port} refused the connection`,
            'Check that an SSH server listens on that host and port.',
          ]
        : [
            `no connection to port ${attempt.port} (${code ?? error.message})`,
            'Check the host and the network.',
          ];
  return new SqlsyncError('CONNECT_FAILED', `${sanitizeText(host, 200)}: ${why}`, { hint, cause: error });
}

function timeoutError(attempt: Attempt, timeoutMs: number): SqlsyncError {
  return new SqlsyncError(
    'CONNECT_FAILED',
    `${attempt.target}: still ${attempt.phase} after ${timeoutMs / 1000} s; expected an SSH login by then`,
    { hint: 'Check that the host is up and that no firewall drops the connection, or allow more time.' },
  );
}

function interruptedError(target: string): SqlsyncError {
  return new SqlsyncError('INTERRUPTED', `connecting to ${target} was interrupted`, {
    hint: 'Run the sync again.',
  });
}
