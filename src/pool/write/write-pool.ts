import { AsyncLocalStorage } from 'node:async_hooks';
import { SqlsyncError, systemErrorCode } from '../../errors.ts';
import { isBusy } from '../../sqlite/busy.ts';
import type { Admission } from '../admission/types.ts';
import { bulkWrite } from '../bulk/bulk.ts';
import { CONNECTION_OPTIONS, WRITE_OPTIONS, functionFault, optionsFault } from '../call-options.ts';
import { settle } from '../event-loop.ts';
import { HeldConnection } from './held-connection.ts';
import { abortedError, closedError } from '../pool-errors.ts';
import { allOn, executeOn, firstOn, runOn, statementForLater, valuesOn } from './statement-work.ts';
import type { StatementRun } from './statement-work.ts';
import { NO_LABEL, labelOf } from '../stats.ts';
import type {
  BulkOptions,
  ConnectionOptions,
  DatabaseStats,
  MaybePromise,
  QueryResult,
  RunResult,
  SqlParams,
  SqlRow,
  SqlValue,
  WriteConnection,
  WriteOptions,
  WritePool,
  WriteTransaction,
} from '../types.ts';
import { isInside, runInside } from './transaction-context.ts';
import type { Hold, TransactionHost, TransactionFunction } from './transaction-runner.ts';
import { TransactionRunner } from './transaction-runner.ts';
import type { WalCare } from '../wal-care.ts';
import type { WriteRun } from './write-counters.ts';
import { WriteCounters } from './write-counters.ts';
import type { WriteRequest, Work } from './write-job.ts';
import { WriteJob } from './write-job.ts';
import type { LineServer } from './write-line.ts';
import { WriteLine } from './write-line.ts';
import { writeStats, writeTimeout } from './write-stats.ts';
import type { Writer } from './writer.ts';

const NO_OPTIONS: WriteOptions = {};

export interface QueuedWritePoolOptions {
  readonly path: string;
  readonly writer: Writer;
  readonly admission: Admission;
  readonly busyTimeoutMs: number;
  readonly walCare: WalCare;
  /** The counters of another pool that this one is a part of. */
  readonly counters?: WriteCounters;
}

type ConnectionFunction<T> = (connection: WriteConnection) => MaybePromise<T>;

/**
 * The write pool. If nothing waits, a call does its work at once, before it returns; else it becomes a {@link WriteJob}
 * in the {@link WriteLine}. A transaction that has to run again goes to the line's head.
 */
export class QueuedWritePool implements WritePool, LineServer, TransactionHost {
  readonly #options: QueuedWritePoolOptions;
  readonly #writer: Writer;
  readonly #busyTimeoutMs: number;
  readonly #line: WriteLine;
  readonly #runner: TransactionRunner;
  readonly counters: WriteCounters;
  #holder: Hold | undefined;
  /** Serves the held connection's calls, one after the other. */
  #connectionPool: QueuedWritePool | undefined;
  #isHeld = false;
  #isClosed = false;
  #onIdle: (() => void) | undefined;

  constructor(options: QueuedWritePoolOptions) {
    this.#options = options;
    this.#writer = options.writer;
    this.#busyTimeoutMs = options.busyTimeoutMs;
    this.#runner = new TransactionRunner(options.path, options.writer, this);
    this.#line = new WriteLine(this, options.admission);
    this.counters = options.counters ?? new WriteCounters(options.path);
  }

  run(sql: string, params?: SqlParams, options?: WriteOptions): Promise<RunResult> {
    return this.#statement(runOn, sql, params, options);
  }

  all<Row = SqlRow>(sql: string, params?: SqlParams, options?: WriteOptions): Promise<Row[]> {
    return this.#statement(allOn, sql, params, options) as Promise<Row[]>;
  }

  get<Row = SqlRow>(sql: string, params?: SqlParams, options?: WriteOptions): Promise<Row | undefined> {
    return this.#statement(firstOn, sql, params, options) as Promise<Row | undefined>;
  }

  values(sql: string, params?: SqlParams, options?: WriteOptions): Promise<SqlValue[][]> {
    return this.#statement(valuesOn, sql, params, options);
  }

  execute<Row = SqlRow>(sql: string, params?: SqlParams, options?: WriteOptions): Promise<QueryResult<Row>> {
    return this.#statement(executeOn, sql, params, options) as Promise<QueryResult<Row>>;
  }

  exec(sql: string, options?: WriteOptions): Promise<void> {
    return this.transaction((tx) => tx.exec(sql), options);
  }

  transaction<T>(fn: TransactionFunction<T>, options: WriteOptions = NO_OPTIONS): Promise<T> {
    const refusal = this.#refusal(options) ?? functionFault('write.transaction()', fn);
    if (refusal !== undefined) return this.#rejected(options, refusal);
    const calledMs = performance.now();
    if (this.#holder !== undefined || !this.#line.isFree) {
      return this.#wait({ transaction: fn }, options, calledMs);
    }
    try {
      this.#writer.begin();
    } catch (error) {
      if (!isBusy(error)) return this.#rejected(options, error);
      return this.#wait({ transaction: fn }, options, calledMs, error);
    }
    const result = this.#runner.perform(fn, this.#hold(options, calledMs));
    return result instanceof Promise ? result : Promise.resolve(result);
  }

