import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { delimiter, join } from 'node:path';
import { withoutSqlsync } from './environment.ts';

export type SshKeyType = 'ed25519' | 'ecdsa' | 'rsa';

export interface SshdOptions {
  /** By default only ed25519. */
  hostKeyTypes?: SshKeyType[];
  /** Lines put before ours in sshd_config; the first line of a keyword counts. */
  config?: string[];
}

/** An sshd of our own on the loopback interface, with its own keys, in its own folder. */
export interface Sshd {
  readonly host: '127.0.0.1';
  readonly port: number;
  readonly user: string;
  /** Holds all other files; `stop` removes it. */
  readonly configDir: string;
  /** Private key files of the host, by type; the public ones are beside them. */
  readonly hostKeys: Partial<Record<SshKeyType, string>>;
  /** Names this host with the keys above. */
  readonly knownHostsFile: string;
  /** A private key without passphrase that may log in; the public one is beside it. */
  readonly clientKey: string;
  readonly authorizedKeysFile: string;
  /** For `ssh -F`: knows this host as `sqlsync-test`. */
  readonly sshConfigFile: string;
  /** First on the PATH of remote commands. */
  readonly binDir: string;
  /** HOME of remote commands, empty: no dotfile of the user who runs the tests takes part. */
  readonly home: string;
  /** Puts an executable script where remote commands find it. */
  addExecutable(name: string, script: string): void;
  /** The log of sshd so far. */
  log(): string;
  /** Kills (SIGKILL) the sshd processes that serve connections, and not the one that listens. */
  killSessions(): void;
  /** Sends a signal to these processes, and returns their ids. */
  signalSessions(signal: NodeJS.Signals): number[];
  /** Kills all, as a host that goes away; {@link comeBack} starts it again, on the same port. */
  goAway(): Promise<void>;
  comeBack(): Promise<void>;
  /** Kills all and removes the folder. */
  stop(): Promise<void>;
}

export const SSHD_MISSING =
  'NOT TESTED: sshd is missing, so nothing about SSH was tested here; install it with `apt-get install openssh-server`';

const SSHD_PATHS = ['/usr/sbin', '/usr/local/sbin', '/opt/homebrew/sbin', '/usr/bin', '/usr/lib/ssh'];
const START_ATTEMPTS = 5;

/** Starts an sshd, or returns undefined (and says so) if none is installed: then skip with {@link SSHD_MISSING}. */
export async function startSshd(options: SshdOptions = {}): Promise<Sshd | undefined> {
  const executable = findSshd();
  if (executable === undefined) {
    process.emitWarning(SSHD_MISSING);
    return undefined;
  }
  // An sshd with privilege separation (which all have) wants this folder if root starts it.
  if (process.getuid?.() === 0) mkdirSync('/run/sshd', { recursive: true, mode: 0o755 });
  const configDir = mkdtempSync(join(tmpdir(), 'sqlsync-sshd-'));
  const files = prepareFiles(configDir, options);
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    const config = join(configDir, 'sshd_config');
    writeFileSync(config, sshdConfig(files, port, options));
    const started = await startProcess(executable, config);
    if (started !== undefined) return describe(files, port, started, () => startProcess(executable, config));
    if (attempt === START_ATTEMPTS) throw new Error(`no free port for sshd after ${attempt} attempts`);
  }
}

/** Makes a key pair without a question; returns the path of the private key. */
export function makeSshKey(path: string, type: SshKeyType = 'ed25519', passphrase = ''): string {
  const size = type === 'rsa' ? ['-b', '2048'] : [];
  execFileSync('ssh-keygen', ['-q', '-t', type, ...size, '-N', passphrase, '-C', 'sqlsync-test', '-f', path]);
  return path;
}

type Files = Pick<
  Sshd,
  | 'configDir'
  | 'hostKeys'
  | 'knownHostsFile'
  | 'clientKey'
  | 'authorizedKeysFile'
  | 'sshConfigFile'
  | 'binDir'
  | 'home'
>;

function findSshd(): string | undefined {
  const folders = [...SSHD_PATHS, ...(process.env['PATH'] ?? '').split(delimiter)];
  return folders.map((folder) => join(folder, 'sshd')).find((path) => existsSync(path)); // This must be an absolute path.
}

function prepareFiles(configDir: string, options: SshdOptions): Files {
  const inside = (name: string): string => join(configDir, name);
  const hostKeys: Partial<Record<SshKeyType, string>> = {};
  for (const type of options.hostKeyTypes ?? ['ed25519']) {
    hostKeys[type] = makeSshKey(inside(`host_${type}`), type);
  }
  const clientKey = makeSshKey(inside('client_ed25519'));
  writeFileSync(inside('authorized_keys'), readFileSync(`${clientKey}.pub`));
  mkdirSync(inside('bin'));
  // Not the folder of Node.js, whose name may have spaces, which sshd does not take.
  symlinkSync(process.execPath, inside('bin/node'));
  mkdirSync(inside('home'));
  return {
    configDir,
    hostKeys,
    clientKey,
    knownHostsFile: inside('known_hosts'),
    authorizedKeysFile: inside('authorized_keys'),
    sshConfigFile: inside('ssh_config'),
    binDir: inside('bin'),
    home: inside('home'),
  };
}

