import { getCiphers } from 'node:crypto';
import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Client, ConnectConfig } from 'ssh2';
import { SqlsyncError, sanitizeText, systemErrorCode, toSqlsyncError } from '../../errors.ts';
import { shellQuote } from '../command-words.ts';
import { DEFAULT_SSH_PORT } from './known-hosts.ts';
import { allowedAlgorithms } from './ssh-algorithms.ts';
import type { SshAlgorithms } from './ssh-algorithms.ts';
import type { SshAuthentication } from './ssh-auth.ts';
import { freeReceived, prepareCiphers } from './ssh-ciphers.ts';
import type { HostConfig } from './ssh-config.ts';
import type { HostKeyCheck } from './ssh-host-key.ts';
import { PausableTimer } from './pausable-timer.ts';
import { observeRefusals } from './ssh-refusals.ts';

type Phase = 'connecting' | 'negotiating' | 'authenticating' | 'starting the command';

/** One attempt to log in to one host, from the socket to what is opened there. */
export class SshLogin {
  readonly config: HostConfig;
  /** `user@host`, with the port if it is not 22. */
  readonly target: string;
  /** The same login with OpenSSH, for the user to try. */
  readonly command: string;
  readonly hostKey: HostKeyCheck;
  readonly timeoutMs: number;
  readonly keepalive: { intervalMs: number; countMax: number };
  phase: Phase = 'connecting';
  /** How long the socket took to connect: a round trip, and the look-up of the name. Infinity over a jump host. */
  connectMs: number = Infinity;
  /** Stands still while the user is asked. */
  readonly timer: PausableTimer = new PausableTimer();
  /** Ends the attempt; set while it runs. */
  fail: (error: SqlsyncError) => void = () => {};

  constructor(
    config: HostConfig,
    hostKey: HostKeyCheck,
    timeoutMs: number,
    keepalive: SshLogin['keepalive'],
  ) {
    const { alias, user, port } = config;
    const option = port === DEFAULT_SSH_PORT ? '' : `-p ${port} `;
    this.config = config;
    this.target = loginName(config);
    this.command = `ssh ${option}${shellQuote(`${user}@${alias}`)}`;
    this.hostKey = hostKey;
    this.timeoutMs = timeoutMs;
    this.keepalive = keepalive;
  }
}

export function loginName({ user, alias, port }: HostConfig): string {
  return `${user}@${alias}${port === DEFAULT_SSH_PORT ? '' : `:${port}`}`;
}

export interface EstablishOptions<T> {
  login: SshLogin;
  auth: SshAuthentication;
  client: Client;
  /** The way through the host before this one; undefined for a direct socket. */
  through: Duplex | undefined;
  signal: AbortSignal | undefined;
  onAcceptedKey: (text: string) => void;
  /** Opens what the caller needs on the host, after the login. */
  open: (client: Client, socket: Duplex) => Promise<T>;
}

/**
 * Fastest first, by their names in SSH and in OpenSSL, which may lack some. Measured by the CPU time of this process
 * for the same bytes, sent and received, against AES-GCM, whose key sizes cost the same: CTR at least 1.3 times, ChaCha20 1.9.
 */
const CIPHERS = [
  ['aes128-gcm@openssh.com', 'aes-128-gcm'],
  ['aes256-gcm@openssh.com', 'aes-256-gcm'],
  ['aes128-ctr', 'aes-128-ctr'],
  ['aes192-ctr', 'aes-192-ctr'],
  ['aes256-ctr', 'aes-256-ctr'],
  ['chacha20-poly1305@openssh.com', 'chacha20'],
] as const;

/**
 * Resolves with what `open` opened, or destroys everything and rejects: after a fault, the time limit, or the signal.
 */
export function establish<T>(options: EstablishOptions<T>): Promise<T> {
  const { login, client, through, signal } = options;
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const socket = through ?? connectSocket(login.config);
  const onAbort = (): void => login.fail(interruptedError(login.target));
  const settle = (): void => {
    login.timer.stop();
    signal?.removeEventListener('abort', onAbort);
  };
  login.fail = (error) => {
    settle();
    reject(error);
    client.destroy();
    socket.destroy();
  };
  login.timer.start(login.timeoutMs, () => login.fail(timeoutError(login)));
  signal?.addEventListener('abort', onAbort, { once: true });
  if (signal?.aborted) onAbort();
  socket.on('error', (error) => login.phase === 'connecting' && login.fail(connectError(login, error)));
  client.on('ready', () => {
    login.phase = 'starting the command';
    options
      .open(client, socket)
      .then(resolve, (error: unknown) => login.fail(toSqlsyncError(error)))
      .finally(settle);
  });
  const startedAt = performance.now();
  if (through !== undefined) negotiate(options, socket);
  else
    socket.once('connect', () => {
      login.connectMs = performance.now() - startedAt;
      negotiate(options, socket);
    });
  return promise;
}

function connectSocket({ host, port, addressFamily }: HostConfig): Duplex {
  return connect({ host, port, noDelay: true, family: addressFamily });
}