  connection<T>(fn: ConnectionFunction<T>, options: ConnectionOptions = NO_OPTIONS): Promise<T> {
    const refusal = this.#refusal(options, CONNECTION_OPTIONS) ?? functionFault('write.connection()', fn);
    if (refusal !== undefined) return this.#rejected(options, refusal);
    const calledMs = performance.now();
    if (this.#holder !== undefined || !this.#line.isFree) {
      return this.#wait({ connection: fn }, options, calledMs);
    }
    return this.#holdConnection(fn, this.#hold(options, calledMs));
  }

  bulk<Item>(
    items: Iterable<Item> | AsyncIterable<Item>,
    fn: (tx: WriteTransaction, item: Item) => MaybePromise<unknown>,
    options: BulkOptions = {},
  ): Promise<{ committed: number }> {
    let counted: { readonly error: unknown } | undefined;
    const transaction: WritePool['transaction'] = (part, of) =>
      this.transaction(part, of).catch((error: unknown) => {
        counted = { error };
        throw error;
      });
    return bulkWrite({ transaction }, items, fn, options).catch((error: unknown) => {
      if (counted === undefined || (error as Error).cause !== counted.error) {
        this.counters.failed(labelOf(options), error);
      }
      throw error;
    });
  }

  /** Runs `act` when it is this call's turn. */
  withWriter<T>(act: (writer: Writer) => T, options: WriteOptions): Promise<T> {
    return this.#statement((writer) => act(writer), '', undefined, options);
  }

  /** True if no writer waits or runs that this process knows of. */
  get isIdle(): boolean {
    const isFree = this.#holder === undefined || (this.#isHeld && this.#connectionPool?.isIdle === true);
    return isFree && this.#line.nobodyWaits;
  }

  stats(): DatabaseStats['write'] {
    return writeStats(this.counters, this.#holder, this.#jobs());
  }

  /** Takes no more work; resolves when what runs and waits is done. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#drained();
    this.#line.close();
  }

  async #drained(): Promise<void> {
    if (this.#holder === undefined && this.#line.length === 0) return;
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
    });
    this.#onIdle = undefined;
  }

  #jobs(): WriteJob[] {
    const server = this.#connectionPool;
    return [...this.#line.jobs(), ...(server === undefined ? [] : server.#jobs())];
  }

  get isTaken(): boolean {
    return this.#holder !== undefined;
  }

  get served(): number {
    return this.counters.commits + this.counters.rollbacks;
  }

  attempt(job: WriteJob, patiently: boolean): (() => void) | undefined {
    const { work } = job.request;
    if ('connection' in work) {
      return () => job.settleWith(this.#holdConnection(work.connection, begunHold(job)));
    }
    const beganMs = performance.now();
    const act = 'statement' in work ? () => work.statement(this.#writer) : () => this.#writer.begin();
    try {
      const value = patiently ? this.#writer.patiently(act) : act();
      if ('transaction' in work) {
        return () => job.settleWith(this.#runner.perform(work.transaction, begunHold(job)));
      }
      return () => {
        this.ended({ label: job.label, priority: job.priority, calledMs: job.calledMs, beganMs }, 'commit');
        job.resolve(value);
      };
    } catch (error) {
      this.#undoStatement();
      if (!isBusy(error)) {
        return () => {
          this.counters.failed(job.label, error);
          job.reject(error);
        };
      }
      this.counters.refused(job.label, systemErrorCode(error) ?? '');
      return undefined;
    }
  }

  timedOut(label: string, waitedMs: number): SqlsyncError {
    this.counters.timedOut(label, waitedMs);
    const error = writeTimeout(this.#options.path, label, waitedMs, this.#holder);
    this.counters.failed(label, error);
    return error;
  }

  emptied(): void {
    if (this.#onIdle !== undefined && this.#holder === undefined && this.#line.length === 0) this.#onIdle();
  }

  #statement<T>(
    act: StatementRun<T>,
    sql: string,
    params: SqlParams | undefined,
    options: WriteOptions = NO_OPTIONS,
  ): Promise<T> {
    const refusal = this.#refusal(options);
    if (refusal !== undefined) return this.#rejected(options, refusal);
    const calledMs = performance.now();
    if (this.#holder !== undefined || !this.#line.isFree) {
      return this.#wait({ statement: statementForLater(act, sql, params) }, options, calledMs);
    }
    let value: T;
    try {
      value = act(this.#writer, sql, params);
    } catch (error) {
      this.#undoStatement();
      if (!isBusy(error)) return this.#rejected(options, error);
      return this.#wait({ statement: statementForLater(act, sql, params) }, options, calledMs, error);
    }
    const run: WriteRun = {
      label: options.label ?? NO_LABEL,
      priority: options.priority ?? 'normal',
      calledMs,
      beganMs: calledMs,
    };
    return settle(value, this.ended(run, 'commit'));
  }

  #rejected(options: WriteOptions, error: unknown): Promise<never> {
    this.counters.failed(labelOf(options), error);
    return Promise.reject(error);
  }

  /** A failed statement has undone itself, unless SQLite left a transaction open. */
  #undoStatement(): void {
    if (this.#writer.inTransaction) this.#writer.rollback();
  }

  #hold(options: WriteOptions, calledMs: number): Hold {
    return {
      label: options.label ?? NO_LABEL,
      priority: options.priority ?? 'normal',
      calledMs,
      beganMs: calledMs,
      deadlineMs: calledMs + (options.deadlineMs ?? this.#busyTimeoutMs),
      signal: options.signal,
      inContext: undefined,
    };
  }

  #refusal(options: WriteOptions, checks: object = WRITE_OPTIONS): SqlsyncError | undefined {
    if (options !== NO_OPTIONS) {
      const fault = optionsFault('a write', options, checks);
      if (fault !== undefined) return fault;
    }
    if (this.#isClosed) return closedError(`${this.#options.path}: a write after close()`);
    if (options.signal?.aborted === true) return abortedError(options.signal);
    if (!isInside(this)) return undefined;
    return new SqlsyncError(
      'NESTED_WRITE',
      `${this.#options.path}: a write of the pool within its own transaction`,
      {
        hint: 'It would wait for itself: use the `tx` or the connection that the function received, or tx.savepoint(fn).',
      },
    );
  }

  /** @param refusedBy The busy error, if it was tried already. */
  #wait<T>(work: Work<T>, options: WriteOptions, calledMs: number, refusedBy?: unknown): Promise<T> {
    const line = this.#line;
    const label = options.label ?? NO_LABEL;
    const deadlineMs = calledMs + (options.deadlineMs ?? this.#busyTimeoutMs);
    const request = { work, deadlineMs, signal: options.signal, inContext: AsyncLocalStorage.snapshot() };
    const waiting = options.coalesce === undefined ? undefined : line.waitingFor(options.coalesce);
    if (waiting !== undefined) {
      this.counters.coalesced += 1;
      line.watchDeadline(deadlineMs);
      return this.#join(waiting, request);
    }
    const job = new WriteJob(label, calledMs, options);
    const promise = this.#join<T>(job, request);
    if (refusedBy !== undefined) {
      job.refusals = 1;
      this.counters.refused(label, systemErrorCode(refusedBy) ?? '');
    }
    line.add(job);
    line.advance();
    return promise;
  }

  #join<T>(job: WriteJob, request: WriteRequest): Promise<T> {
    return job.join<T>(request, (error) => {
      this.counters.failed(job.label, error);
      if (job.isAwaited) return;
      this.#line.remove(job);
      this.#line.advance();
    });
  }

