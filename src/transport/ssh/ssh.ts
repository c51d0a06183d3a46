import type { Duplex } from 'node:stream';
import type { Client, ClientCallback } from 'ssh2';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { SshAuthentication } from './ssh-auth.ts';
import { missingExecutable } from '../silent-exit.ts';
import { channelTransport } from './ssh-channel.ts';
import type { HostConfig } from './ssh-config.ts';
import { HostKeyCheck } from './ssh-host-key.ts';
import type { Ssh2 } from './ssh-identity.ts';
import { SshLogin, clientError, establish, interruptedError, loginName } from './ssh-login.ts';
import { resolveRoute } from './ssh-route.ts';
import { terminalAsk } from '../terminal.ts';
import type { Ask } from '../terminal.ts';
import type { Login, Transport } from '../transport.ts';

export interface SshOptions {
  /** A name, an address, or an alias of the SSH configuration. */
  host: string;
  /** This option and the next ones override the configuration. */
  port?: number | undefined;
  user?: string | undefined;
  /** As `ssh -F`: another configuration file; `none` means no configuration. */
  configFile?: string | undefined;
  /** As `ssh -J`: hosts to go through, `[user@]host[:port]`, separated by commas. */
  jump?: string | undefined;
  /** Private keys to offer, also to jump hosts; before the configured ones. */
  identityFiles?: readonly string[] | undefined;
  /** The folder whose `.ssh` holds the default keys, offered if no keys are named; by default as OpenSSH. */
  home?: string | undefined;
  /** Known hosts files instead of the user's and the system's, also for jump hosts. New keys go to the first. */
  knownHostsFiles?: readonly string[] | undefined;
  /** Trust a host that known_hosts does not list, and write its key there (trust on first use). */
  acceptNewHostKey?: boolean | undefined;
  /** The socket of an SSH agent, false for none; by default the configured one, or SSH_AUTH_SOCK. */
  agentSocket?: string | false | undefined;
  /** A line for the remote shell: the command to run. Never contains the path of a database. */
  command: string;
  /** True if `command` names a subsystem of the SSH server, such as sftp. */
  isSubsystem?: boolean | undefined;
  /** The limit for each host, up to the start of the command; by default the configured time, or 20 s. */
  connectTimeoutMs?: number | undefined;
  /** How often to ask the host for a sign of life; after three without an answer it is given up. By default 15 s. */
  keepaliveIntervalMs?: number | undefined;
  /** How to ask for passphrases and passwords; by default on the terminal, if there is one. False means never. */
  ask?: Ask | false | undefined;
  /** Aborts connecting (INTERRUPTED); no effect afterwards. */
  signal?: AbortSignal | undefined;
  /** What the remote command writes to stderr, as it comes, sanitized. */
  onStderr?: ((text: string) => void) | undefined;
  /** What the user should know, such as a host key that is trusted from now on. */
  onWarning?: ((text: string) => void) | undefined;
}

const DEFAULT_CONNECT_TIMEOUT_MS = 20_000;
const DEFAULT_KEEPALIVE_INTERVAL_MS = 15_000;
const KEEPALIVE_COUNT_MAX = 3;
const CLOSE_GRACE_MS = 1000;

/**
 * Logs in to a host as OpenSSH would, through jump hosts if the configuration has them, runs `command` there and talks
 * to it over its stdin and stdout. Checks each host's key against known_hosts before it sends anything secret.
 *
 *     this process ── socket ── first jump host ── channel ── … ── channel ── host: command
 *
 * @throws {SqlsyncError} CONNECT_FAILED, HOST_KEY_UNKNOWN, HOST_KEY_MISMATCH, AUTH_FAILED, REMOTE_EXE_NOT_FOUND (if the
 * host refuses to run any command), CONNECTION_LOST, INTERRUPTED, USAGE. A missing command shows later, as the error
 * REMOTE_EXE_NOT_FOUND of `input`.
 */
export function connectSsh(options: SshOptions): Promise<Transport> {
  return reach(options, (place, closeBelow) =>
    startCommand(place, { closeBelow, another: () => startAnother(place) }),
  );
}