function negotiate<T>(options: EstablishOptions<T>, socket: Duplex): void {
  const { client, auth, login } = options;
  login.phase = 'negotiating';
  client.on('handshake', () => {
    prepareCiphers(client, socket);
    if (login.phase !== 'negotiating') return; // a later exchange of keys
    freeReceived(client, socket);
    login.phase = 'authenticating';
    try {
      // The host has now proved that it holds the key; nothing secret was sent to it yet.
      const added = login.hostKey.remember();
      if (added !== undefined) options.onAcceptedKey(added);
    } catch (error) {
      login.fail(toSqlsyncError(error));
    }
  });
  client.on('error', (error: Error & { level?: string }) => {
    const goesOn = error.level === 'agent' || (error.level === 'client-authentication' && !auth.exhausted);
    if (goesOn) auth.noteFault(error);
    else login.fail(clientError(login, auth, error));
  });
  client.on('close', () => login.fail(clientError(login, auth, undefined)));
  try {
    client.connect(clientConfig(login, auth, socket));
    observeRefusals(client, (methodsLeft) => auth.noteMethodsLeft(methodsLeft));
  } catch (error) {
    login.fail(toSqlsyncError(error));
  }
}

function clientConfig(login: SshLogin, auth: SshAuthentication, socket: Duplex): ConnectConfig {
  const { config, hostKey, keepalive } = login;
  // ssh2 also takes `false` for "nothing left", and passes null for "not known yet"; its types lack both.
  const authHandler = (methodsLeft: string[] | null, _partial: unknown, next: NextMethod): void => {
    void offerNext(login, auth, methodsLeft, next);
  };
  return {
    sock: socket,
    username: config.user,
    authHandler: authHandler as NonNullable<ConnectConfig['authHandler']>,
    hostVerifier: (key: Buffer): boolean => hostKey.accepts(key),
    readyTimeout: 0, // the limit of `establish` covers all
    keepaliveInterval: keepalive.intervalMs,
    keepaliveCountMax: keepalive.countMax,
    algorithms: {
      serverHostKey: hostKey.algorithms(),
      ...algorithmsOf(login),
      compress: ['none'],
    } as NonNullable<ConnectConfig['algorithms']>,
  };
}

type NextMethod = (method: unknown) => void;

async function offerNext(
  login: SshLogin,
  auth: SshAuthentication,
  methodsLeft: string[] | null,
  next: NextMethod,
): Promise<void> {
  try {
    next(await auth.next(methodsLeft));
  } catch (error) {
    login.fail(toSqlsyncError(error));
  }
}

function algorithmsOf({ config, target }: SshLogin): SshAlgorithms {
  const available = new Set(getCiphers());
  const ciphers = CIPHERS.filter(([, name]) => available.has(name)).map(([cipher]) => cipher);
  return allowedAlgorithms(config, ciphers, target);
}

/**
 * The error for a fault of the SSH client before anything was opened; `error` is undefined if the connection just
 * closed.
 */
export function clientError(
  login: SshLogin,
  auth: SshAuthentication,
  error: (Error & { code?: unknown }) | undefined,
): SqlsyncError {
  if (login.hostKey.fault !== undefined) return login.hostKey.fault;
  const { phase, target } = login;
  if (phase === 'authenticating') {
    // A number is the reason of the host's own goodbye, such as "too many authentication failures".
    if (auth.exhausted) return auth.failure(target, login.command);
    if (typeof error?.code === 'number') return auth.failure(target, login.command, error.message);
  }
  const detail = error === undefined ? 'the host closed the connection' : sanitizeText(error.message, 200);
  if (phase === 'starting the command') {
    return new SqlsyncError('CONNECTION_LOST', `${target}: ${detail} before the command was started`, {
      hint: 'Run sqlsync again.',
      cause: error,
    });
  }
  return new SqlsyncError('CONNECT_FAILED', `${target}: ${detail} while ${phase}; expected an SSH login`, {
    hint: `Check that an SSH server answers there, and whether \`${login.command}\` logs in. If it does, add \`--rsh ssh\`.`,
    cause: error,
  });
}

function connectError(login: SshLogin, error: Error): SqlsyncError {
  const code = systemErrorCode(error);
  const { host, port } = login.config;
  const [why, hint] =
    code === 'ENOTFOUND' || code === 'EAI_AGAIN'
      ? [
          `the host name could not be resolved (${code})`,
          'Check the name; an alias needs a HostName in your SSH configuration.',
        ]
      : code === 'ECONNREFUSED'
        ? [`port ${port} refused the connection`, 'Check that an SSH server listens on that host and port.']
        : [`no connection to port ${port} (${code ?? error.message})`, 'Check the host and the network.'];
  return new SqlsyncError('CONNECT_FAILED', `${sanitizeText(host, 200)}: ${why}`, { hint, cause: error });
}

function timeoutError({ target, phase, timeoutMs }: SshLogin): SqlsyncError {
  return new SqlsyncError(
    'CONNECT_FAILED',
    `${target}: still ${phase} after ${timeoutMs / 1000} s; expected an SSH login by then`,
    {
      hint: 'Check that the host is up and that no firewall drops the connection, or allow more time with --connect-timeout.',
    },
  );
}

export function interruptedError(target: string): SqlsyncError {
  return new SqlsyncError('INTERRUPTED', `connecting to ${target} was interrupted`, {
    hint: 'Run sqlsync again.',
  });
}
