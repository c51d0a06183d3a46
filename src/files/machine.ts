import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';

/**
 * The name of this host, for messages and for the mark. Cloned machines share it, and each container has another one.
 */
export function hostName(): string {
  return hostname();
}

/**
 * A file (or '' for none) and the system that it is on, as text that two agents compare:
 *
 *     KERNEL        NAMESPACE          DEVICE:INODE
 *     a3c9…-…-…     mnt:[4026531841]   64512:1311
 *
 * Clones of a machine have the same device and inode for the same file, and the same host name, but each start of a
 * kernel has its own id. Containers share a kernel, and see other files under the same path.
 */
export function systemFileId(fileId: string): string {
  const { kernel, namespace } = thisSystem();
  return [kernel, namespace, fileId].join(' ');
}

/** Compares files of this system with one that another agent described by {@link systemFileId}. */
export interface ToldFile {
  /** True if it is this file, under any path. */
  is(fileId: string): boolean;
  /** True if the other agent runs on this kernel, and sees the same files under the same paths. */
  readonly isHere: boolean;
  /** True if it is a file, and not the lack of one. */
  readonly exists: boolean;
  /** True if it is on another machine, even one of the same name. */
  readonly isElsewhere: boolean;
}

/** A text without information is neither here nor elsewhere. */
export function readSystemFileId(text: string): ToldFile {
  const [kernel, namespace, fileId] = text.split(' ');
  const own = thisSystem();
  const isOnKernel = kernel === own.kernel;
  return {
    is: (known) => isOnKernel && fileId === known,
    isHere: isOnKernel && namespace === own.namespace,
    exists: (fileId ?? '') !== '',
    isElsewhere: fileId !== undefined && !isOnKernel,
  };
}

interface System {
  readonly kernel: string;
  readonly namespace: string;
}

let known: System | undefined;

/** The id of this start of the kernel; undefined on systems without one. */
export function bootId(): string | undefined {
  return read(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
}

/** Names what counts process ids: this start of the kernel, and the PID namespace of a container. */
export function processSpace(): string {
  return `${thisSystem().kernel} ${read(() => readlinkSync('/proc/self/ns/pid')) ?? '-'}`;
}

/** Linux has an id for each start of the kernel; other systems only have the host's name. */
function thisSystem(): System {
  return (known ??= {
    kernel: bootId() ?? hostname(),
    namespace: read(() => readlinkSync('/proc/self/ns/mnt')) ?? '-',
  });
}

function read(from: () => string): string | undefined {
  try {
    return from();
  } catch {
    return undefined;
  }
}
