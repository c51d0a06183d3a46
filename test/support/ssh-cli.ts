import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { CLI, gone } from './relay-kill.ts';
import type { Sshd } from './sshd.ts';

/** The output and exit status of the command line. */
export interface CliResult {
  status: number | null;
  signal: string | null;
  /** The JSON objects of stdout, by their type; the last one of each type. */
  events: Map<string, Record<string, unknown>>;
  /** All of them, in order. */
  lines: readonly Record<string, unknown>[];
  stderr: string;
}

/** Both ways to reach a host, for tests that hold for each; neither reads a configuration or asks a question. */
export const SSH_WAYS: { name: string; rsh: string | undefined }[] = [
  { name: 'the SSH built in', rsh: undefined },
  { name: '--rsh ssh', rsh: 'ssh -o BatchMode=yes' },
];

/** One run of the command line, with the options by which it reaches `sshd`. */
export interface CliRun {
  pid: number;
  kill(signal: NodeJS.Signals): void;
  ended: Promise<CliResult>;
}

export interface CliOptions {
  /** The address to connect to instead of that of sshd itself. */
  port?: number;
  identity?: string;
  knownHosts?: string;
  /** A name or a shell command; by default `sqlsync`, from sshd's PATH. */
  remoteExe?: string;
  /** By this remote shell instead of the SSH built in. */
  rsh?: string | undefined;
  cwd?: string;
}

/** Puts `sqlsync` on the PATH of remote commands; each agent leaves a file with its pid in `pidDir`. */
export function installRemote(sshd: Sshd, pidDir: string): void {
  mkdirSync(pidDir, { recursive: true });
  sshd.addExecutable(
    'sqlsync',
    `#!/bin/sh\n: > '${pidDir}'/$$\nexport NODE_COMPILE_CACHE='${compileCache(sshd)}'\nexec '${process.execPath}' '${CLI}' "$@"\n`,
  );
}

/** Starting two programs is most of the cost of a short run. */
function compileCache(sshd: Sshd): string {
  return join(sshd.configDir, 'compile-cache');
}

/**
 * The same program by another name, with these variables in its environment and these arguments after its
 * own. Returns the name.
 */
export function installRemoteVariant(
  sshd: Sshd,
  name: string,
  variables: Readonly<Record<string, string>>,
  args: readonly string[] = [],
): string {
  const exports = Object.entries(variables).map(([variable, value]) => `export ${variable}='${value}'\n`);
  sshd.addExecutable(name, `#!/bin/sh\n${exports.join('')}exec sqlsync "$@" ${args.join(' ')}\n`);
  return name;
}

/** Waits until all agents that ever started have ended; returns their number. */
export async function agentsGone(pidDir: string): Promise<number> {
  const pids = readdirSync(pidDir).map(Number);
  for (const pid of pids) await gone(pid, 'a remote agent');
  return pids.length;
}

/** A location on the host, as the command line takes it. */
export function remote(sshd: Sshd, path: string): string {
  return `${sshd.user}@${sshd.host}:${path}`;
}

export function startCli(sshd: Sshd, args: readonly string[], options: CliOptions = {}): CliRun {
  const connecting = [
    '--port',
    String(options.port ?? sshd.port),
    '--identity',
    options.identity ?? sshd.clientKey,
    '--known-hosts',
    options.knownHosts ?? sshd.knownHostsFile,
    '--remote-exe',
    options.remoteExe ?? 'sqlsync',
    '--ssh-config',
    'none',
    ...(options.rsh === undefined ? [] : ['--rsh', options.rsh]),
    '--json',
  ];
  const env: NodeJS.ProcessEnv = { ...process.env, NODE_COMPILE_CACHE: compileCache(sshd) };
  delete env['SSH_AUTH_SOCK'];
  const child = spawn(process.execPath, [CLI, ...args, ...connecting], {
    env,
    cwd: options.cwd,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const ended = once(child, 'close').then(([status, signal]): CliResult => {
    const events = stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    return {
      status: status as number | null,
      signal: signal as string | null,
      events: new Map(events.map((event) => [String(event['type']), event])),
      lines: events,
      stderr,
    };
  });
  return { pid: child.pid ?? 0, kill: (signal) => void child.kill(signal), ended };
}

/** Runs it to its end. */
export function runCli(sshd: Sshd, args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  return startCli(sshd, args, options).ended;
}

/** A proxy on the way to sshd that lets a certain number of bytes through and then none. */
export interface Proxy {
  port: number;
  knownHosts: string;
  /** Settles when the proxy lets no more through. */
  full: Promise<void>;
  /** Ends both halves with a reset. */
  reset(): void;
  /** Lets nothing through from now on, in either direction, and tells neither side. */
  stall(): void;
  /** Ends both halves as a side does that hangs up. */
  drop(): void;
  /** Lets bytes through again, ends included. */
  release(): void;
}

/** Lets `limitBytes` pass in both directions together, and holds back the rest until the test decides. */
export async function startProxy(context: TestContext, sshd: Sshd, limitBytes: number): Promise<Proxy> {
  context.signal.throwIfAborted(); // Nothing would close it any more.
  const full = Promise.withResolvers<void>();
  const sockets: Socket[] = [];
  let passed = 0;
  let held = true;
  const waiting: (() => void)[] = [];
  const relay = (from: Socket, to: Socket): void => {
    from.on('data', (bytes) => {
      passed += bytes.length;
      if (passed <= limitBytes || !held) return void to.write(bytes);
      waiting.push(() => to.write(bytes));
      for (const socket of sockets) socket.pause();
      full.resolve();
    });
    from.on('error', () => {});
    // The proxy passes an end on, after the bytes that it let through, so that each side notices that the
    // other is gone.
    from.on('close', () => to.destroySoon());
  };
  const server = createServer((near) => {
    const far = createConnection(sshd.port, sshd.host);
    sockets.push(near, far);
    relay(near, far);
    relay(far, near);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const reset = (): void => {
    for (const socket of sockets) socket.resetAndDestroy();
  };
  const release = (): void => {
    held = false;
    for (const pass of waiting.splice(0)) pass();
    for (const socket of sockets) socket.resume();
  };
  const stall = (): void => {
    for (const socket of sockets) socket.pause();
  };
  const drop = (): void => {
    for (const socket of sockets) socket.end();
  };
  context.after(() => {
    reset();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const knownHosts = join(sshd.configDir, `known_hosts_${port}`);
  const known = readFileSync(sshd.knownHostsFile, 'utf8');
  writeFileSync(knownHosts, known.replaceAll(`]:${sshd.port} `, `]:${port} `));
  return { port, knownHosts, full: full.promise, reset, stall, drop, release };
}

/** True if a file of this name exists anywhere that a command could have made it. */
export function wasExecuted(name: string, folders: readonly string[]): boolean {
  return folders.some((folder) => existsSync(join(folder, name)));
}
