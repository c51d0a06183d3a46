import { extname } from 'node:path';
import { MessageChannel, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import { awaitThread } from '../../sqlite/thread-life.ts';
import { CELLS } from './decompressor-messages.ts';
import type {
  Decompressed,
  DecompressorStart,
  FrameBytes,
  FrameParts,
  ToDecompress,
} from './decompressor-messages.ts';

/** The thread ends after this time without a request. */
const IDLE_MS = 2000;

/** A thread that has died gives no answer, and not all systems report that it has. */
const TIMEOUT_MS = 30_000;

/** The same for a thread that was started and has not reported yet. */
const START_TIMEOUT_MS = 5000;

/** The thread makes little garbage; by default its heap would take 30 MB for it. */
const THREAD_YOUNG_HEAP_MB = 2;

/**
 * Reads and decompresses frames in a separate thread. `take` waits without a turn of the event loop, since pages are
 * read in the middle of hashing. There is one per process; its thread runs while there is work. After a thread has
 * died, for example for lack of descriptors or memory, there is no other: callers then read frames themselves.
 *
 *     this thread   start(a) start(b) … │ work │ take(a) │ work │ take(b)
 *     its thread    └──► a ──► b ───────────────┘                └ (waits only where it is not done yet)
 */
class Decompressor {
  #thread: DecompressorThread | undefined;
  /** True after a thread has died, or could not start. */
  #isBroken = false;
  readonly #underWay = new Set<number>();
  readonly #results = new Map<number, FrameParts | undefined>();
  #nextId = 1;
  #idle: NodeJS.Timeout | undefined;

  /** True while there is no thread. */
  get isIdle(): boolean {
    return this.#thread === undefined;
  }

  /**
   * True if a thread runs and has reported. Starts one, which takes a while. `take` waits for frames that were given to
   * it before, even if they fail.
   */
  isUp(): boolean {
    const thread = this.#running();
    return thread !== undefined && Atomics.load(thread.cells, CELLS.isUp) === 1;
  }

  /**
   * Begins with a frame of a pack. Takes over `plain` and the memory behind it. Hashes the whole pages in it if
   * `wantsIds`. Returns the number for `take`; undefined if no thread can start.
   */
  start(frame: FrameBytes, wantsIds: boolean = false): number | undefined {
    const thread = this.#running();
    if (thread === undefined) return undefined;
    const id = this.#nextId++;
    this.#underWay.add(id);
    const job: ToDecompress = { id, frame, wantsIds };
    thread.port.postMessage(job, 'plain' in frame ? [frame.plain.buffer as ArrayBuffer] : []);
    return id;
  }

  /** True if `take` would not have to wait. */
  isDone(id: number): boolean {
    this.#collect();
    return !this.#underWay.has(id);
  }

  /** The result, once; undefined if it could not be made, or is not compressed. Waits for it. */
  take(id: number | undefined): FrameParts | undefined {
    if (id === undefined) return undefined;
    while (this.#underWay.has(id) && this.#thread !== undefined) {
      const { cells } = this.#thread;
      const seen = Atomics.load(cells, CELLS.done);
      this.#collect();
      if (!this.#underWay.has(id)) break;
      const timeoutMs = this.isUp() ? TIMEOUT_MS : START_TIMEOUT_MS;
      const thread = Atomics.load(cells, CELLS.thread);
      if (!awaitThread(cells, CELLS.done, seen, { thread, timeoutMs })) this.#giveUp();
    }
    const result = this.#results.get(id);
    this.#results.delete(id);
    return result;
  }

  #collect(): void {
    for (;;) {
      const received = this.#thread && receiveMessageOnPort(this.#thread.port);
      if (received === undefined) return;
      const { id, parts } = received.message as Decompressed;
      this.#underWay.delete(id);
      this.#results.set(id, parts);
    }
  }

  /** undefined if no thread can start. */
  #running(): DecompressorThread | undefined {
    if (this.#isBroken) return undefined;
    try {
      this.#thread ??= startThread((worker) => {
        if (this.#thread?.worker === worker) this.#giveUp();
      });
    } catch {
      this.#giveUp();
      return undefined;
    }
    this.#endWhenIdle();
    return this.#thread;
  }

  /** Another thread would probably die as well, after the same wait. */
  #giveUp(): void {
    this.#isBroken = true;
    this.#end();
  }

  #endWhenIdle(): void {
    if (this.#idle === undefined) this.#idle = setTimeout(() => this.#end(), IDLE_MS).unref();
    else this.#idle.refresh();
  }

  #end(): void {
    clearTimeout(this.#idle);
    this.#idle = undefined;
    void this.#thread?.worker.terminate();
    this.#thread?.port.close();
    this.#thread = undefined;
    this.#underWay.clear();
    this.#results.clear();
  }
}

export const decompressor: Decompressor = new Decompressor();

interface DecompressorThread {
  readonly worker: Worker;
  readonly port: MessagePort;
  readonly cells: Int32Array;
}

/** @param onEnd - called when the thread has ended, for any reason. */
function startThread(onEnd: (worker: Worker) => void): DecompressorThread {
  const { port1, port2 } = new MessageChannel();
  const shared = new SharedArrayBuffer(4 * CELLS.count);
  const start: DecompressorStart = { port: port2, shared };
  const program = new URL(`./decompressor-thread${extname(import.meta.filename)}`, import.meta.url);
  const worker = new Worker(program, {
    workerData: start,
    transferList: [port2],
    execArgv: [],
    name: 'sqlsync-decompress',
    resourceLimits: { maxYoungGenerationSizeMb: THREAD_YOUNG_HEAP_MB },
  });
  worker.on('error', () => onEnd(worker));
  worker.on('exit', () => onEnd(worker));
  worker.unref();
  port1.unref();
  return { worker, port: port1, cells: new Int32Array(shared) };
}
