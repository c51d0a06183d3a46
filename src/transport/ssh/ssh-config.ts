import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { hostname, userInfo } from 'node:os';
import { join } from 'node:path';
import { SqlsyncError, sanitizeText, systemErrorCode } from '../../errors.ts';
import { DEFAULT_SSH_PORT } from './known-hosts.ts';
import { sshHome } from './ssh-home.ts';

/** A host as the user names it, with the options that override the configuration. */
export interface HostRequest {
  host: string;
  port?: number | undefined;
  user?: string | undefined;
  /** As `ssh -F`: another configuration file; `none` means no configuration. */
  configFile?: string | undefined;
  /** As `ssh -J`: the hosts to go through, separated by commas, with tokens (%h, …); `none` means none. */
  jump?: string | undefined;
}

/** How OpenSSH would reach a host, as far as sqlsync can do the same. */
export interface HostConfig {
  /** As the user named it. */
  alias: string;
  /** Name or address to connect to. */
  host: string;
  port: number;
  user: string;
  /** Configured private keys; undefined if OpenSSH would try its default ones. */
  identityFiles: string[] | undefined;
  /** True to use only the keys of `identityFiles`, whatever else the agent holds. */
  identitiesOnly: boolean;
  /** The agent's socket, or false for none. */
  agentSocket: string | false;
  knownHostsFiles: string[];
  /** The file for new host keys; undefined if none is configured. */
  newHostKeysFile: string | undefined;
  hashKnownHosts: boolean;
  /** The name of this host in known_hosts, without a port, if it is another one. */
  hostKeyAlias: string | undefined;
  /** The allowed algorithms, best first; undefined for sqlsync's own. */
  hostKeyAlgorithms: string[] | undefined;
  ciphers: string[] | undefined;
  kexAlgorithms: string[] | undefined;
  macs: string[] | undefined;
  /** Hosts to go through, `[user@]host[:port]`, separated by commas. */
  jump: string | undefined;
  /** 0: IPv4 or IPv6. */
  addressFamily: 0 | 4 | 6;
  connectTimeoutMs: number | undefined;
  keepaliveIntervalMs: number | undefined;
  keepaliveCountMax: number | undefined;
  allows: { publicKey: boolean; password: boolean; keyboardInteractive: boolean };
  /** How often the user may be asked for one secret; 0 means never (BatchMode). */
  promptCount: number;
  /** What OpenSSH would use to log in but sqlsync cannot, for messages. */
  unused: string[];
}

/** `ssh -G` takes 10 ms, unless a `Match exec` or a name to canonicalize hangs. */
const SSH_G_TIMEOUT_MS = 20_000;

const DEFAULT_KNOWN_HOSTS = ['~/.ssh/known_hosts', '~/.ssh/known_hosts2'];
const DEFAULT_GLOBAL_KNOWN_HOSTS = '/etc/ssh/ssh_known_hosts';

/**
 * Resolves a host with `ssh -G`, so that aliases, `Match`, `Include` and defaults are exactly OpenSSH's. Without an
 * installed `ssh` it uses only OpenSSH's defaults.
 *
 * @throws {SqlsyncError} CONNECT_FAILED if the configuration is faulty, or requires what only OpenSSH can do.
 */
export async function resolveHost(request: HostRequest, signal?: AbortSignal): Promise<HostConfig> {
  return parseHostConfig(request, await askSsh(request, signal));
}

/** The output of `ssh -G` for the host; '' if `ssh` is not installed. */
function askSsh(request: HostRequest, signal: AbortSignal | undefined): Promise<string> {
  const { host, port, user, configFile, jump } = request;
  const args = [
    '-G',
    ...(configFile === undefined ? [] : ['-F', configFile]),
    ...(port === undefined ? [] : ['-p', String(port)]),
    ...(user === undefined ? [] : ['-l', user]),
    ...(jump === undefined ? [] : ['-J', jump]),
    '--',
    host,
  ];
  const options = { encoding: 'utf8', timeout: SSH_G_TIMEOUT_MS, maxBuffer: 1 << 20, signal } as const;
  return new Promise((resolve, reject) => {
    const child = execFile('ssh', args, options, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      if (systemErrorCode(error) === 'ENOENT') return resolve('');
      reject(
        signal?.aborted === true
          ? new SqlsyncError('INTERRUPTED', `connecting to ${host} was interrupted`)
          : configError(
              host,
              sanitizeText(stderr.trim() || error.message),
              'Correct what ssh complains about.',
            ),
      );
    });
    child.stdin?.end();
  });
}

