import { readFileSync, realpathSync } from 'node:fs';

/** A mount, as Linux lists it. */
export interface Mount {
  /** The folder or single file that it covers. */
  readonly point: string;
  /** `major:minor` of the device, as `/proc/locks` has it too. */
  readonly device: string;
  /** Such as `ext4`, `nfs4`, `fuse.sshfs`. */
  readonly type: string;
}

/**
 * The mount of the file at `path`, which is absolute and real; undefined if the system does not report it. A caller with
 * many files reads the table of mounts once.
 */
export function mountOf(path: string, table: readonly Mount[] = mounts()): Mount | undefined {
  let found: Mount | undefined;
  for (const mount of table) {
    const { point } = mount;
    const covers = path === point || path.startsWith(point.endsWith('/') ? point : `${point}/`);
    // The later of two mounts in one place hides the earlier one.
    if (covers && point.length >= (found?.point.length ?? 0)) found = mount;
  }
  return found;
}

/** True if the file at `path` is mounted by itself, as containers do with single files. */
export function isMountedAlone(path: string): boolean {
  return mountOf(path)?.point === path;
}

/**
 * File systems without lasting inodes: they number files as they meet them, so a file gets another number after the
 * next mount, or after the system forgot it. FUSE's `fuseblk` is a local disk, whose driver keeps inodes.
 */
const UNLASTING_INODES = /^(?:fuse(?:\..*)?|vfat|msdos|exfat|9p|cifs|smb3|smbfs)$/;

/**
 * File systems that other machines, or the host of this one, can write at the same time: each machine has its own
 * shared memory of a WAL there, and often its own locks. File systems over a local disk, such as fuseblk (NTFS) and
 * overlay, are not listed.
 */
const NETWORK =
  /^(?:nfs\d?|cifs|smb3|smbfs|ncpfs|afs|coda|ceph|lustre|beegfs|gpfs|ocfs2|gfs2|orangefs|pvfs2|9p|vboxsf|vmhgfs|prl_fs|davfs|acfs|virtiofs|fakeowner|fuse\.(?:grpcfuse|osxfs|sshfs|rclone|s3fs|goofys|gcsfuse|gvfsd-fuse|curlftpfs|davfs|davfs2|ceph|ceph-fuse|glusterfs|beegfs|juicefs|moosefs|mfs|hdfs|vmhgfs-fuse|smbnetfs|afp|nfs|google-drive-ocamlfuse|onedriver|JuiceFS.*))$/;

/**
 * The type of the network file system that `path` is on; undefined for a local one, or if the system does not report
 * it.
 */
export function networkFileSystem(path: string): string | undefined {
  const type = mountOf(path)?.type ?? '';
  return NETWORK.test(type) ? type : undefined;
}

/**
 * Local file systems that change the ctime of a file with every write, also with the first one to a clean page through
 * a memory map, as tmpfs does not. All writes go through this kernel, and a descriptor stays with the file of its name,
 * as with overlay it does not.
 */
const TIMES_EVERY_WRITE = /^(?:ext[234]|xfs|btrfs|f2fs)$/;

/**
 * True if no write to the file at `path`, which is absolute and real, leaves its ctime as it is. False for a file that
 * is mounted alone: another name of it may have a -wal of its own.
 */
export function timesEveryWrite(path: string, table?: readonly Mount[]): boolean {
  const mount = mountOf(path, table);
  return mount !== undefined && mount.point !== path && TIMES_EVERY_WRITE.test(mount.type);
}

/** True if the file at `path` keeps its inode, or if the system does not report that. */
export function hasLastingInodes(path: string): boolean {
  return !UNLASTING_INODES.test(mountOf(realpathSync(path))?.type ?? '');
}

/** All mounts (https://docs.kernel.org/filesystems/proc.html, "mountinfo"); empty if the system does not list them. */
export function mounts(): Mount[] {
  const found: Mount[] = [];
  for (const line of procLines('/proc/self/mountinfo')) {
    const fields = line.split(' ');
    const separator = fields.indexOf('-', 6);
    const [device, point, type] = [fields[2], fields[4], fields[separator + 1]];
    if (device === undefined || point === undefined || type === undefined || separator === -1) continue;
    found.push({ device, point: unescaped(point), type });
  }
  return found;
}

/** Space, tab, line feed and backslash come as three octal digits. */
function unescaped(field: string): string {
  return field.replaceAll(/\\([0-7]{3})/g, (_, digits: string) => String.fromCodePoint(parseInt(digits, 8)));
}

/** The lines of a system file; empty if the system has no such file. */
function procLines(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n').filter(Boolean);
  } catch {
    return [];
  }
}
