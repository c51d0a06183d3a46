import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gone } from './relay-kill.ts';
import { pathWithSsh } from './ssh-path.ts';
import { startSshd } from './sshd.ts';
import type { Sshd } from './sshd.ts';

const FLAKY_SERVER = fileURLToPath(new URL('flaky-sftp-server.ts', import.meta.url));

/** Where Debian, Alpine and Fedora have OpenSSH's server. */
const SFTP_SERVERS = [
  '/usr/lib/openssh/sftp-server',
  '/usr/lib/ssh/sftp-server',
  '/usr/libexec/openssh/sftp-server',
];

export const SFTP_SERVER_MISSING = 'NOT TESTED: sshd or OpenSSH’s sftp-server is missing';

/** An sshd with OpenSSH's SFTP server behind one that fails on demand. */
export interface FlakySftpHost {
  readonly sshd: Sshd;
  /** For commands that use its stores, as `sftp:sqlsync-test:PATH`, by the SSH built in or OpenSSH's. */
  readonly env: NodeJS.ProcessEnv;
  readonly rshEnv: NodeJS.ProcessEnv;
  requests(): number;
  failures(): number;
  /** Waits until no client is connected. */
  idle(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Starts one that has its files in `folder`; undefined if that is not possible here.
 *
 * @param delayMs - how long each answer takes.
 * @param chance - how likely each request fails.
 */
export async function startFlakySftp(
  folder: string,
  { delayMs, chance }: { readonly delayMs: number; readonly chance: number },
): Promise<FlakySftpHost | undefined> {
  const server = SFTP_SERVERS.find((path) => existsSync(path));
  if (server === undefined) return undefined;
  const subsystem = join(folder, 'flaky-sftp');
  const words = [process.execPath, FLAKY_SERVER, server, folder, String(delayMs), String(chance)];
  const quoted = words.map((word) => `'${word}'`).join(' ');
  writeFileSync(subsystem, `#!/bin/sh\nexec ${quoted}\n`, { mode: 0o755 });
  const sshd = await startSshd({ config: [`Subsystem sftp ${subsystem}`] });
  if (sshd === undefined) return undefined;
  const live = join(folder, 'live');
  mkdirSync(live);
  const count = (name: string): number => statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0;
  return {
    sshd,
    env: { PATH: pathWithSsh(sshd, folder) },
    rshEnv: { SQLSYNC_RSH: `ssh -F ${sshd.sshConfigFile}` },
    requests: () => count('requests'),
    failures: () => count('failures'),
    idle: async () => {
      for (const pid of readdirSync(live)) {
        await gone(Number(pid), 'an SFTP server');
        rmSync(join(live, pid), { force: true });
      }
    },
    stop: () => sshd.stop(),
  };
}