/** @throws {SqlsyncError} CONNECT_FAILED if it requires what only OpenSSH can do. */
export function parseHostConfig(request: HostRequest, text: string): HostConfig {
  const settings = readSettings(text);
  const get = (name: string): string | undefined => settings.get(name)?.[0];
  const named = (name: string): string | undefined => (isNone(get(name)) ? undefined : get(name));
  const expand = expander(request, get);
  const host = get('hostname') ?? request.host;
  refuseUnsupported(request.host, named);
  const userFiles = files(get('userknownhostsfile'), DEFAULT_KNOWN_HOSTS, expand);
  const globalFiles = files(get('globalknownhostsfile'), [DEFAULT_GLOBAL_KNOWN_HOSTS], expand);
  const interval = seconds(get('serveraliveinterval'));
  const batch = get('batchmode') === 'yes';
  return {
    alias: request.host,
    host,
    port: request.port ?? Number(get('port') ?? DEFAULT_SSH_PORT),
    user: request.user ?? get('user') ?? currentUser(),
    identityFiles: configuredIdentities(settings.get('identityfile') ?? [])?.map(expand),
    identitiesOnly: get('identitiesonly') === 'yes',
    agentSocket: agentSocket(get('identityagent'), expand),
    knownHostsFiles: [...userFiles, ...globalFiles],
    newHostKeysFile: userFiles[0],
    hashKnownHosts: get('hashknownhosts') === 'yes',
    hostKeyAlias: named('hostkeyalias'),
    hostKeyAlgorithms: get('hostkeyalgorithms')?.split(','),
    ciphers: get('ciphers')?.split(','),
    kexAlgorithms: get('kexalgorithms')?.split(','),
    macs: get('macs')?.split(','),
    jump: jumpOf(request, named('proxyjump'), get),
    addressFamily: { inet: 4 as const, inet6: 6 as const }[get('addressfamily') ?? ''] ?? 0,
    connectTimeoutMs: seconds(get('connecttimeout')),
    keepaliveIntervalMs: interval,
    keepaliveCountMax: interval === undefined ? undefined : Number(get('serveralivecountmax') ?? 3),
    allows: {
      publicKey: !['no', 'false'].includes(get('pubkeyauthentication') ?? ''),
      password: get('passwordauthentication') !== 'no',
      keyboardInteractive: get('kbdinteractiveauthentication') !== 'no',
    },
    promptCount: batch ? 0 : Number(get('numberofpasswordprompts') ?? 3),
    unused: [
      ...(settings.get('certificatefile') ?? []).map((file) => `the certificate ${file}`),
      ...(named('pkcs11provider') === undefined ? [] : [`the keys of ${named('pkcs11provider')}`]),
    ].map((what) => sanitizeText(what, 200)),
  };
}

/** Reads one `name value` per line; a name may occur several times. */
function readSettings(text: string): Map<string, string[]> {
  const settings = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const space = line.indexOf(' ');
    if (space === -1) continue;
    const name = line.slice(0, space).toLowerCase();
    settings.set(name, [...(settings.get(name) ?? []), line.slice(space + 1).trim()]);
  }
  return settings;
}

/** `ProxyJump` takes only these tokens, and `ssh -G` leaves them as they are. */
function jumpOf(
  request: HostRequest,
  configured: string | undefined,
  get: (name: string) => string | undefined,
): string | undefined {
  const jump = request.jump ?? configured;
  if (isNone(jump)) return undefined;
  const tokens: Readonly<Record<string, () => string>> = {
    '%': () => '%',
    h: () => get('hostname') ?? request.host,
    n: () => request.host,
    p: () => String(request.port ?? get('port') ?? DEFAULT_SSH_PORT),
    r: () => request.user ?? get('user') ?? currentUser(),
  };
  return jump?.replaceAll(/%([%hnpr])/g, (_, letter: string) => tokens[letter]?.() ?? '');
}

function isNone(value: string | undefined): boolean {
  return value === undefined || value.toLowerCase() === 'none';
}

/**
 * Refuses settings that would, if ignored, reach another host than the user intends, or trust a host that the user does
 * not trust.
 */
