import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { SqlsyncError, errorFromData } from '../../errors.ts';
import type { QueryMode, RowsReply, WorkerOptions, WorkerReply, WorkerRequest } from './read-messages.ts';
import { restoreBlobs } from './read-messages.ts';
import { requireText } from '../sql/statements.ts';
import type { SqlParams } from '../types.ts';

/** This many chunks of a result are under way: the caller consumes one while the thread reads the next. */
const CHUNKS_AHEAD = 2;

/** Beside this file, in the language that this file runs in. */
const PROGRAM = new URL(`./read-worker${extname(import.meta.filename)}`, import.meta.url);

/** The answer to one query, chunk by chunk. */
export interface RunningQuery {
  /** Rejects with the query's error, and once the thread has died or was killed. */
  next(): Promise<RowsReply>;
}

/**
 * A worker thread with its own connection, as the caller's thread sees it.
 *
 *     free ──query──► busy ──last chunk, error, 'stopped'──► free
 *       └───────────────┴──killed, or died──► lost
 *
 * A free thread does not keep the process alive.
 */
export class ReadThread {
  readonly #worker: Worker;
  readonly #gone: Promise<void>;
  #query: Answer | undefined;
  #lastId = 0;
  #isLost = false;
  #onFree: (() => void) | undefined;

  /** @param onLost Called if the thread ends unasked. */
  constructor(options: WorkerOptions, onLost: () => void) {
    // The program's own Node.js options (loaders, --test) are not for its threads.
    this.#worker = new Worker(PROGRAM, { workerData: options, execArgv: [], name: 'sqlsync-read' });
    this.#worker.unref();
    let cause: unknown;
    this.#worker.on('error', (error) => (cause = error));
    this.#worker.on('messageerror', (error) => {
      cause = error;
      void this.#worker.terminate();
    });
    this.#worker.on('message', (reply: WorkerReply) => this.#received(reply));
    this.#gone = new Promise((resolve) => {
      this.#worker.on('exit', (status) => {
        const wasExpected = this.#isLost;
        this.#lose(lostError(status, cause));
        if (!wasExpected) onLost();
        resolve();
      });
    });
  }

  /** True if it was killed or has died, and so is useless. */
  get isLost(): boolean {
    return this.#isLost;
  }

  get isFree(): boolean {
    return this.#query === undefined;
  }

  /** Begins a query of a free thread. */
  query(sql: string, params: SqlParams | undefined, mode: QueryMode): RunningQuery {
    requireText(sql);
    const id = (this.#lastId += 1);
    try {
      this.#send({ type: 'query', id, sql, params, mode, credit: CHUNKS_AHEAD });
    } catch (error) {
      // Only a value that SQLite does not have (a function) cannot be cloned.
      throw new TypeError('a parameter is no number, bigint, string, Uint8Array or null', { cause: error });
    }
    this.#worker.ref();
    const answer = new Answer(id, () => this.#send({ type: 'more', id }));
    this.#query = answer;
    return answer;
  }

  /** Drops the rest of the answer; resolves when the thread is free or lost. */
  async stop(): Promise<void> {
    if (this.#query === undefined) return;
    this.#send({ type: 'stop', id: this.#query.id });
    await new Promise<void>((resolve) => {
      this.#onFree = resolve;
    });
  }

  /**
   * Ends it, with `error` for its query. JavaScript ends at once. SQLite cannot be interrupted within a step, so the
   * thread may live on until its next row.
   */
  kill(error: Error): void {
    this.#lose(error);
    void this.#worker.terminate();
  }

  /** Resolves when the thread has ended. */
  gone(): Promise<void> {
    this.#worker.ref();
    return this.#gone;
  }

  /** Ends a free thread after closing its connection. */
  close(): Promise<void> {
    this.#isLost = true;
    this.#send({ type: 'close' });
    return this.gone();
  }

  #received(reply: WorkerReply): void {
    const query = this.#query;
    if (query === undefined || reply.id !== query.id) return;
    if (reply.type === 'rows') {
      if (reply.hasBlobs) restoreBlobs(reply.rows);
      query.came(reply);
      if (reply.isDone) this.#free();
    } else {
      if (reply.type === 'failed') query.fail(errorFromData(reply.error));
      this.#free();
    }
  }

  #lose(error: Error): void {
    this.#isLost = true;
    this.#query?.fail(error);
    this.#free();
  }

  #free(): void {
    this.#query = undefined;
    this.#worker.unref();
    this.#onFree?.();
    this.#onFree = undefined;
  }

  #send(request: WorkerRequest): void {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker, not a window
    this.#worker.postMessage(request);
  }
}

class Answer implements RunningQuery {
  readonly id: number;
  readonly #more: () => void;
  readonly #chunks: RowsReply[] = [];
  #failure: Error | undefined;
  #wanted: { resolve(chunk: RowsReply): void; reject(error: Error): void } | undefined;

  /** @param more Requests another chunk, beyond those that were already requested. */
  constructor(id: number, more: () => void) {
    this.id = id;
    this.#more = more;
  }

  next(): Promise<RowsReply> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const chunk = this.#chunks.shift();
    if (chunk !== undefined) return Promise.resolve(this.#taken(chunk));
    return new Promise((resolve, reject) => {
      this.#wanted = { resolve, reject };
    });
  }

  came(chunk: RowsReply): void {
    const wanted = this.#wanted;
    this.#wanted = undefined;
    if (wanted === undefined) this.#chunks.push(chunk);
    else wanted.resolve(this.#taken(chunk));
  }

  fail(error: Error): void {
    this.#failure = error;
    this.#wanted?.reject(error);
    this.#wanted = undefined;
  }

  #taken(chunk: RowsReply): RowsReply {
    if (!chunk.isDone) this.#more();
    return chunk;
  }
}

function lostError(status: number, cause: unknown): SqlsyncError {
  const reason = cause instanceof Error ? `: ${cause.message}` : '';
  return new SqlsyncError(
    'WORKER_LOST',
    `the worker thread of the query ended with status ${status} before its answer${reason}`,
    {
      hint: 'Run the query again: another thread takes its place.',
      ...(cause === undefined ? {} : { cause }),
    },
  );
}
