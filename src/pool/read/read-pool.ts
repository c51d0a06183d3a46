import { SqlsyncError } from '../../errors.ts';
import { isBusy } from '../../sqlite/busy.ts';
import { QUERY_OPTIONS, SNAPSHOT_OPTIONS, copyOptions, notAFunction, optionsFault } from '../call-options.ts';
import { copyParams } from '../sql/copied-params.ts';
import type { UserFunctions } from '../sql/user-functions.ts';
import { settle } from '../event-loop.ts';
import { abortedError, closedError } from '../pool-errors.ts';
import { Reader, Snapshot, firstStep, remainingRows } from './read-connection.ts';
import { ReadCounters } from './read-counters.ts';
import type { Lease } from './read-line.ts';
import { ReadLine } from './read-line.ts';
import { ReadThreads } from './read-threads.ts';
import { retryWhileBusy } from '../retry.ts';
import type { PoolSettings } from '../settings.ts';
import { NO_LABEL, labelOf } from '../stats.ts';
import type {
  MaybePromise,
  QueryOptions,
  ReadConnection,
  ReadPool,
  ReadStats,
  SqlParams,
  SqlRow,
  SqlValue,
  WaitOptions,
} from '../types.ts';

/** How long one attempt may block the event loop while another process recovers the WAL. */
const ATTEMPT_TIMEOUT_MS = 2;

const NO_OPTIONS: QueryOptions = {};

type Run = (reader: Reader, sql: string, params: SqlParams | undefined) => unknown;

type ReadSettings = Pick<
  PoolSettings,
  'busyTimeoutMs' | 'readers' | 'threads' | 'safeIntegers' | 'statementCacheSize'
> & { readonly functions: UserFunctions };

/**
 * The read pool of a database. Opens nothing yet.
 * @param path As the application named it, for errors and events.
 * @param filePath The file to open; `path` may be a link to it.
 */
export function openReadPool(path: string, filePath: string, settings: ReadSettings): ReadConnections {
  return new ReadConnections(path, filePath, settings);
}

/**
 * The read pool. A query that finds a free connection runs at once, before the call returns, so it never takes a
 * connection from another caller. Snapshots and iterations take one until they end.
 */
export class ReadConnections implements ReadPool {
  readonly #busyTimeoutMs: number;
  readonly #counters: ReadCounters;
  readonly #line: ReadLine<Reader>;
  readonly #threads: ReadThreads | undefined;
  readonly #functions: UserFunctions;
  #isClosed = false;

