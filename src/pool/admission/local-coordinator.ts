import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { Coordinator } from './coordinator.ts';
import type { QueueSocket } from './queue-socket.ts';
import type { ThreadData, ThreadRequest } from './coordinator-thread.ts';
import type { ExclusiveLock } from '../../sqlite/locks/exclusive-lock.ts';
import { tryExclusiveLock } from '../../sqlite/locks/exclusive-lock.ts';

/** How long the members of a killed coordinator have to come back; they notice at once that it is gone. */
const RETURN_MS = 15;
/** The same when their number is known, so that the wait usually ends earlier. */
const MOVE_MS = 50;

/**
 * Coordinates the queue of one database while this process has it open. Alone, a socket in this event loop is enough.
 * With other members the coordinator moves to a thread: otherwise the computations of this process would delay all
 * others (measured: with 30 ms of work at a time, a third of the commits).
 */
export class LocalCoordinator {
  readonly #socket: QueueSocket;
  readonly #lock: ExclusiveLock;
  #coordinator: Coordinator | undefined;
  #thread: Worker | undefined;
  #isMoving = false;
  #isClosed = false;

  /**
   * Begins to coordinate; undefined if another process does, or is about to. Throws if there can be no socket: a folder
   * that cannot be written, a path that is too long, …
   */
  static tryOpen(socket: QueueSocket): LocalCoordinator | undefined {
    const lock = tryExclusiveLock(socket.lockPath);
    if (lock === undefined) return undefined;
    try {
      socket.giveDatabasePermissions(socket.lockPath);
      return new LocalCoordinator(socket, lock);
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  constructor(socket: QueueSocket, lock: ExclusiveLock) {
    this.#socket = socket;
    this.#lock = lock;
    this.#coordinator = new Coordinator(socket, {
      returnMs: socket.state === 'socket' ? RETURN_MS : 0,
      onCompany: () => this.#moveToThread(),
      onFailure: () => this.closeNow(),
    });
    closeAtExit(this);
  }

  /** Resolves when everything of it is gone. */
  async close(): Promise<void> {
    const thread = this.#thread;
    if (thread !== undefined && !this.#isClosed) {
      const exited = new Promise((resolve) => thread.once('exit', resolve));
      // The caller wants to see the end of the thread.
      thread.ref();
      tell(thread, { type: 'stop' });
      await exited;
    }
    this.closeNow();
  }

  /** As `close`, without waiting for the thread to end. */
  closeNow(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    localCoordinators.delete(this);
    try {
      this.#coordinator?.close();
      void this.#thread?.terminate();
      this.#socket.removeSocket();
    } finally {
      // Last: while this process holds the lock, no other makes a socket that this one could remove.
      this.#lock.release();
    }
  }

  #moveToThread(): void {
    if (this.#isMoving) return;
    this.#isMoving = true;
    const url = new URL(`./coordinator-thread${extname(import.meta.filename)}`, import.meta.url);
    const thread = new Worker(url, {
      name: 'sqlsync-queue',
      workerData: { databasePath: this.#socket.databasePath, returnMs: MOVE_MS } satisfies ThreadData,
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 4 },
    });
    thread.unref();
    this.#thread = thread;
    thread.once('message', () => {
      const coordinator = this.#coordinator;
      if (this.#isClosed || coordinator === undefined) return;
      // The name now belongs to the thread's socket, so that returning members find it.
      tell(thread, { type: 'expect', members: coordinator.members });
      coordinator.close();
      this.#coordinator = undefined;
    });
    // If there can be no thread, as in a program bundled into one file, the event loop continues to coordinate.
    thread.on('error', () => {});
    thread.once('exit', () => {
      this.#thread = undefined;
      if (this.#coordinator === undefined) this.closeNow();
    });
  }
}

function tell(thread: Worker, request: ThreadRequest): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- that is a window's
  thread.postMessage(request);
}

const localCoordinators = new Set<LocalCoordinator>();
let closesAtExit = false;

/** A program that ends without closing its database leaves nothing behind either, unless it is killed. */
function closeAtExit(coordinator: LocalCoordinator): void {
  localCoordinators.add(coordinator);
  if (closesAtExit) return;
  closesAtExit = true;
  process.on('exit', () => {
    for (const open of localCoordinators) open.closeNow();
  });
}
