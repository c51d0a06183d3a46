import { isBusy } from '../../sqlite/busy.ts';
import { abortedError } from '../pool-errors.ts';
import type { ReadCounters } from './read-counters.ts';
import type { Lease } from './read-line.ts';
import { ReadLine } from './read-line.ts';
import type { QueryMode, WorkerOptions } from './read-messages.ts';
import type { RunningQuery } from './read-thread.ts';
import { ReadThread } from './read-thread.ts';
import type { SqlParams, WaitOptions } from '../types.ts';

/** Queries in worker threads, each with its own connection: a slow query does not delay the event loop. */
export class ReadThreads {
  readonly line: ReadLine<ReadThread>;
  readonly #capacity: number;
  readonly #counters: ReadCounters;
  /** Killed threads that are still within a step of SQLite. */
  readonly #dying = new Set<ReadThread>();

  /** @param connection The connection that each thread opens. */
  constructor(capacity: number, connection: WorkerOptions, counters: ReadCounters) {
    this.#capacity = capacity;
    this.#counters = counters;
    this.line = new ReadLine({
      capacity,
      what: 'threads',
      option: 'threads',
      busyTimeoutMs: connection.options.timeoutMs,
      counters,
      open: () => this.#open(connection),
    });
  }

  all(sql: string, params: SqlParams | undefined, options: WaitOptions): Promise<unknown[]> {
    return this.#collect(sql, params, options, 'rows');
  }

  /** All rows as arrays of their columns. */
  values(sql: string, params: SqlParams | undefined, options: WaitOptions): Promise<unknown[]> {
    return this.#collect(sql, params, options, 'values');
  }

  async get(sql: string, params: SqlParams | undefined, options: WaitOptions): Promise<unknown> {
    let first: unknown;
    for await (const chunk of this.#chunks(sql, params, options, 'get')) first ??= chunk[0];
    return first;
  }

  async *iterate(
    sql: string,
    params: SqlParams | undefined,
    options: WaitOptions,
  ): AsyncGenerator<unknown, void, undefined> {
    for await (const chunk of this.#chunks(sql, params, options, 'rows')) yield* chunk;
  }

  /** Resolves when nothing runs or waits and all threads are gone. */
  async close(): Promise<void> {
    const threads = await this.line.drained();
    await Promise.all(threads.map((thread) => thread.close()));
    await Promise.all([...this.#dying].map((thread) => thread.gone()));
  }

  async #collect(
    sql: string,
    params: SqlParams | undefined,
    options: WaitOptions,
    mode: QueryMode,
  ): Promise<unknown[]> {
    const rows: unknown[] = [];
    for await (const chunk of this.#chunks(sql, params, options, mode)) {
      // The usual answer is one chunk.
      if (rows.length === 0) rows.push(...chunk);
      else for (const row of chunk) rows.push(row);
    }
    return rows;
  }

  async *#chunks(
    sql: string,
    params: SqlParams | undefined,
    options: WaitOptions,
    mode: QueryMode,
  ): AsyncGenerator<unknown[], void, undefined> {
    const { signal } = options;
    const lease = await this.line.take(options, performance.now());
    const thread = lease.resource;
    const abort = (): void => this.#kill(thread, abortedError(signal as AbortSignal, 'read'));
    signal?.addEventListener('abort', abort, { once: true });
    try {
      // The signal may have aborted after the turn was granted and before this took it.
      if (signal?.aborted === true) throw abortedError(signal, 'read');
      const query = thread.query(sql, params, mode);
      for (let isDone = false; !isDone;) {
        const chunk = await this.#next(query, lease);
        isDone = chunk.isDone;
        yield chunk.rows;
      }
    } finally {
      signal?.removeEventListener('abort', abort);
      this.#giveBack(lease);
    }
  }

  async #next(query: RunningQuery, lease: Lease<ReadThread>): ReturnType<RunningQuery['next']> {
    try {
      return await query.next();
    } catch (error) {
      throw isBusy(error) ? this.#counters.refused(lease, error) : error;
    }
  }

  #open(connection: WorkerOptions): ReadThread {
    const thread: ReadThread = new ReadThread(connection, () => {
      this.#counters.workersLost += 1;
      this.line.discardIdle(thread);
    });
    return thread;
  }

  #kill(thread: ReadThread, error: Error): void {
    this.#dying.add(thread);
    void thread.gone().then(() => this.#dying.delete(thread));
    thread.kill(error);
  }

  /** A thread whose answer was dropped still has to notice. A killed one is replaced, unless too many are dying. */
  #giveBack(lease: Lease<ReadThread>): void {
    const thread = lease.resource;
    if (thread.isLost) {
      if (this.#dying.size <= this.#capacity) this.line.discard(lease);
      else void thread.gone().then(() => this.line.discard(lease));
    } else if (thread.isFree) this.line.give(lease);
    else void thread.stop().then(() => this.#giveBack(lease));
  }
}
