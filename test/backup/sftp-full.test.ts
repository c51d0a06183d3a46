import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { NEEDS_ROOT, sqlsync, summaryOf } from '../cli/command.ts';
import type { Run, Summary } from '../cli/command.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { pathWithSsh } from '../support/ssh-path.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';

const DISK_BYTES: number = 3 * 1024 * 1024;

test(
  'a store on a full disk behind a chrooted SFTP server says so, loses nothing, and goes on once there is room',
  { skip: NEEDS_ROOT },
  async (t) => {
    const scene = await fullDisk(t);
    if (typeof scene === 'string') return t.skip(scene);
    const { folder, store, run, say, fill, empty } = scene;
    await run('init', store, '--encrypt', '--grace', '0');
    await run('backup', 'a.db', store);
    change(join(folder, 'a.db'), 'UPDATE item SET amount = -1 WHERE id % 7 = 0');
    await run('backup', 'a.db', store);
    const ids = await idsIn(run, store);
    await run('restore', store, 'kept.db');

    const isFull = async (...args: string[]): Promise<void> => {
      const { status, stderr } = await say(...args);
      assert.equal(status, 18, `${args.join(' ')}: ${stderr}`);
      assert.match(stderr, /\[STORE_UNAVAILABLE\]\n.*No space is left/s);
    };
    fill();
    change(join(folder, 'a.db'), 'CREATE TABLE more AS SELECT randomblob(300000) AS x');
    await isFull('backup', 'a.db', store);
    await isFull('key', 'passwd', store, '--new-password-file', 'next');
    await isFull('key', 'add', store, '--new-password-file', 'next');
    // What they left is removed, or unfinished and no part of the store.
    assert.deepEqual(await idsIn(run, store), ids);
    await run('check', store, '--read-data');
    // Both need room only to free more, and do without.
    const first = ids[0] as string;
    assert.deepEqual((await run('forget', store, first))['forgotten'], [first]);
    await run('prune', store, '--max-unused', '0%');
    assert.deepEqual(await idsIn(run, store), ids.slice(1));
    await run('restore', `${store}#${ids[1]}`, 'again.db');
    assertReplicaOf(join(folder, 'kept.db'), join(folder, 'again.db'));

    empty();
    await run('backup', 'a.db', store);
    await run('key', 'passwd', store, '--new-password-file', 'next');
    const next = ['--password-file', 'next'];
    await run('prune', store, '--max-unused', '0%', ...next);
    await run('check', store, '--read-data', ...next);
    await run('restore', store, 'back.db', ...next);
    assertReplicaOf(join(folder, 'a.db'), join(folder, 'back.db'));
  },
);

async function idsIn(run: (...args: string[]) => Promise<Summary>, store: string): Promise<string[]> {
  return ((await run('snapshots', store))['snapshots'] as { id: string }[]).map(({ id }) => id);
}

interface FullDisk {
  readonly folder: string;
  readonly store: string;
  /** Runs a command, which succeeds; returns its summary. */
  readonly run: (...args: string[]) => Promise<Summary>;
  readonly say: (...args: string[]) => Promise<Run>;
  /** Takes all room of the disk. */
  readonly fill: () => void;
  /** Gives it back. */
  readonly empty: () => void;
}

/** A server that shows nothing but a small disk, or why there is none here. */
async function fullDisk(t: TestContext): Promise<FullDisk | string> {
  // Every folder on the way has to be root's, and no one else's to write.
  let jail: string;
  try {
    jail = mkdtempSync('/run/sqlsync-jail-');
  } catch {
    return 'NOT TESTED: no folder can be made in /run';
  }
  chmodSync(jail, 0o755);
  const disk = join(jail, 'disk');
  mkdirSync(disk);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_BYTES}`, 'tmpfs', disk], { stdio: 'ignore' });
  } catch {
    rmSync(jail, { recursive: true });
    return 'NOT TESTED: no file system can be mounted here';
  }
  let sshd: Sshd | undefined;
  t.after(async () => {
    await sshd?.stop();
    execFileSync('umount', ['--lazy', disk]);
    rmSync(jail, { recursive: true });
  });
  sshd = await startSshd({
    config: ['Subsystem sftp internal-sftp', 'ForceCommand internal-sftp', `ChrootDirectory ${jail}`],
  });
  if (sshd === undefined) return SSHD_MISSING;
  const folder = tempDir(t);
  smallDatabase(join(folder, 'a.db'), { rows: 400 });
  for (const name of ['password', 'next']) writeFileSync(join(folder, name), `the ${name}\n`);
  const env = {
    PATH: pathWithSsh(sshd, folder),
    SQLSYNC_SCRYPT_N: String(2 ** 15),
    SQLSYNC_PASSWORD_FILE: join(folder, 'password'),
    XDG_CACHE_HOME: join(folder, 'cache'),
    XDG_STATE_HOME: join(folder, 'state'),
  };
  const options = { cwd: folder, env };
  return {
    folder,
    store: 'sftp:sqlsync-test:/disk/store',
    run: (...args) => summaryOf(args, options),
    say: (...args) => sqlsync(args, options),
    fill: () => fillUp(join(disk, 'filler')),
    empty: () => rmSync(join(disk, 'filler')),
  };
}

/** Writes a file until there is no room for another byte. */
function fillUp(path: string): void {
  const file = openSync(path, 'w');
  try {
    while (wrote(file, 65_536) || wrote(file, 1));
  } finally {
    closeSync(file);
  }
}

function wrote(file: number, bytes: number): boolean {
  try {
    return writeSync(file, Buffer.alloc(bytes)) > 0;
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
    return false;
  }
}
