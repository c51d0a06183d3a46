import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { SSHD_MISSING, startSshd } from '../test/support/sshd.ts';
import type { Sshd } from '../test/support/sshd.ts';
import { startLink } from './link.ts';
import type { Link } from './link.ts';
import { cpuSecondsOf } from './measure.ts';

/** The way to the origin. The replica is always here: a pull. */
export interface Route {
  /** The origin as sqlsync takes it, and the options to reach it. */
  location(path: string): string;
  readonly syncOptions: readonly string[];
  /** The options by which rsync reaches it. */
  readonly rsyncOptions: readonly string[];
  /** A program with the arguments of `ssh` that reaches the host. */
  readonly sshProgram: string;
  readonly link: Link | undefined;
  /** Undefined if the far agent is a child of the near one. */
  readonly far: FarAgent | undefined;
  close(): Promise<void>;
}

export const LOCAL_ROUTE: Route = {
  location: (path) => path,
  syncOptions: [],
  rsyncOptions: [],
  sshProgram: 'ssh',
  link: undefined,
  far: undefined,
  close: async () => {},
};

export interface LinkSettings {
  rttMs: number;
  bitsPerSecond: number;
}

/** What the far agent on the "other" host that started last leaves about itself. */
export class FarAgent {
  readonly #dir: string;

  constructor(dir: string) {
    this.#dir = dir;
    mkdirSync(dir);
  }

  get pidFile(): string {
    return join(this.#dir, 'pid');
  }

  /** The remote command: a shell around the agent, since nothing here learns when a process of sshd ends. */
  script(exe: string): string {
    return [
      '#!/bin/sh',
      `echo $$ > '${this.pidFile}'`,
      `'${process.execPath}' '${exe}' "$@"`,
      'status=$?',
      `times > '${this.#dir}/times.part' && mv '${this.#dir}/times.part' '${this.#dir}/times'`,
      'exit $status',
      '',
    ].join('\n');
  }

  forget(): void {
    for (const name of ['pid', 'times']) rmSync(join(this.#dir, name), { force: true });
  }

  /**
   * When the remote command began, in milliseconds since 1970: from then on the word that it did is on its
   * way back.
   */
  get startedAtMs(): number {
    return statSync(this.pidFile).mtimeMs;
  }

  /** Resolves when it has ended. */
  async cpuSeconds(): Promise<number> {
    const file = join(this.#dir, 'times');
    for (let waitedMs = 0; !existsSync(file); waitedMs += 10) {
      if (waitedMs > 10_000) throw new Error('the far agent does not end');
      await delay(10);
    }
    return cpuSecondsOf(readFileSync(file, 'utf8'));
  }
}

/** A real sshd on the loopback interface, behind a slow line if there are `settings`. */
export async function sshRoute(exe: string, settings?: LinkSettings): Promise<Route> {
  const sshd = await startSshd();
  if (sshd === undefined) throw new Error(SSHD_MISSING);
  const far = new FarAgent(join(sshd.configDir, 'far'));
  sshd.addExecutable('sqlsync', far.script(exe));
  const { host } = sshd;
  const link = settings === undefined ? undefined : await startLink({ host, port: sshd.port, ...settings });
  const port = link?.port ?? sshd.port;
  const knownHosts = knownHostsFor(sshd, port);
  const ssh = `ssh -F /dev/null -p ${port} -i ${sshd.clientKey} -o UserKnownHostsFile=${knownHosts} -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes`;
  const sshProgram = join(sshd.configDir, `ssh-${port}`);
  writeFileSync(sshProgram, `#!/bin/sh\nexec ${ssh} "$@"\n`, { mode: 0o755 });
  return {
    location: (path) => `${sshd.user}@${host}:${path}`,
    syncOptions: ['--port', String(port), '--identity', sshd.clientKey, '--known-hosts', knownHosts],
    rsyncOptions: ['-z', '-e', ssh],
    sshProgram,
    link,
    far,
    close: async () => {
      await link?.close();
      await sshd.stop();
    },
  };
}

function knownHostsFor(sshd: Sshd, port: number): string {
  const path = join(sshd.configDir, `known_hosts_${port}`);
  const known = readFileSync(sshd.knownHostsFile, 'utf8');
  writeFileSync(path, known.replaceAll(`]:${sshd.port} `, `]:${port} `));
  return path;
}
