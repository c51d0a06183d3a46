import { AsyncLocalStorage } from 'node:async_hooks';
import { SqlsyncError, systemErrorCode } from '../errors.ts';
import { isBusy } from '../sqlite/busy.ts';
import type { Admission } from './admission-types.ts';
import { bulkWrite } from './bulk.ts';
import { WRITE_OPTIONS, notAFunction, optionsFault } from './call-options.ts';
import { copyParams } from './copied-params.ts';
import { settle } from './event-loop.ts';
import { abortedError, closedError } from './pool-errors.ts';
import { NO_LABEL, named } from './stats.ts';
import type {
  BulkOptions,
  DatabaseStats,
  MaybePromise,
  QueryResult,
  RunResult,
  SqlParams,
  SqlRow,
  SqlValue,
  WriteActivity,
  WriteOptions,
  WritePool,
  WriteTransaction,
} from './types.ts';
import { isInside } from './transaction-context.ts';
import type { Hold, HoldKeeper, TransactionFunction } from './transaction-runner.ts';
import { TransactionRunner, ms } from './transaction-runner.ts';
import type { WalCare } from './wal-care.ts';
import type { WriteRun } from './write-counters.ts';
import { WriteCounters } from './write-counters.ts';
import type { Wish, Work } from './write-job.ts';
import { WriteJob } from './write-job.ts';
import type { LineServer } from './write-line.ts';
import { WriteLine } from './write-line.ts';
import type { Writer } from './writer.ts';

/** How many of those who wait stats() names. */
const WAITING_LISTED = 100;

const NO_OPTIONS: WriteOptions = {};

type StatementRun<T> = (writer: Writer, sql: string, params: SqlParams | undefined) => T;

export interface QueuedWritePoolOptions {
  readonly path: string;
  readonly writer: Writer;
  readonly admission: Admission;
  readonly busyTimeoutMs: number;
  readonly walCare: WalCare;
}

/**
 * The write pool. Where nobody waits, a call does its work at once, before it returns; else it becomes a
 * {@link WriteJob} and stands in the {@link WriteLine}. A transaction that has to run again goes to the line's head.
 */
export class QueuedWritePool implements WritePool, LineServer, HoldKeeper {
  readonly #path: string;
  readonly #writer: Writer;
  readonly #busyTimeoutMs: number;
  readonly #walCare: WalCare;
  readonly #line: WriteLine;
  readonly #runner: TransactionRunner;
  readonly counters: WriteCounters;
  #holder: Hold | undefined;
  #isClosed = false;
  #onIdle: (() => void) | undefined;