  /** Begins at once. While it lasts, this pool's line stands still, and another pool serves the connection. */
  async #holdConnection<T>(fn: ConnectionFunction<T>, hold: Hold): Promise<T> {
    this.#holder = hold;
    this.#isHeld = true;
    const server = (this.#connectionPool ??= new QueuedWritePool({
      ...this.#options,
      counters: this.counters,
    }));
    const connection = new HeldConnection(this, server, hold);
    const call = (): MaybePromise<T> => runInside(connection, fn, connection);
    try {
      // Between its statements the connection holds no lock that others would wait for.
      if (this.#line.hasTurn) await this.#line.yieldTurn();
      return await (hold.inContext === undefined ? call() : hold.inContext(call));
    } catch (error) {
      this.counters.failed(hold.label, error);
      throw error;
    } finally {
      connection.end();
      await server.#drained();
      await server.#line.yieldTurn();
      this.#writer.stopReading();
      this.#isHeld = false;
      this.#freed(this.counters.released(hold));
    }
  }

  begun(hold: Hold): void {
    this.#holder = hold;
  }

  rerun<T>(fn: TransactionFunction<T>, hold: Hold, refusedBy: unknown): Promise<T> {
    const { label, priority, calledMs, deadlineMs, signal, inContext = AsyncLocalStorage.snapshot() } = hold;
    this.counters.refused(label, systemErrorCode(refusedBy) ?? '');
    const job = new WriteJob(label, calledMs, { priority });
    job.refusals = 1;
    const promise = this.#join<T>(job, { work: { transaction: fn }, deadlineMs, signal, inContext });
    this.#line.add(job, true);
    return promise;
  }

  /** A statement or transaction has ended and left nothing open. Returns the time. */
  ended(run: WriteRun, outcome: 'commit' | 'rollback'): number {
    const endMs = performance.now();
    this.counters.ended(run, endMs, outcome);
    this.#freed(endMs);
    return endMs;
  }

  #freed(endMs: number): void {
    this.#holder = undefined;
    this.#options.walCare.afterWrite(endMs);
    if (!this.#line.isQuiet) this.#line.advance();
    if (this.#onIdle !== undefined) this.emptied();
  }
}

/** What a job holds from now on. */
function begunHold(job: WriteJob): Hold {
  const { label, priority, calledMs, deadlineMs, signal } = job;
  const { inContext } = job.request;
  job.begin();
  return { label, priority, calledMs, beganMs: performance.now(), deadlineMs, signal, inContext };
}