function sshdConfig(files: Files, port: number, options: SshdOptions): string {
  // A `sqlsync` of this machine is none of the remote host's, which has the one that a test gives it, or
  // none.
  const path = withoutSqlsync(['/usr/local/bin', '/usr/bin', '/bin'].join(delimiter), files.configDir);
  return [
    ...(options.config ?? []),
    `Port ${port}`,
    'ListenAddress 127.0.0.1',
    ...Object.values(files.hostKeys).map((key) => `HostKey ${key}`),
    `AuthorizedKeysFile ${files.authorizedKeysFile}`,
    'StrictModes no',
    'UsePAM no',
    'PermitRootLogin yes',
    'PermitUserRC no',
    'PasswordAuthentication no',
    'KbdInteractiveAuthentication no',
    'PidFile none',
    'PrintMotd no',
    // Several tests connect at the same time; they are not about the limit for logins in progress.
    'MaxStartups 100',
    `SetEnv PATH=${files.binDir}:${path} HOME=${files.home}`,
    '',
  ].join('\n');
}

function describe(
  files: Files,
  port: number,
  first: Started,
  startAgain: () => Promise<Started | undefined>,
): Sshd {
  let { child, log } = first;
  const user = userInfo().username;
  const publicKeys = Object.values(files.hostKeys).map((key) =>
    readFileSync(`${key}.pub`, 'utf8').split(' '),
  );
  writeFileSync(
    files.knownHostsFile,
    publicKeys.map(([type, key]) => `[127.0.0.1]:${port} ${type} ${key}\n`).join(''),
  );
  writeFileSync(
    files.sshConfigFile,
    `Host sqlsync-test\n  HostName 127.0.0.1\n  Port ${port}\n  User ${user}\n  IdentityFile ${files.clientKey}\n` +
      `  IdentitiesOnly yes\n  UserKnownHostsFile ${files.knownHostsFile}\n  StrictHostKeyChecking yes\n`,
  );
  const killAtExit = (): void => void child.kill('SIGKILL');
  process.once('exit', killAtExit);
  const goAway = async (): Promise<void> => {
    signalChildren(child, 'SIGKILL');
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
  };
  return {
    ...files,
    host: '127.0.0.1',
    port,
    user,
    addExecutable: (name, script) => writeFileSync(join(files.binDir, name), script, { mode: 0o755 }),
    log: () => log(),
    goAway,
    comeBack: async () => {
      const again = await startAgain();
      if (again === undefined) throw new Error(`another program took port ${port} of sshd`);
      ({ child, log } = again);
    },
    killSessions: () => void signalChildren(child, 'SIGKILL'),
    signalSessions: (signal) => signalChildren(child, signal),
    stop: async () => {
      process.off('exit', killAtExit);
      await goAway();
      rmSync(files.configDir, { recursive: true, force: true });
    },
  };
}

interface Started {
  readonly child: ChildProcess;
  readonly log: () => string;
}

/** Resolves when sshd listens; with undefined if another program took the port in the meantime. */
function startProcess(executable: string, config: string): Promise<Started | undefined> {
  return new Promise((resolve, reject) => {
    const child = spawn(executable, ['-D', '-e', '-f', config], { stdio: ['ignore', 'ignore', 'pipe'] });
    let log = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      log += text;
      if (log.includes('Server listening on')) resolve({ child, log: () => log });
    });
    child.on('error', reject);
    child.on('close', (status) => {
      if (log.includes('Address already in use')) resolve(undefined);
      else reject(new Error(`sshd ended with status ${status}:\n${log}`));
    });
  });
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.on('error', reject).listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** One connection may take two processes, one below the other. Their commands have to notice the end by themselves. */
function signalChildren(parent: { pid?: number | undefined }, signal: NodeJS.Signals): number[] {
  const pids: number[] = [];
  for (const row of processTable()) {
    if (row.parentPid !== parent.pid || !row.name.includes('sshd')) continue;
    pids.push(...signalChildren(row, signal), row.pid);
    try {
      process.kill(row.pid, signal);
    } catch {
      // The process ended by itself in the meantime.
    }
  }
  return pids;
}

interface ProcessRow {
  pid: number;
  parentPid: number;
  name: string;
}

/** All processes: from /proc, since minimal systems have no `ps`; without /proc, from `ps`. */
function processTable(): ProcessRow[] {
  if (!existsSync('/proc/self/stat')) {
    const lines = execFileSync('ps', ['-A', '-o', 'pid=,ppid=,comm='], { encoding: 'utf8' })
      .trim()
      .split('\n');
    return lines.map((line) => {
      const [pid, parentPid, ...name] = line.trim().split(/\s+/);
      return { pid: Number(pid), parentPid: Number(parentPid), name: name.join(' ') };
    });
  }
  return readdirSync('/proc').flatMap((entry) => {
    if (!/^\d+$/.test(entry)) return [];
    try {
      // "pid (name) state ppid …"; the name may hold any characters
      const stat = readFileSync(`/proc/${entry}/stat`, 'latin1');
      const close = stat.lastIndexOf(')');
      const name = stat.slice(stat.indexOf('(') + 1, close);
      return [{ pid: Number(entry), parentPid: Number(stat.slice(close + 2).split(' ')[1]), name }];
    } catch {
      return []; // The process ended during the read.
    }
  });
}