/** As `connectSsh`, for a command that runs several times: the login lasts until it is closed. */
export function loginSsh(options: SshOptions): Promise<Login> {
  return reach(options, async (place, closeBelow) => {
    const { client, socket } = place;
    client.on('close', closeBelow);
    let first: Transport | undefined = await startCommand(place, {});
    return {
      async run() {
        const started = first ?? (await startAnother(place));
        first = undefined;
        return started;
      },
      close() {
        client.destroy();
        socket.destroy();
        closeBelow();
      },
    };
  });
}

/** Logs in, and runs `open` on the connection within the time for the login. */
async function reach<T>(options: SshOptions, open: Open<T>): Promise<T> {
  if (options.signal?.aborted) throw interruptedError(options.host);
  const route = await resolveRoute(options, options.signal);
  // Loaded here, so that a local sync does not pay for it.
  const ssh2 = (await import('ssh2')).default;
  const passed: Client[] = [];
  let through: Duplex | undefined;
  try {
    for (const [i, config] of route.entries()) {
      const next = route[i + 1];
      if (next === undefined) break;
      through = await openWay(ssh2, options, { config, through, passed, next });
    }
    const config = route.at(-1) as HostConfig;
    return await logIn(ssh2, options, { config, through, passed }, open);
  } catch (error) {
    for (const client of passed) client.destroy();
    throw error;
  }
}

interface Step {
  config: HostConfig;
  through: Duplex | undefined;
  /** The connections below this one, from the first jump host on. */
  passed: Client[];
}

/** Logs in to a jump host, and opens the way from there to the next host. */
async function openWay(ssh2: Ssh2, options: SshOptions, step: Step & { next: HostConfig }): Promise<Duplex> {
  const { config, through, passed, next } = step;
  const { login, auth } = await prepare(ssh2, options, config);
  const client = new ssh2.Client();
  const way = await establish({
    login,
    auth,
    client,
    through,
    signal: options.signal,
    onAcceptedKey: (text) => options.onWarning?.(text),
    open: () =>
      new Promise<Duplex>((resolve, reject) => {
        client.forwardOut('127.0.0.1', 0, next.host, next.port, (error, channel) => {
          if (error) reject(jumpError(login.target, next, error));
          else resolve(channel);
        });
      }),
  });
  passed.push(client);
  return way;
}

/** Opens something on a connection; `closeBelow` ends the connections that it goes through. */
type Open<T> = (place: CommandPlace, closeBelow: () => void) => Promise<T>;

async function logIn<T>(ssh2: Ssh2, options: SshOptions, step: Step, open: Open<T>): Promise<T> {
  const { config, through, passed } = step;
  const { login, auth } = await prepare(ssh2, options, config);
  return establish({
    login,
    auth,
    client: new ssh2.Client(),
    through,
    signal: options.signal,
    onAcceptedKey: (text) => options.onWarning?.(text),
    open: (client, socket) => open({ options, login, auth, client, socket }, () => passed.forEach(closeSoon)),
  });
}

interface CommandPlace {
  readonly options: SshOptions;
  readonly login: SshLogin;
  readonly auth: SshAuthentication;
  readonly client: Client;
  readonly socket: Duplex;
}

interface ChannelUse {
  /** Undefined if the connection outlives the channel. */
  readonly closeBelow?: () => void;
  readonly another?: Transport['another'];
  /** True if the command has run over this connection. */
  readonly isFurther?: boolean;
}

async function startAnother(place: CommandPlace): Promise<Transport> {
  const { socket, login, auth } = place;
  if (socket.destroyed) throw clientError(login, auth, undefined);
  return startCommand(place, { isFurther: true });
}

