import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const SFTP_SERVER = '/usr/lib/openssh/sftp-server';

/** The reason why sshfs cannot mount a folder here; false if it can. */
export const NO_SSHFS: false | string = canMount()
  ? false
  : 'NOT TESTED: needs sshfs, an sftp-server and a /dev/fuse that this user may open';

function canMount(): boolean {
  if (!existsSync(SFTP_SERVER) || spawnSync('sshfs', ['--version']).status !== 0) return false;
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Both ends talk through pipes, and not through this process: it may wait for the file system itself, and
 * could not serve it meanwhile.
 */
const MOUNT = `mkfifo "$P-to" "$P-from"; "$SERVER" <"$P-to" >"$P-from" & exec sshfs -f -o passive ":$DISK" "$POINT" >"$P-to" <"$P-from"`;

/** Runs `work` while `disk` is mounted at `point` through sshfs, without any sshd. */
export async function mountedBySshfs(disk: string, point: string, work: () => Promise<void>): Promise<void> {
  mkdirSync(point, { recursive: true });
  const pipes = `${point}-${process.pid}-${pipesMade++}`;
  const env = { ...process.env, P: pipes, SERVER: SFTP_SERVER, DISK: disk, POINT: point };
  const client = spawn('/bin/sh', ['-c', MOUNT], { env, stdio: 'ignore' });
  const ended = once(client, 'exit');
  try {
    while (!isMounted(point)) {
      if (client.exitCode !== null) throw new Error('sshfs ended before it had mounted anything');
      await delay(10);
    }
    await work();
  } finally {
    spawnSync('umount', [point]);
    await ended;
  }
}

let pipesMade = 0;

/** Runs the same in a folder that is mounted anew for each step, as a disk that its owner takes home every evening. */
export async function remountedBySshfs(
  folder: string,
  steps: ((mnt: string) => Promise<void>)[],
): Promise<void> {
  const [disk, mnt] = [join(folder, 'disk'), join(folder, 'mnt')];
  mkdirSync(disk, { recursive: true });
  for (const step of steps) await mountedBySshfs(disk, mnt, () => step(mnt));
}

function isMounted(point: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${point} `);
}