  constructor(path: string, filePath: string, settings: ReadSettings) {
    const { busyTimeoutMs, safeIntegers, statementCacheSize, functions } = settings;
    const counters = new ReadCounters(path);
    this.#functions = functions;
    this.#busyTimeoutMs = busyTimeoutMs;
    this.#counters = counters;
    this.#line = new ReadLine({
      capacity: settings.readers,
      what: 'read connections',
      option: 'readers',
      busyTimeoutMs,
      counters,
      open: () =>
        new Reader(filePath, { safeIntegers, statementCacheSize, timeoutMs: ATTEMPT_TIMEOUT_MS }, functions),
    });
    if (settings.threads > 0) {
      const options = { safeIntegers, statementCacheSize, timeoutMs: busyTimeoutMs };
      this.#threads = new ReadThreads(settings.threads, { path: filePath, options }, counters);
    }
  }

  all<Row = SqlRow>(sql: string, params?: SqlParams, options: QueryOptions = NO_OPTIONS): Promise<Row[]> {
    const threads = this.#threads;
    if (threads !== undefined && this.#goesToThread(options)) {
      return this.#inThread(threads.all.bind(threads), runAll, sql, params, options) as Promise<Row[]>;
    }
    return this.#query(runAll, sql, params, options) as Promise<Row[]>;
  }

  get<Row = SqlRow>(
    sql: string,
    params?: SqlParams,
    options: QueryOptions = NO_OPTIONS,
  ): Promise<Row | undefined> {
    const threads = this.#threads;
    if (threads !== undefined && this.#goesToThread(options)) {
      return this.#inThread(threads.get.bind(threads), runGet, sql, params, options) as Promise<
        Row | undefined
      >;
    }
    return this.#query(runGet, sql, params, options) as Promise<Row | undefined>;
  }

  values(sql: string, params?: SqlParams, options: QueryOptions = NO_OPTIONS): Promise<SqlValue[][]> {
    const threads = this.#threads;
    if (threads !== undefined && this.#goesToThread(options)) {
      return this.#inThread(threads.values.bind(threads), runValues, sql, params, options) as Promise<
        SqlValue[][]
      >;
    }
    return this.#query(runValues, sql, params, options) as Promise<SqlValue[][]>;
  }

  iterate<Row = SqlRow>(
    sql: string,
    params?: SqlParams,
    options: QueryOptions = NO_OPTIONS,
  ): AsyncGenerator<Row, void, undefined> {
    return this.#countedRows(
      sql,
      copyParams(params),
      options === NO_OPTIONS ? options : copyOptions(options),
    );
  }

  async *#countedRows<Row>(
    sql: string,
    params: SqlParams | undefined,
    options: QueryOptions,
  ): AsyncGenerator<Row, void, undefined> {
    try {
      yield* this.#iterate<Row>(sql, params, options);
    } catch (error) {
      this.#counters.failed(labelOf(options), error);
      throw error;
    }
  }

  async *#iterate<Row>(
    sql: string,
    params: SqlParams | undefined,
    options: QueryOptions,
  ): AsyncGenerator<Row, void, undefined> {
    const refusal = this.#refusal(options);
    if (refusal !== undefined) throw refusal;
    if (this.#threads !== undefined && options.thread !== false) {
      try {
        yield* this.#threads.iterate(sql, params, options) as AsyncGenerator<Row, void, undefined>;
        return;
      } catch (error) {
        // It was not prepared, so that no row has come.
        if (!this.#functions.areMissedBy(error)) throw error;
      }
    }
    const lease = await this.#take(options, performance.now());
    const check = (): void => {
      if (options.signal?.aborted === true) throw abortedError(options.signal, 'read');
    };
    try {
      check();
      const reader = lease.resource;
      const { rows, first } = await this.#whileBusy(lease, () => {
        const begun = reader.iterate(sql, params);
        return { rows: begun, first: firstStep(reader, begun) };
      });
      yield* remainingRows<Row>(reader, rows, first, check);
    } finally {
      this.#line.give(lease);
    }
  }

  snapshot<T>(fn: (r: ReadConnection) => MaybePromise<T>, options: WaitOptions = NO_OPTIONS): Promise<T> {
    return this.#counted(options, this.#snapshot(fn, options));
  }

  async #snapshot<T>(fn: (r: ReadConnection) => MaybePromise<T>, options: WaitOptions): Promise<T> {
    const refusal = this.#refusal(options, 'a snapshot', SNAPSHOT_OPTIONS);
    if (refusal !== undefined) throw refusal;
    if (typeof fn !== 'function') throw notAFunction('read.snapshot()', fn);
    const { signal } = options;
    const lease = await this.#take(options, performance.now());
    const reader = lease.resource;
    try {
      await this.#whileBusy(lease, () => reader.begin());
      const snapshot = new Snapshot(reader, signal);
      try {
        return await fn(snapshot);
      } finally {
        snapshot.end();
      }
    } finally {
      this.#giveBack(lease);
    }
  }

  stats(): ReadStats {
    const nowMs = performance.now();
    const { timeouts, workersLost, failures, labels } = this.#counters;
    const threads = this.#threads?.line;
    return {
      connections: this.#line.opened,
      inUse: this.#line.inUse,
      threads: threads?.opened ?? 0,
      timeouts,
      workersLost,
      failed: failures.total,
      failures: failures.stats(),
      queueLength: this.#line.length + (threads?.length ?? 0),
      holders: [...this.#line.holders(nowMs), ...(threads?.holders(nowMs) ?? [])],
      waiting: [...this.#line.waiting(nowMs), ...(threads?.waiting(nowMs) ?? [])],
      labels: labels.stats(),
    };
  }

  /** Refuses new work; resolves when what runs and waits has ended and all connections are closed. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const threadsClosed = this.#threads?.close();
    for (const reader of await this.#line.drained()) reader.close();
    await threadsClosed;
  }

  #query(run: Run, sql: string, params: SqlParams | undefined, options: QueryOptions): Promise<unknown> {
    const refusal = this.#refusal(options);
    if (refusal !== undefined) return this.#rejected(options, refusal);
    const calledMs = performance.now();
    let rows: unknown;
    try {
      const reader = this.#line.peek();
      if (reader === undefined)
        return this.#counted(options, this.#queryLater(run, sql, params, options, calledMs));
      rows = run(reader, sql, params);
    } catch (error) {
      if (isBusy(error)) return this.#counted(options, this.#queryLater(run, sql, params, options, calledMs));
      return this.#rejected(options, error);
    }
    const endMs = performance.now();
    this.#counters.answered(options.label ?? NO_LABEL, endMs - calledMs);
    return settle(rows, endMs);
  }

  /** A thread lacks the functions of the application: a query that needs one runs here after all. */
  #inThread(
    query: (sql: string, params: SqlParams | undefined, options: QueryOptions) => Promise<unknown>,
    run: Run,
    sql: string,
    params: SqlParams | undefined,
    options: QueryOptions,
  ): Promise<unknown> {
    const copied = copyParams(params);
    const answer = query(sql, copied, options).catch((error: unknown) => {
      if (!this.#functions.areMissedBy(error)) throw error;
      return this.#queryLater(run, sql, copied, options, performance.now());
    });
    return this.#counted(options, answer);
  }

  async #queryLater(
    run: Run,
    sql: string,
    params: SqlParams | undefined,
    options: QueryOptions,
    calledMs: number,
  ): Promise<unknown> {
    const copied = copyParams(params);
    const lease = await this.#take(options, calledMs);
    try {
      return await this.#whileBusy(lease, () => run(lease.resource, sql, copied));
    } finally {
      this.#line.give(lease);
    }
  }

  /** If this has to open a connection, that can be busy too. */
  #take(options: QueryOptions, calledMs: number): Promise<Lease<Reader>> {
    const { label = NO_LABEL, deadlineMs = this.#busyTimeoutMs, signal } = options;
    return retryWhileBusy(() => this.#line.take({ label, deadlineMs, signal }, calledMs), {
      timeoutMs: calledMs + deadlineMs - performance.now(),
      timedOut: (_, cause) => this.#counters.refused({ label, calledMs }, cause),
    });
  }

  /** Readers are only busy while another process recovers or removes the WAL. */
  #whileBusy<T>(lease: Lease<Reader>, attempt: () => T): Promise<T> {
    return retryWhileBusy(attempt, {
      timeoutMs: lease.deadlineMs - performance.now(),
      timedOut: (_, cause) => this.#counters.refused(lease, cause),
    });
  }

  /** Gives the connection back with nothing open; a connection that cannot be cleaned is closed. */
  #giveBack(lease: Lease<Reader>): void {
    try {
      lease.resource.end();
    } catch (error) {
      this.#line.discard(lease);
      throw error;
    }
    this.#line.give(lease);
  }

  #rejected(options: QueryOptions, error: unknown): Promise<never> {
    this.#counters.failed(labelOf(options), error);
    return Promise.reject(error);
  }

  #counted<T>(options: QueryOptions, answer: Promise<T>): Promise<T> {
    return answer.catch((error: unknown) => this.#rejected(options, error));
  }

  /** A refused query does not go to a thread. */
  #goesToThread(options: QueryOptions): boolean {
    return options?.thread !== false && this.#refusal(options) === undefined;
  }

  #refusal(
    options: QueryOptions,
    what = 'a query',
    checks: object = QUERY_OPTIONS,
  ): SqlsyncError | undefined {
    if (options !== NO_OPTIONS) {
      const fault = optionsFault(what, options, checks);
      if (fault !== undefined) return fault;
    }
    if (this.#isClosed) return closedError(`${this.#counters.path}: a read after close()`);
    if (options.signal?.aborted === true) return abortedError(options.signal, 'read');
    if (options.thread === true && this.#threads === undefined) {
      return new SqlsyncError('USAGE', 'a query with `thread: true` of a database without threads', {
        hint: 'Open the database with `threads`.',
      });
    }
    return undefined;
  }
}

function runAll(reader: Reader, sql: string, params: SqlParams | undefined): unknown[] {
  return reader.all(sql, params);
}

function runGet(reader: Reader, sql: string, params: SqlParams | undefined): unknown {
  return reader.get(sql, params);
}

function runValues(reader: Reader, sql: string, params: SqlParams | undefined): unknown[] {
  return reader.values(sql, params);
}
