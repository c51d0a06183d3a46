import { readFileSync, readdirSync, readlinkSync, statSync } from 'node:fs';

/** A process, as Linux describes it to every user. */
export interface ProcessInfo {
  readonly pid: number;
  /** The words of its command line, with spaces between them; its name in brackets if it has none. */
  readonly command: string;
  readonly uid: number;
  /** When it started, in milliseconds since 1970; accurate to a second or so. */
  readonly startedAtMs: number;
  /** The kernel's letter: R runs, S sleeps, D waits for a disk, T is stopped, t is traced, Z has ended. */
  readonly state: string;
  /** The id of its container, or of its PID namespace; undefined if it runs where this process runs. */
  readonly container: string | undefined;
}

/** The kernel counts start times in this unit for all programs, whatever its own clock is. */
const TICKS_PER_S = 100;

/** The ids of all processes that the system lists; empty if it lists none. */
export function processIds(): number[] {
  return entries('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Undefined if there is no such process (any more). */
export function processInfo(pid: number): ProcessInfo | undefined {
  const stat = text(`/proc/${pid}/stat`);
  const uid = /^Uid:\s+(\d+)/m.exec(text(`/proc/${pid}/status`) ?? '')?.[1];
  if (stat === undefined || uid === undefined) return undefined;
  // The name is in parentheses, and may have some of its own.
  const end = stat.lastIndexOf(')');
  const fields = stat.slice(end + 2).split(' ');
  const words = (text(`/proc/${pid}/cmdline`) ?? '').split('\0').filter((word) => word !== '');
  return {
    pid,
    command: words.length > 0 ? words.join(' ') : `[${stat.slice(stat.indexOf('(') + 1, end)}]`,
    uid: Number(uid),
    startedAtMs: bootTimeMs() + (Number(fields[19]) / TICKS_PER_S) * 1000,
    state: fields[0] ?? '?',
    container: containerOf(pid),
  };
}

/** An open file of a process. */
export interface OpenFile {
  readonly descriptor: string;
  /** As the system names it now, with ` (deleted)` behind the path of a file that has lost its name. */
  readonly name: string;
}

/** The open files of a process, without sockets and the like; undefined if this user may not see them. */
export function openFilesOf(pid: number): OpenFile[] | undefined {
  let descriptors: string[];
  try {
    descriptors = readdirSync(`/proc/${pid}/fd`);
  } catch (error) {
    return isGone(error) ? [] : undefined;
  }
  return descriptors.flatMap((descriptor) => {
    const name = link(`/proc/${pid}/fd/${descriptor}`);
    return name?.startsWith('/') === true ? [{ descriptor, name }] : [];
  });
}

/** `PF_KTHREAD`: a thread of the kernel, which has no files. */
const KERNEL_THREAD = 0x00200000;

export function isKernelThread(pid: number): boolean {
  const stat = text(`/proc/${pid}/stat`) ?? '';
  const flags = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[6]);
  return (flags & KERNEL_THREAD) !== 0;
}

/**
 * The inode of an open file; undefined if it was closed. Does not touch its file system, which may be one that hangs,
 * unless the kernel is older than 5.14.
 */
export function inodeOf(pid: number, { descriptor }: OpenFile): string | undefined {
  const info = text(`/proc/${pid}/fdinfo/${descriptor}`);
  const inode = info === undefined ? undefined : /^ino:\s*(\d+)/m.exec(info)?.[1];
  return inode ?? fileOf(pid, descriptor)?.split(':')[1];
}

/** `device:inode` of a descriptor of a process; undefined if it was closed. */
export function fileOf(pid: number, descriptor: string): string | undefined {
  try {
    const { dev, ino } = statSync(`/proc/${pid}/fd/${descriptor}`, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

/** A file by its name here, and what the system calls it. */
export interface NamedFile {
  readonly path: string;
  readonly inode: string;
  /** `device:inode`. */
  readonly id: string;
}

/** The file at `path`; undefined if there is none. */
export function fileNamed(path: string): NamedFile | undefined {
  const stats = statSync(path, { throwIfNoEntry: false, bigint: true });
  if (stats === undefined) return undefined;
  return { path, inode: String(stats.ino), id: `${stats.dev}:${stats.ino}` };
}

/**
 * True if an open file of a process, with this inode, is `file`. Some file systems report another device for a descriptor
 * than for a path. In a container the same name, and even the same inode, may be those of another file.
 */
export function isSameFile(pid: number, open: OpenFile, inode: string | undefined, file: NamedFile): boolean {
  if (inode !== file.inode) return false;
  return fileOf(pid, open.descriptor) === file.id || (open.name === file.path && sharesNames(pid));
}

/** A file that a process has mapped into its memory. */
export interface MappedFile {
  readonly inode: string;
  readonly name: string;
}

/** The mapped files of a process, each once; empty if this user may not see them. */
export function mappedFilesOf(pid: number): MappedFile[] {
  const found = new Map<string, MappedFile>();
  for (const line of (text(`/proc/${pid}/maps`) ?? '').split('\n')) {
    const [, inode, name] = /^\S+ \S+ \S+ \S+ (\d+) +(\/.*)$/.exec(line) ?? [];
    if (inode !== undefined && name !== undefined) found.set(`${inode} ${name}`, { inode, name });
  }
  return [...found.values()];
}

/** A thread that sleeps for a time that it chose itself, as SQLite's busy handler does. */
export interface Nap {
  readonly thread: string;
  /** How often the thread has gone to sleep since it started. */
  readonly sleeps: number;
}

/** The threads of a process that sleep so now; empty if this user may not see it. */
export function nappingThreads(pid: number): Nap[] {
  return entries(`/proc/${pid}/task`).flatMap((thread) => {
    const folder = `/proc/${pid}/task/${thread}`;
    if (text(`${folder}/wchan`)?.includes('nanosleep') !== true) return [];
    const sleeps = /^voluntary_ctxt_switches:\s*(\d+)/m.exec(text(`${folder}/status`) ?? '')?.[1];
    return sleeps === undefined ? [] : [{ thread, sleeps: Number(sleeps) }];
  });
}

/** True if the names of files mean the same to the process as here; false for one in a container, or if it is not seen. */
export function sharesNames(pid: number): boolean {
  const mounts = link(`/proc/${pid}/ns/mnt`);
  return mounts !== undefined && mounts === link('/proc/self/ns/mnt');
}

/** The id of the PID namespace; processes of others are not listed, or not with their ids there. */
function pidNamespace(pid: number | 'self'): string | undefined {
  return link(`/proc/${pid}/ns/pid`);
}

/** Docker, Podman, containerd and Kubernetes have the container's id in the name of its control group. */
function containerOf(pid: number): string | undefined {
  const id = (name: number | 'self'): string | undefined =>
    /[-/:]([0-9a-f]{64})(?:\.scope)?(?:\/|$)/m.exec(text(`/proc/${name}/cgroup`) ?? '')?.[1];
  const container = id(pid);
  if (container !== undefined && container !== id('self')) return container.slice(0, 12);
  const namespace = pidNamespace(pid);
  return namespace === undefined || namespace === pidNamespace('self') ? undefined : namespace;
}

let bootedAtMs: number | undefined;

function bootTimeMs(): number {
  bootedAtMs ??= Number(/^btime (\d+)/m.exec(text('/proc/stat') ?? '')?.[1] ?? 0) * 1000;
  return bootedAtMs;
}

function text(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function link(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

function entries(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function isGone(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ESRCH');
}