  constructor(options: QueuedWritePoolOptions) {
    this.#path = options.path;
    this.#writer = options.writer;
    this.#busyTimeoutMs = options.busyTimeoutMs;
    this.#walCare = options.walCare;
    this.#runner = new TransactionRunner(options.path, options.writer, this);
    this.#line = new WriteLine(this, options.admission);
    this.counters = new WriteCounters(options.path);
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
    const refusal = this.#refusal(options);
    if (refusal !== undefined) return Promise.reject(refusal);
    if (typeof fn !== 'function') return Promise.reject(notAFunction('write.transaction()', fn));
    const calledMs = performance.now();
    if (this.#holder !== undefined || !this.#line.isFree) {
      return this.#wait({ transaction: fn }, options, calledMs);
    }
    try {
      this.#writer.begin();
    } catch (error) {
      if (!isBusy(error)) return Promise.reject(error);
      return this.#wait({ transaction: fn }, options, calledMs, error);
    }
    const hold: Hold = {
      label: options.label ?? NO_LABEL,
      priority: options.priority ?? 'normal',
      calledMs,
      beganMs: calledMs,
      deadlineMs: calledMs + (options.deadlineMs ?? this.#busyTimeoutMs),
      signal: options.signal,
      inContext: undefined,
    };
    const result = this.#runner.perform(fn, hold);
    return result instanceof Promise ? result : Promise.resolve(result);
  }

  bulk<Item>(
    items: Iterable<Item> | AsyncIterable<Item>,
    fn: (tx: WriteTransaction, item: Item) => MaybePromise<unknown>,
    options: BulkOptions = {},
  ): Promise<{ committed: number }> {
    return bulkWrite(this, items, fn, options);
  }

  /** True where no writer waits or runs that this process knows of. */
  get isIdle(): boolean {
    return this.#holder === undefined && this.#line.nobodyWaits;
  }

  stats(): DatabaseStats['write'] {
    const nowMs = performance.now();
    const activity = (run: { label: string; priority: WriteActivity['priority'] }, sinceMs: number) => ({
      label: run.label,
      priority: run.priority,
      forMs: nowMs - sinceMs,
    });
    const jobs = this.#line.jobs().sort((a, b) => a.calledMs - b.calledMs);
    const { commits, rollbacks, coalesced, retries, timeouts, labels } = this.counters;
    return {
      commits,
      rollbacks,
      coalesced,
      retries: { ...retries },
      timeouts,
      queueLength: jobs.length,
      holder: this.#holder === undefined ? undefined : activity(this.#holder, this.#holder.beganMs),
      waiting: jobs.slice(0, WAITING_LISTED).map((job) => activity(job, job.calledMs)),
      labels: labels.stats(),
    };
  }

  /** Takes no more work; resolves when what runs and waits is done. */
  async close(): Promise<void> {
    this.#isClosed = true;
    if (this.#holder !== undefined || this.#line.length > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
    }
    this.#line.close();
  }

  get isTaken(): boolean {
    return this.#holder !== undefined;
  }

  get served(): number {
    return this.counters.commits + this.counters.rollbacks;
  }

  attempt(job: WriteJob, patiently: boolean): (() => void) | undefined {
    const { work } = job.wish;
    const beganMs = performance.now();
    const act = 'statement' in work ? () => work.statement(this.#writer) : () => this.#writer.begin();
    try {
      const value = patiently ? this.#writer.patiently(act) : act();
      if ('transaction' in work) return () => this.#performJob(job, work.transaction);
      return () => {
        this.ended({ label: job.label, priority: job.priority, calledMs: job.calledMs, beganMs }, 'commit');
        job.resolve(value);
      };
    } catch (error) {
      this.#writer.rollback();
      if (!isBusy(error)) return () => job.reject(error);
      this.counters.refused(job.label, systemErrorCode(error) ?? '');
      return undefined;
    }
  }

  timedOut(label: string, waitedMs: number): SqlsyncError {
    this.counters.timedOut(label, waitedMs);
    const holder = this.#holder;
    const reason =
      holder === undefined
        ? 'which another connection or program holds'
        : `which ${named(holder.label, 'write')} of this pool has held for ${ms(performance.now() - holder.beganMs)}`;
    return new SqlsyncError(
      'BUSY_TIMEOUT',
      `${this.#path}: ${named(label, 'write')} waited ${ms(waitedMs)} for the writer, ${reason}`,
      { hint: 'Keep transactions short, or allow more time with busyTimeoutMs or deadlineMs.' },
    );
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
    if (refusal !== undefined) return Promise.reject(refusal);
    const calledMs = performance.now();
    if (this.#holder !== undefined || !this.#line.isFree) {
      return this.#wait(laterStatement(act, sql, params), options, calledMs);
    }
    let value: T;
    try {
      value = act(this.#writer, sql, params);
    } catch (error) {
      this.#writer.rollback();
      if (!isBusy(error)) return Promise.reject(error);
      return this.#wait(laterStatement(act, sql, params), options, calledMs, error);
    }
    const run: WriteRun = {
      label: options.label ?? NO_LABEL,
      priority: options.priority ?? 'normal',
      calledMs,
      beganMs: calledMs,
    };
    return settle(value, this.ended(run, 'commit'));
  }

  #refusal(options: WriteOptions): SqlsyncError | undefined {
    if (options !== NO_OPTIONS) {
      const fault = optionsFault('a write', options, WRITE_OPTIONS);
      if (fault !== undefined) return fault;
    }
    if (this.#isClosed) return closedError(`${this.#path}: a write after close()`);
    if (options.signal?.aborted === true) return abortedError(options.signal);
    if (!isInside(this.#writer)) return undefined;
    return new SqlsyncError('NESTED_WRITE', `${this.#path}: a write of the pool within its own transaction`, {
      hint: 'It would wait for itself: use the `tx` of the transaction, or tx.savepoint(fn).',
    });
  }

  /** @param refusedBy The refusal as busy, where it was tried already. */
  #wait<T>(work: Work<T>, options: WriteOptions, calledMs: number, refusedBy?: unknown): Promise<T> {
    const line = this.#line;
    const label = options.label ?? NO_LABEL;
    const deadlineMs = calledMs + (options.deadlineMs ?? this.#busyTimeoutMs);
    const wish = { work, deadlineMs, signal: options.signal, inContext: AsyncLocalStorage.snapshot() };
    const waiting = options.coalesce === undefined ? undefined : line.waitingFor(options.coalesce);
    if (waiting !== undefined) {
      this.counters.coalesced += 1;
      line.watchDeadline(deadlineMs);
      return this.#join(waiting, wish);
    }
    const job = new WriteJob(label, calledMs, options);
    const promise = this.#join<T>(job, wish);
    if (refusedBy !== undefined) {
      job.refusals = 1;
      this.counters.refused(label, systemErrorCode(refusedBy) ?? '');
    }
    line.add(job);
    line.advance();
    return promise;
  }

  #join<T>(job: WriteJob, wish: Wish): Promise<T> {
    return job.join<T>(wish, () => {
      this.#line.remove(job);
      this.#line.advance();
    });
  }

  #performJob(job: WriteJob, fn: TransactionFunction<unknown>): void {
    job.begin();
    const hold: Hold = {
      label: job.label,
      priority: job.priority,
      calledMs: job.calledMs,
      beganMs: performance.now(),
      deadlineMs: job.deadlineMs,
      signal: job.signal,
      inContext: job.wish.inContext,
    };
    const result = this.#runner.perform(fn, hold);
    if (result instanceof Promise) {
      result.then(
        (value) => job.resolve(value),
        (error: unknown) => job.reject(error),
      );
    } else job.resolve(result);
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

  /** A statement or transaction is over and has left nothing open. Returns the time. */
  ended(run: WriteRun, outcome: 'commit' | 'rollback'): number {
    const endMs = performance.now();
    this.#holder = undefined;
    this.counters.ended(run, endMs, outcome);
    this.#walCare.afterWrite(endMs);
    if (!this.#line.isQuiet) this.#line.advance();
    if (this.#onIdle !== undefined) this.emptied();
    return endMs;
  }
}

/** What was passed is what is written, whatever the caller does with it until the statement has its turn. */
function laterStatement<T>(run: StatementRun<T>, sql: string, params: SqlParams | undefined): Work<T> {
  const copied = copyParams(params);
  return { statement: (writer) => run(writer, sql, copied) };
}

function runOn(writer: Writer, sql: string, params: SqlParams | undefined): RunResult {
  return writer.run(sql, params);
}

function allOn(writer: Writer, sql: string, params: SqlParams | undefined): unknown[] {
  return writer.all(sql, params);
}

function firstOn(writer: Writer, sql: string, params: SqlParams | undefined): unknown {
  return writer.get(sql, params);
}

function valuesOn(writer: Writer, sql: string, params: SqlParams | undefined): SqlValue[][] {
  return writer.values(sql, params) as SqlValue[][];
}

function executeOn(writer: Writer, sql: string, params: SqlParams | undefined): QueryResult<unknown> {
  return writer.execute(sql, params);
}
