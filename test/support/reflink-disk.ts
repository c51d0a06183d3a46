import { spawnSync } from 'node:child_process';
import { mkdtempSync, openSync, closeSync, ftruncateSync, rmSync, rmdirSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

/** How to make each file system that has reflinks. XFS wants 300 MB. */
export const REFLINK_DISKS = {
  xfs: ['mkfs.xfs', '-q', '-m', 'reflink=1'],
  btrfs: ['mkfs.btrfs', '-q', '-f'],
} as const;

const DISK_BYTES = 400 * 1024 * 1024;

/** Mounts a file system of this kind for a test; undefined, and the test is skipped, where that is not possible. */
export function reflinkDisk(t: TestContext, kind: keyof typeof REFLINK_DISKS): string | undefined {
  const image = `${mkdtempSync(join(tmpdir(), `sqlsync-${kind}-`))}.img`;
  const folder = image.slice(0, -'.img'.length);
  const file = openSync(image, 'wx');
  ftruncateSync(file, DISK_BYTES);
  closeSync(file);
  const [program, ...args] = REFLINK_DISKS[kind];
  const made = spawnSync(program, [...args, image], { encoding: 'utf8' });
  const mounted =
    made.status === 0 ? spawnSync('mount', ['-o', 'loop', image, folder], { encoding: 'utf8' }) : made;
  t.after(() => {
    if (mounted.status === 0) spawnSync('umount', ['--lazy', folder]);
    rmdirSync(folder);
    rmSync(image);
  });
  if (mounted.status === 0) return folder;
  const why = mounted.error?.message ?? mounted.stderr;
  process.emitWarning(`NOT TESTED: reflinks on ${kind}, since none can be made and mounted (${why})`);
  t.skip(`no ${kind} can be mounted`);
  return undefined;
}

/** Bytes that the files of a disk take, each shared block once. */
export function usedBytes(folder: string): number {
  spawnSync('sync', ['-f', folder]);
  const { blocks, bfree, bsize } = statfsSync(folder);
  return (blocks - bfree) * bsize;
}