/** Opens a channel of a connection, and starts the command there. */
function startCommand(
  { options, login, auth, client, socket }: CommandPlace,
  { closeBelow, another, isFurther = false }: ChannelUse,
): Promise<Transport> {
  const { command, onStderr, isSubsystem } = options;
  const description = `ssh ${login.target}`;
  return new Promise<Transport>((resolve, reject) => {
    const askedAt = performance.now();
    const opened: ClientCallback = (error, channel) => {
      if (error) {
        if (socket.destroyed) reject(clientError(login, auth, error));
        else if (isFurther) reject(noFurther(description, error));
        else if (isSubsystem === true) reject(noSubsystem(description, command, error));
        else
          reject(
            missingExecutable(
              { description, command },
              { status: null, stderr: sanitizeText(error.message) },
            ),
          );
        return;
      }
      // A channel was opened first, and then the command was started in it, which a busy host delays.
      const roundTripMs = Math.min(login.connectMs, (performance.now() - askedAt) / 2);
      const ends = { closeBelow, another };
      resolve(
        channelTransport({ description, command, client, socket, channel, roundTripMs, onStderr, ...ends }),
      );
    };
    if (isSubsystem === true) client.subsys(command, opened);
    else client.exec(command, opened);
  });
}

function noFurther(description: string, error: Error): SqlsyncError {
  return new SqlsyncError(
    'CONNECT_FAILED',
    `${description}: the host refuses a further channel: ${sanitizeText(error.message, 200)}`,
    { hint: 'MaxSessions in its sshd_config says how many one login may have.', cause: error },
  );
}

function noSubsystem(description: string, name: string, error: Error): SqlsyncError {
  return new SqlsyncError(
    'CONNECT_FAILED',
    `${description}: the host does not offer ${name}: ${sanitizeText(error.message, 200)}`,
    { hint: `Its sshd_config needs a line such as: Subsystem ${name} internal-${name}`, cause: error },
  );
}

/** Says goodbye, but does not wait long for a host that does not answer. */
function closeSoon(client: Client): void {
  client.end();
  setTimeout(() => client.destroy(), CLOSE_GRACE_MS).unref();
}

async function prepare(
  ssh2: Ssh2,
  options: SshOptions,
  config: HostConfig,
): Promise<{ login: SshLogin; auth: SshAuthentication }> {
  const hostKey = await HostKeyCheck.forHost(config, options);
  const login = new SshLogin(
    config,
    hostKey,
    options.connectTimeoutMs ?? config.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS,
    {
      intervalMs: options.keepaliveIntervalMs ?? config.keepaliveIntervalMs ?? DEFAULT_KEEPALIVE_INTERVAL_MS,
      countMax: config.keepaliveCountMax ?? KEEPALIVE_COUNT_MAX,
    },
  );
  const named =
    options.identityFiles === undefined
      ? config.identityFiles
      : [...options.identityFiles, ...(config.identityFiles ?? [])];
  const auth = await SshAuthentication.plan(ssh2, {
    user: config.user,
    target: loginName(config),
    identityFiles: named,
    home: options.home,
    identitiesOnly: config.identitiesOnly,
    agentSocket: options.agentSocket ?? config.agentSocket,
    allows: config.allows,
    ask: config.promptCount > 0 ? askFor(login, options.ask) : undefined,
    promptCount: config.promptCount,
    unused: config.unused,
  });
  return { login, auth };
}

/** The user's time does not count; a user who declines to answer ends the login. */
function askFor(login: SshLogin, given: Ask | false | undefined): Ask | undefined {
  const ask = given ?? terminalAsk();
  if (ask === undefined || ask === false) return undefined;
  return async (question, echo) => {
    login.timer.pause();
    try {
      return await ask(question, echo);
    } catch (error) {
      login.fail(interruptedError(login.target));
      throw error;
    } finally {
      login.timer.resume();
    }
  };
}

function jumpError(jumpHost: string, next: HostConfig, error: Error): SqlsyncError {
  return new SqlsyncError(
    'CONNECT_FAILED',
    `the jump host ${jumpHost} could not connect to ${next.host} port ${next.port}: ${sanitizeText(error.message, 200)}`,
    {
      hint: 'Check the host and the port as that host sees them, and that its sshd allows TCP forwarding.',
      cause: error,
    },
  );
}
