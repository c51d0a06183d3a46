import { MessageChannel, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import type {
  Decompressed,
  DecompressorStart,
  FrameBytes,
  FrameParts,
  ToDecompress,
} from './decompressor-thread.ts';

/** The thread ends when nobody asked for anything for so long. */
const IDLE_MS = 2000;

/** A thread that has died gives no answer. */
const TIMEOUT_MS = 30_000;

/** The thread makes little garbage; by default its heap would take 30 MB for it. */
const THREAD_YOUNG_HEAP_MB = 2;

/**
 * Reads and decompresses frames in a thread of its own. Results are taken without a turn of the event loop, since pages are read in the middle of hashing.
 * One for the process; its thread runs while there is something to do.
 *
 *     this thread   start(a) start(b) … │ work │ take(a) │ work │ take(b)
 *     its thread    └──► a ──► b ───────────────┘                └ (waits only where it is not done yet)
 */
class Decompressor {
  #thread: { readonly worker: Worker; readonly port: MessagePort; readonly done: Int32Array } | undefined;
  readonly #underWay = new Set<number>();
  readonly #results = new Map<number, FrameParts | undefined>();
  #nextId = 1;
  #idle: NodeJS.Timeout | undefined;

  /** True while there is no thread. */
  get isIdle(): boolean {
    return this.#thread === undefined;
  }

  /** Begins with a frame of a pack; takes `plain` over, and the memory behind it. Returns what to ask `take` for; undefined where no thread can be had. */
  start(frame: FrameBytes): number | undefined {
    const id = this.#nextId++;
    try {
      this.#thread ??= startThread();
    } catch {
      return undefined;
    }
    this.#underWay.add(id);
    const job: ToDecompress = { id, frame };
    this.#thread.port.postMessage(job, 'plain' in frame ? [frame.plain.buffer as ArrayBuffer] : []);
    this.#endWhenIdle();
    return id;
  }

  /** Whether `take` would not have to wait. */
  isDone(id: number): boolean {
    this.#collect();
    return !this.#underWay.has(id);
  }

  /** The result, once; undefined where it could not be made, or is not compressed. Waits for it. */
  take(id: number | undefined): FrameParts | undefined {
    if (id === undefined) return undefined;
    while (this.#underWay.has(id)) {
      const seen = this.#thread === undefined ? 0 : Atomics.load(this.#thread.done, 0);
      this.#collect();
      if (!this.#underWay.has(id) || this.#thread === undefined) break;
      if (Atomics.wait(this.#thread.done, 0, seen, TIMEOUT_MS) === 'timed-out') this.#end();
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

function startThread(): { worker: Worker; port: MessagePort; done: Int32Array } {
  const { port1, port2 } = new MessageChannel();
  const done = new SharedArrayBuffer(4);
  const start: DecompressorStart = { port: port2, done };
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  const worker = new Worker(new URL(`./decompressor-thread.${extension}`, import.meta.url), {
    workerData: start,
    transferList: [port2],
    execArgv: [],
    name: 'sqlsync-decompress',
    resourceLimits: { maxYoungGenerationSizeMb: THREAD_YOUNG_HEAP_MB },
  });
  // Who waits sees by the clock that it has died; all others do not need it.
  worker.on('error', () => {});
  worker.unref();
  port1.unref();
  return { worker, port: port1, done: new Int32Array(done) };
}
