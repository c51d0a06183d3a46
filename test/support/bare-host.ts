import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CLI } from './relay-kill.ts';
import { startSshd } from './sshd.ts';
import type { Sshd } from './sshd.ts';

export const BARE_HOST_MISSING =
  'NOT TESTED: installing takes Linux and an sshd (apt-get install openssh-server)';

/** The platform of this machine, and another one. */
export const PLATFORM: string = process.arch === 'arm64' ? 'linux-arm64' : 'linux-x64';
export const OTHER_PLATFORM: string = process.arch === 'arm64' ? 'linux-x64' : 'linux-arm64';

/** What a bare Debian has; no Node.js, no sqlsync. */
const TOOLS = (
  'sh tar gzip head tail mv ln mkdir rm rmdir find wc grep sed readlink cat tr id uname getconf df awk chmod sync ' +
  'dirname basename date ls cp cksum sleep'
).split(' ');

/** A login whose account has an empty home and nothing but a shell and its tools. */
export interface BareHost extends Sshd {
  /** The only folder on the PATH. */
  readonly tools: string;
  /** Puts this script in the place of a tool. */
  replaceTool(name: string, script: string): void;
  /** Puts back all tools, and removes what is none. */
  restoreTools(): void;
}

/** Starts one, or returns undefined where {@link BARE_HOST_MISSING}. `stop` removes it. */
export async function startBareHost(): Promise<BareHost | undefined> {
  if (process.platform !== 'linux') return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'sqlsync-bare-'));
  const [tools, home] = [join(folder, 'tools'), join(folder, 'home')];
  const pathOf = (name: string): string =>
    spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).stdout.trim();
  const paths = TOOLS.map((name) => [name, pathOf(name)] as const);
  const restoreTools = (): void => {
    rmSync(tools, { recursive: true, force: true });
    mkdirSync(tools);
    for (const [name, path] of paths) symlinkSync(path, join(tools, name));
  };
  const replaceTool = (name: string, script: string): void => {
    rmSync(join(tools, name), { force: true });
    writeFileSync(join(tools, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  };
  mkdirSync(home);
  restoreTools();
  const sshd = await startSshd({ config: [`SetEnv PATH=${tools} HOME=${home}`] });
  if (sshd === undefined) {
    rmSync(folder, { recursive: true });
    return undefined;
  }
  const stop = async (): Promise<void> => {
    await sshd.stop();
    rmSync(folder, { recursive: true, force: true });
  };
  return { ...sshd, home, tools, replaceTool, restoreTools, stop };
}

export interface StandInOptions {
  /** By default that of this machine. */
  readonly platform?: string;
  /** What it calls its version, if not the one in its name. */
  readonly says?: string;
  /** The size of a file that it contains. */
  readonly fillerBytes?: number;
}

/**
 * Makes a bundle in `folder` that is laid out as a real one, and runs the program of this checkout. Returns the path of
 * the archive.
 */
export function standInBundle(folder: string, version: string, options: StandInOptions = {}): string {
  const { platform = PLATFORM, says = version, fillerBytes = 1000 } = options;
  const name = `sqlsync-${version}-${platform}`;
  const root = join(folder, name);
  mkdirSync(join(root, 'bin'), { recursive: true });
  mkdirSync(join(root, 'lib'));
  symlinkSync(process.execPath, join(root, 'lib', 'node'));
  writeFileSync(join(root, 'lib', 'filler'), Buffer.alloc(fillerBytes, version));
  const script = [
    '#!/bin/sh',
    `if [ "$1" = --version ]; then echo '${says}'; exit; fi`,
    'root=$(cd -P -- "$(dirname "$(readlink "$0" || echo "$0")")/.." && pwd)',
    `exec "$root/lib/node" '${CLI}' "$@"\n`,
  ];
  writeFileSync(join(root, 'bin', 'sqlsync'), script.join('\n'), { mode: 0o755 });
  const archive = join(folder, `${name}.tar.gz`);
  execFileSync('tar', ['-C', folder, '--owner=0', '--group=0', '-czf', archive, name]);
  rmSync(root, { recursive: true });
  return archive;
}
