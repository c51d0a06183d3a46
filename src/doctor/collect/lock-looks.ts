import { fileNamed, inodeOf, isSameFile, openFilesOf, processIds } from '../../files/processes.ts';
import type { NamedFile } from '../../files/processes.ts';
import { locksOfDescriptor } from '../../sqlite/locks/proc-locks.ts';
import type { PosixLock } from '../../sqlite/locks/proc-locks.ts';
import { locksByName, sqliteLocks } from '../../sqlite/locks/sqlite-locks.ts';
import type { SqliteLock } from '../../sqlite/locks/sqlite-locks.ts';

/** All programs that lock files, any files, feel it if a list that costs more is read. */
const CHEAP_LIST_MS = 0.25;
/** The cheapest of so many readings shows what one costs: others were interrupted. */
const COSTS_KEPT = 3;
/** A list that costs more is read so often, or after so many times its cost. */
const LIST_EVERY_MS = 5000;
export const LONG_LIST_SHARE = 1000;
/** How often new processes are looked for, and for how long one counts as new. */
const NEW_EVERY_MS = 250;
const NEW_FOR_MS = 5000;

/**
 * The locks on a database, look after look. While the system has few locks, each look reads its list. Reading a long list
 * stops all programs that take or release a lock. Then most looks read only the locks that processes took by their
 * descriptors of the database and its -shm. A process that this user may not look into is found in the list alone; while
 * one has a lock there, each look reads the list.
 */
export class LockLooks {
  readonly #path: string;
  readonly #listCosts: number[] = [];
  #listedAtMs = -Infinity;
  /** True if the last list had a lock of a process whose descriptors are not seen. */
  #needsList = false;
  #soughtAtMs = -Infinity;
  /** Those of the processes that have the database open, by process. */
  readonly #descriptors = new Map<number, readonly string[]>();
  /** When each process was first seen. */
  #firstSeenMs = new Map<number, number>();

  /** @param path - absolute and real. */
  constructor(path: string) {
    this.#path = path;
    for (const pid of processIds()) this.#firstSeenMs.set(pid, -Infinity);
  }

  /** What the next look costs, in milliseconds, if it has to read a long list; else 0. */
  get longListMs(): number {
    return this.#needsList ? this.#longMs : 0;
  }

  /** `pids` are processes that have the database open, as far as it is known. */
  look(pids: Iterable<number>): SqliteLock[] {
    const nowMs = performance.now();
    const costMs = this.#longMs;
    if (costMs === 0) return this.#list();
    for (const pid of pids) if (!this.#descriptors.has(pid)) this.#describe(pid);
    if (nowMs - this.#soughtAtMs >= NEW_EVERY_MS) this.#lookForNew(nowMs);
    const isDue = nowMs - this.#listedAtMs >= Math.max(LIST_EVERY_MS, costMs * LONG_LIST_SHARE);
    return this.#needsList || isDue ? this.#list() : this.#byDescriptors();
  }

  /** What a list costs, in milliseconds; 0 if that is little. */
  get #longMs(): number {
    const costMs = this.#listCosts.length < COSTS_KEPT ? 0 : Math.min(...this.#listCosts);
    return costMs <= CHEAP_LIST_MS ? 0 : costMs;
  }

  #list(): SqliteLock[] {
    const beganMs = performance.now();
    const locks = sqliteLocks(this.#path);
    this.#listedAtMs = performance.now();
    this.#listCosts.push(this.#listedAtMs - beganMs);
    if (this.#listCosts.length > COSTS_KEPT) this.#listCosts.shift();
    if (this.#longMs > 0)
      this.#needsList = locks.some(({ pid }) => !this.#descriptors.has(pid) && !this.#describe(pid));
    return locks;
  }

  #byDescriptors(): SqliteLock[] {
    const names = [this.#path, `${this.#path}-shm`];
    const files = names.map(fileNamed);
    const found: readonly PosixLock[][] = names.map(() => []);
    for (const pid of this.#descriptors.keys()) {
      let ofProcess = this.#locksOf(pid, files);
      if (!ofProcess.isComplete) {
        this.#describe(pid);
        ofProcess = this.#locksOf(pid, files);
      }
      for (const [n, locks] of ofProcess.byFile.entries()) found[n]?.push(...locks);
    }
    return locksByName(found[0] ?? [], found[1] ?? []);
  }

  /** Incomplete if the process may have others by descriptors that are not known: each connection has both files open. */
  #locksOf(
    pid: number,
    files: readonly (NamedFile | undefined)[],
  ): { readonly byFile: readonly PosixLock[][]; readonly isComplete: boolean } {
    const left = new Set(this.#descriptors.get(pid));
    let isComplete = true;
    const byFile = files.map((file) => {
      if (file === undefined) return [];
      const found: PosixLock[] = [];
      let count = 0;
      for (const descriptor of left) {
        const locks = locksOfDescriptor(pid, descriptor, file.inode);
        if (locks === undefined) continue;
        found.push(...locks);
        left.delete(descriptor);
        count++;
      }
      isComplete &&= count > 0;
      return found;
    });
    return { byFile, isComplete: isComplete && left.size === 0 };
  }

  /** Looks into processes that came of late, and were not seen to have the database open. */
  #lookForNew(nowMs: number): void {
    this.#soughtAtMs = nowMs;
    const seen = new Map<number, number>();
    for (const pid of processIds()) {
      const sinceMs = this.#firstSeenMs.get(pid) ?? nowMs;
      seen.set(pid, sinceMs);
      if (nowMs - sinceMs <= NEW_FOR_MS && !this.#descriptors.has(pid)) this.#describe(pid);
    }
    this.#firstSeenMs = seen;
    for (const pid of this.#descriptors.keys()) if (!seen.has(pid)) this.#descriptors.delete(pid);
  }

  /** Finds the descriptors of a process; false if it may not be looked into. */
  #describe(pid: number): boolean {
    if (pid === process.pid) return true;
    const files = [this.#path, `${this.#path}-shm`].map(fileNamed).filter((file) => file !== undefined);
    const open = openFilesOf(pid);
    if (open === undefined) return false;
    const descriptors = open
      .filter((each) => {
        const inode = inodeOf(pid, each);
        return files.some((file) => isSameFile(pid, each, inode, file));
      })
      .map(({ descriptor }) => descriptor);
    if (descriptors.length > 0 || this.#descriptors.has(pid)) this.#descriptors.set(pid, descriptors);
    return true;
  }
}