function refuseUnsupported(host: string, named: (name: string) => string | undefined): void {
  const [option, why] =
    named('proxycommand') !== undefined
      ? ['ProxyCommand', 'which the SSH built into sqlsync cannot run']
      : named('revokedhostkeys') !== undefined
        ? ['RevokedHostKeys', 'which the SSH built into sqlsync cannot check']
        : named('knownhostscommand') !== undefined
          ? ['KnownHostsCommand', 'which the SSH built into sqlsync cannot run']
          : [];
  if (option === undefined || why === undefined) return;
  throw configError(host, `it sets ${option}, ${why}`, 'Add `--rsh ssh`: then OpenSSH itself connects.');
}

function configError(host: string, fault: string, hint: string): SqlsyncError {
  return new SqlsyncError('CONNECT_FAILED', `the SSH configuration of ${sanitizeText(host, 200)}: ${fault}`, {
    hint,
  });
}

/**
 * Undefined for OpenSSH's default names, which `ssh -G` prints if none are configured. A user who configures just one
 * of them has a shorter list than any version's defaults.
 */
function configuredIdentities(paths: readonly string[]): string[] | undefined {
  const isDefault = (path: string): boolean => /^~\/\.ssh\/id_[a-z0-9_]+$/.test(path);
  if (paths.length === 0 || (paths.length >= 4 && paths.every(isDefault))) return undefined;
  return paths.filter((path) => !isNone(path));
}

function agentSocket(value: string | undefined, expand: (text: string) => string): string | false {
  const standard = process.env['SSH_AUTH_SOCK'];
  if (value?.toLowerCase() === 'none') return false;
  if (value === undefined || value === 'SSH_AUTH_SOCK') return standard || false;
  if (value.startsWith('$') && !value.startsWith('${')) return process.env[value.slice(1)] || false;
  return expand(value);
}

/**
 * `ssh -G` prints a list of paths with spaces between them and no quotes. If a word alone names no file and several
 * together do, they are one path with spaces. Such a path must not hide a revoked key.
 */
function files(
  value: string | undefined,
  standard: readonly string[],
  expand: (text: string) => string,
): string[] {
  if (value?.toLowerCase() === 'none') return [];
  const words = value?.split(' ') ?? [...standard];
  const paths: string[] = [];
  for (let i = 0; i < words.length; i++) {
    let end = words.length;
    while (end > i + 1 && !existsSync(expand(words.slice(i, end).join(' ')))) end--;
    paths.push(expand(words.slice(i, end).join(' ')));
    i = end - 1;
  }
  return paths;
}

/**
 * Expands `~`, `${NAME}` and the `%` tokens of ssh_config(5), which `ssh -G` has already done for some options. An
 * unknown token stays as it is.
 */
function expander(request: HostRequest, get: (name: string) => string | undefined): (text: string) => string {
  const tokens: Readonly<Record<string, () => string>> = {
    '%': () => '%',
    d: sshHome,
    h: () => get('hostname') ?? request.host,
    i: () => String(process.getuid?.() ?? ''),
    j: () => get('proxyjump') ?? '',
    k: () => get('hostkeyalias') ?? request.host,
    L: () => hostname().split('.')[0] ?? '',
    l: hostname,
    n: () => request.host,
    p: () => get('port') ?? String(DEFAULT_SSH_PORT),
    r: () => get('user') ?? '',
    u: currentUser,
  };
  return (text) => {
    const expanded = text
      .replaceAll(/%(.)/g, (whole, letter: string) => {
        const token = Object.hasOwn(tokens, letter) ? tokens[letter] : undefined;
        return token === undefined ? whole : token();
      })
      .replaceAll(/\$\{(\w+)\}/g, (_, name: string) => process.env[name] ?? '');
    return /^~(\/|$)/.test(expanded) ? join(sshHome(), expanded.slice(1)) : expanded;
  };
}

/** Undefined for 0 and `none`. */
function seconds(value: string | undefined): number | undefined {
  const number = Number(value ?? 0);
  return number > 0 ? number * 1000 : undefined;
}

function currentUser(): string {
  try {
    return userInfo().username;
  } catch (error) {
    // In some containers the user id has no entry in the system's list of users.
    const user = process.env['USER'] ?? process.env['LOGNAME'];
    if (user !== undefined && user !== '') return user;
    throw new SqlsyncError('USAGE', 'the user to log in as is unknown; expected user@host', {
      hint: 'Write the user into the location, as in user@host:path.',
      cause: error,
    });
  }
}
