import { chmodSync, chownSync, closeSync, lstatSync, mkdirSync, openSync } from 'node:fs';
import { renameSync, rmSync, rmdirSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { threadId } from 'node:worker_threads';
import { realPath } from '../../files/path-names.ts';

/**
 * Where the processes of one database meet:
 *
 *     .NAME.sqlsync-queue        the socket on which the coordinator listens
 *     .NAME.sqlsync-queue-lock   the coordinator's lock, which dies with it: then the socket it left is free
 *     .NAME.sqlsync-queue-new/   where a coordinator makes its socket; only the holder of the lock does
 */
export class QueueSocket {
  readonly databasePath: string;
  readonly lockPath: string;
  readonly #folder: string;
  readonly #name: string;
  #boundIn: number | undefined;

  /** Throws system errors if the database does not exist. */
  constructor(databasePath: string) {
    // A database has one queue for all names by which processes open it.
    this.databasePath = realPath(databasePath);
    this.#folder = dirname(this.databasePath);
    this.#name = `.${basename(this.databasePath)}.sqlsync-queue`;
    this.lockPath = join(this.#folder, `${this.#name}-lock`);
  }

  get #socketPath(): string {
    return join(this.#folder, this.#name);
  }

  get #newFolder(): string {
    return join(this.#folder, `${this.#name}-new`);
  }

  /** What the name of the socket is now: a link to a socket elsewhere is not ours. */
  get state(): 'free' | 'socket' | 'taken' {
    const found = lstatSync(this.#socketPath, { throwIfNoEntry: false });
    if (found === undefined) return 'free';
    return found.isSocket() ? 'socket' : 'taken';
  }

  /** Calls `connect` with the socket's path, or with a shorter path to the same socket. */
  connect<T>(connect: (path: string) => T): T {
    const path = this.#socketPath;
    if (isShort(path)) return connect(path);
    const descriptor = openShort(path);
    try {
      return connect(`/proc/self/fd/${descriptor}`);
    } finally {
      closeSync(descriptor);
    }
  }

  /**
   * Makes the socket: `listen` binds it in a folder that only this user may enter. It gets its name only with the
   * permissions of the database. The caller holds the lock.
   */
  makeSocket(listen: (path: string) => void): void {
    // Never the same name twice: when a predecessor ends, libuv removes the path that it had bound.
    const name = `${process.pid}-${threadId}-${++sockets}`;
    const path = join(this.#newFolder, name);
    rmSync(this.#newFolder, { recursive: true, force: true });
    mkdirSync(this.#newFolder, { mode: 0o700 });
    try {
      if (isShort(path)) listen(path);
      else listen(`/proc/self/fd/${(this.#boundIn = openShort(this.#newFolder))}/${name}`);
      this.giveDatabasePermissions(path);
      renameSync(path, this.#socketPath);
    } finally {
      rmSync(path, { force: true });
      rmdirSync(this.#newFolder);
    }
  }

  removeSocket(): void {
    rmSync(this.#socketPath, { force: true });
  }

  /**
   * Users who may write the database may queue, and no others: the same bits that SQLite gives its -wal and -shm. By
   * path, because closing a descriptor of the lock file would drop the lock.
   */
  giveDatabasePermissions(path: string): void {
    const database = statSync(this.databasePath);
    const own = changeOwner(path, database);
    // The database's group bits do not hold for members of another group.
    const bits = own.gid === database.gid ? 0o666 : 0o606;
    chmodSync(path, database.mode & bits);
  }

  /** Call it when nothing listens any more: libuv removes what it had bound, by the path it was given. */
  close(): void {
    if (this.#boundIn !== undefined) closeSync(this.#boundIn);
    this.#boundIn = undefined;
  }
}

let sockets = 0;

/** sockaddr_un holds 108 bytes (Linux) or 104. */
function isShort(path: string): boolean {
  return Buffer.byteLength(path) <= 100;
}

/** Linux's O_PATH: refers to a file of any kind without opening it. */
const O_PATH = 0o10000000;

/** Under /proc/self/fd every path is short. */
function openShort(path: string): number {
  if (process.platform !== 'linux') throw new Error(`a socket cannot have a path of this length: ${path}`);
  return openSync(path, O_PATH);
}

/** As SQLite does for its own files: the database's owner must be able to use root's files. */
function changeOwner(path: string, database: Stats): Stats {
  const own = lstatSync(path);
  if (own.uid === database.uid && own.gid === database.gid) return own;
  try {
    chownSync(path, process.getuid?.() === 0 ? database.uid : own.uid, database.gid);
  } catch {
    // If this user may not change the owner, fewer users can queue; the others retry.
  }
  return lstatSync(path);
}
