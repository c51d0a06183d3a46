import assert from 'node:assert/strict';
import { extname } from 'node:path';
import { MessageChannel, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import type { PageWriter, WriterCalls } from './page-writer.ts';
import type { WriterOptions } from './replica-writer.ts';
import { awaitThread } from '../thread-life.ts';
import { errorFromData } from '../../errors.ts';
import type { FromWriter, ThreadStart, ToWriter } from './writer-messages.ts';

/** The size of a slot in which pages are handed over. */
const SLOT_BYTES = 512 * 1024;

const SLOTS = 8;

/** Free slots that `ready` waits for: room for the pages of one message, at most 1 MiB, wherever they begin. */
const READY_SLOTS = 3;

/** The thread makes little garbage; by default its heap would take 30 MB for it. */
const THREAD_YOUNG_HEAP_MB = 3;

/** A thread that has died gives no answer, and not all systems report that it has. */
const READ_TIMEOUT_MS = 60_000;

/** The thread of a writer could not start, or has died and its transaction with it. */
export class WriterThreadLost extends Error {
  /** True if a commit was under way. */
  readonly mayHaveCommitted: boolean;

  constructor(
    why: string,
    { mayHaveCommitted = false, cause }: { mayHaveCommitted?: boolean; cause?: unknown },
  ) {
    super(`the thread that writes it has ended: ${why}`, { cause });
    this.name = 'WriterThreadLost';
    this.mayHaveCommitted = mayHaveCommitted;
  }
}

interface Waiter {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/**
 * A writer in a separate thread, so that this thread can receive and check pages while the ones before are written, and
 * a long commit does not keep it from its connection.
 *
 *     this thread   writePage … │ buffer full ──► writePage …      │ call('commit') ──►  … signs of life …  ◄── result
 *     writer's                  └──► INSERT INTO sqlite_dbpage …   └──► COMMIT
 */
export class ThreadPageWriter implements PageWriter {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #answered: Int32Array;
  readonly #pageSize: number;
  readonly #slots: Uint8Array;
  readonly #free: number[] = Array.from({ length: SLOTS }, (_, slot) => slot);
  /** The pages in the slot that is being filled. */
  #slot: number | undefined;
  #numbers: number[] = [];
  readonly #calls: Waiter[] = [];
  /** Why the writer can answer no more calls. */
  #failure: Error | undefined;
  /** Why a page could not be written; only a rollback is possible then. */
  #pageFailure: Error | undefined;
  #isCommitting = false;
  #wake: (() => void) | undefined;

  /**
   * Rejects with what opening the connection threw, and with WriterThreadLost.
   * @param path Absolute.
   * @param pageSize Bytes.
   */
  static async open(path: string, pageSize: number, options: WriterOptions): Promise<ThreadPageWriter> {
    let writer: ThreadPageWriter;
    try {
      writer = new ThreadPageWriter(path, pageSize, options);
    } catch (error) {
      throw new WriterThreadLost(String(error), { cause: error });
    }
    try {
      await new Promise((resolve, reject) => writer.#calls.push({ resolve, reject }));
      return writer;
    } catch (error) {
      await writer.end();
      throw error;
    }
  }

  private constructor(path: string, pageSize: number, options: WriterOptions) {
    this.#pageSize = pageSize;
    const { port1, port2 } = new MessageChannel();
    const answered = new SharedArrayBuffer(8);
    const slots = new SharedArrayBuffer(SLOTS * SLOT_BYTES);
    this.#slots = new Uint8Array(slots);
    this.#port = port1;
    this.#answered = new Int32Array(answered);
    const shared = { answered, slots, slotBytes: SLOT_BYTES };
    const start: ThreadStart = { path, pageSize, options, port: port2, ...shared };
    this.#worker = new Worker(threadModule(), {
      workerData: start,
      transferList: [port2],
      resourceLimits: { maxYoungGenerationSizeMb: THREAD_YOUNG_HEAP_MB },
    });
    this.#worker.on('error', (error: Error) => this.#lose(error.message, error));
    this.#worker.on('exit', (status) => this.#lose(`exit status ${status}`));
    port1.on('message', (message: FromWriter) => this.#onMessage(message));
  }

  async call<M extends keyof WriterCalls>(
    method: M,
    ...parameters: Parameters<WriterCalls[M]>
  ): Promise<ReturnType<WriterCalls[M]>> {
    this.#hand();
    if (this.#failure !== undefined) throw this.#failure;
    if (method === 'rollback') this.#pageFailure = undefined;
    if (method === 'commit') this.#isCommitting = true;
    const result = await new Promise<unknown>((resolve, reject) => {
      this.#calls.push({ resolve, reject });
      this.#send({ kind: 'call', method, parameters });
    });
    if (method === 'commit') this.#isCommitting = false;
    return result as ReturnType<WriterCalls[M]>;
  }

  writePage(page: number, bytes: Uint8Array): void {
    this.#slot ??= this.#free.pop();
    assert(this.#slot !== undefined, 'more pages came than ready() made room for');
    this.#slots.set(bytes, this.#slot * SLOT_BYTES + this.#numbers.length * this.#pageSize);
    this.#numbers.push(page);
    if ((this.#numbers.length + 1) * this.#pageSize > SLOT_BYTES) this.#hand();
  }

  async ready(): Promise<void> {
    const isReady = (): boolean => this.#free.length >= READY_SLOTS;
    while (!isReady() && this.#failure === undefined && this.#pageFailure === undefined) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const failure = this.#failure ?? this.#pageFailure;
    if (failure !== undefined) throw failure;
  }

  readPage(page: number): Uint8Array {
    assert.equal(this.#calls.length, 0, 'a page was asked for while a call is under way');
    this.#hand();
    if (this.#failure !== undefined) throw this.#failure;
    Atomics.store(this.#answered, 0, 0);
    this.#send({ kind: 'read', page });
    const thread = Atomics.load(this.#answered, 1);
    const isAnswered = awaitThread(this.#answered, 0, 0, { thread, timeoutMs: READ_TIMEOUT_MS });
    for (;;) {
      const received = isAnswered ? receiveMessageOnPort(this.#port) : undefined;
      if (received === undefined) {
        this.#lose(`the thread gave no answer to a request for page ${page}`);
        throw this.#failure ?? new Error('the writer has no failure');
      }
      const message = received.message as FromWriter;
      if (message.kind === 'page') return message.bytes;
      if (message.kind === 'failed') throw errorFromData(message.error);
      this.#onMessage(message);
    }
  }

  async end(): Promise<void> {
    this.#fail(new Error('the writer was ended'));
    this.#port.close();
    await this.#worker.terminate();
  }

  /** Hands the collected pages to the thread. */
  #hand(): void {
    if (this.#slot === undefined || this.#numbers.length === 0) return;
    this.#send({ kind: 'pages', numbers: this.#numbers, slot: this.#slot });
    this.#slot = undefined;
    this.#numbers = [];
  }

  #send(message: ToWriter): void {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a MessagePort, not a window
    this.#port.postMessage(message);
  }

  #onMessage(message: FromWriter): void {
    switch (message.kind) {
      case 'taken':
        this.#free.push(message.slot);
        if (message.failure !== undefined) this.#pageFailure ??= errorFromData(message.failure);
        return this.#awake();
      case 'failed':
        return this.#calls.shift()?.reject(errorFromData(message.error));
      case 'open':
        return this.#calls.shift()?.resolve(undefined);
      case 'result':
        return this.#calls.shift()?.resolve(message.value);
      case 'page':
        throw new Error('a page came without a request');
    }
  }

  #lose(why: string, cause?: unknown): void {
    this.#fail(new WriterThreadLost(why, { mayHaveCommitted: this.#isCommitting, cause }));
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const waiter of this.#calls.splice(0)) waiter.reject(this.#failure);
    this.#awake();
  }

  #awake(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

/**
 * As `open`; undefined if no thread can start, for example for lack of memory or descriptors: then this thread can
 * write.
 */
export async function openThreadWriter(
  path: string,
  pageSize: number,
  options: WriterOptions,
): Promise<ThreadPageWriter | undefined> {
  try {
    return await ThreadPageWriter.open(path, pageSize, options);
  } catch (error) {
    if (error instanceof WriterThreadLost) return undefined;
    throw error;
  }
}

/** Beside this file, in the language that this file runs in. */
function threadModule(): URL {
  return new URL(`writer-thread${extname(import.meta.filename)}`, import.meta.url);
}
