import { SqlsyncError } from '../../errors.ts';
import type { Admission } from '../admission/types.ts';
import { bulkWrite } from '../bulk/bulk.ts';
import { CONNECTION_OPTIONS, WRITE_OPTIONS, functionFault, optionsFault } from '../call-options.ts';
import { abortedError, closedError } from '../pool-errors.ts';
import { copyParams } from '../sql/copied-params.ts';
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
import type { WalCare } from '../wal-care.ts';
import { HeldConnection } from './held-connection.ts';
import { isInside, runInside } from './transaction-context.ts';
import { WriteCounters } from './write-counters.ts';
import { WriteJob } from './write-job.ts';
import type { TransactionFunction, Work, WriteRequest } from './write-job.ts';
import { WriteLine } from './write-line.ts';
import { WriteRunner } from './write-runner.ts';
import { writeStats } from './write-stats.ts';
import { withoutForeignKeys } from './without-foreign-keys.ts';
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
 * The write pool. It checks the arguments of a call and makes a {@link WriteJob} of it; the {@link WriteLine} decides
 * when the job runs, and the {@link WriteRunner} runs it.
 */
export class QueuedWritePool implements WritePool {
  readonly #options: QueuedWritePoolOptions;
  readonly #counters: WriteCounters;
  readonly #runner: WriteRunner;
  readonly #line: WriteLine;
  /** Serves the calls of the held connection, one after the other. */
  #innerPool: QueuedWritePool | undefined;
  #isHeld = false;
  #isClosed = false;

  constructor(options: QueuedWritePoolOptions) {
    const { path, writer, walCare, admission } = options;
    this.#options = options;
    this.#counters = options.counters ?? new WriteCounters(path);
    this.#runner = new WriteRunner(path, writer, walCare, this.#counters);
    this.#line = new WriteLine(this.#runner, admission);
  }

  run(sql: string, params?: SqlParams, options?: WriteOptions): Promise<RunResult> {
    return this.#submit({ statement: runStatement, sql, params }, options);
  }

  all<Row = SqlRow>(sql: string, params?: SqlParams, options?: WriteOptions): Promise<Row[]> {
    return this.#submit({ statement: allRows, sql, params }, options);
  }

  get<Row = SqlRow>(sql: string, params?: SqlParams, options?: WriteOptions): Promise<Row | undefined> {
    return this.#submit({ statement: firstRow, sql, params }, options);
  }

  values(sql: string, params?: SqlParams, options?: WriteOptions): Promise<SqlValue[][]> {
    return this.#submit({ statement: valuesOfRows, sql, params }, options);
  }

  execute<Row = SqlRow>(sql: string, params?: SqlParams, options?: WriteOptions): Promise<QueryResult<Row>> {
    return this.#submit({ statement: executeStatement, sql, params }, options);
  }

  exec(sql: string, options?: WriteOptions): Promise<void> {
    return this.transaction((tx) => tx.exec(sql), options);
  }

  transaction<T>(fn: TransactionFunction<T>, options: WriteOptions = NO_OPTIONS): Promise<T> {
    const refusal = this.#refusal(options) ?? functionFault('write.transaction()', fn);
    return this.#submit({ transaction: fn }, options, refusal);
  }

  connection<T>(fn: ConnectionFunction<T>, options: ConnectionOptions = NO_OPTIONS): Promise<T> {
    const refusal = this.#refusal(options, CONNECTION_OPTIONS) ?? functionFault('write.connection()', fn);
    return this.#submit({ connection: (job) => this.#holdConnection(fn, job) }, options, refusal);
  }

  changeSchema<T>(fn: TransactionFunction<T>, options: ConnectionOptions = NO_OPTIONS): Promise<T> {
    const refusal = this.#refusal(options, CONNECTION_OPTIONS) ?? functionFault('write.changeSchema()', fn);
    const change: ConnectionFunction<T> = (held) => withoutForeignKeys(this.#options.writer, held, fn);
    return this.#submit({ connection: (job) => this.#holdConnection(change, job) }, options, refusal);
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
        this.#counters.failed(labelOf(options), error);
      }
      throw error;
    });
  }

  /** Runs `act` when it is this call's turn. */
  withWriter<T>(act: (writer: Writer) => T, options: WriteOptions): Promise<T> {
    return this.#submit({ statement: act }, options);
  }

  /** True if no writer waits or runs that this process knows of. */
  get isIdle(): boolean {
    const isFree = !this.#runner.isTaken || (this.#isHeld && this.#innerPool?.isIdle === true);
    return isFree && this.#line.nobodyWaits;
  }

  stats(): DatabaseStats['write'] {
    return writeStats(this.#counters, this.#runner.holder, this.#jobs());
  }

  /** Takes no more work; resolves when what runs and waits is done. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#line.drained();
    this.#line.close();
  }

  #jobs(): WriteJob[] {
    const pool = this.#innerPool;
    return [...this.#line.jobs(), ...(pool === undefined ? [] : pool.#jobs())];
  }

  #submit<T>(
    work: Work,
    options: WriteOptions = NO_OPTIONS,
    refusal: SqlsyncError | undefined = this.#refusal(options),
  ): Promise<T> {
    if (refusal !== undefined) {
      this.#counters.failed(labelOf(options), refusal);
      return Promise.reject(refusal);
    }
    const { label = NO_LABEL, signal, coalesce, deadlineMs = this.#options.busyTimeoutMs } = options;
    const calledMs = performance.now();
    const request = { work, deadlineMs: calledMs + deadlineMs, signal, inContext: undefined };
    const waiting = coalesce === undefined ? undefined : this.#line.waitingFor(coalesce);
    if (waiting !== undefined) {
      this.#counters.coalesced += 1;
      this.#line.watchDeadline(request.deadlineMs);
      return this.#join(waiting, request);
    }
    const job = new WriteJob(label, calledMs, options, request);
    this.#line.submit(job);
    return (job.result as Promise<T> | undefined) ?? this.#join(job, request);
  }

  /** The promise of a call that waits. */
  #join<T>(job: WriteJob, request: WriteRequest): Promise<T> {
    return job.join<T>({ ...request, work: asPassed(request.work) }, (error) => {
      this.#counters.failed(job.label, error);
      if (job.isAwaited) return;
      this.#line.remove(job);
      this.#line.advance();
    });
  }

  #refusal(options: WriteOptions, checks: object = WRITE_OPTIONS): SqlsyncError | undefined {
    if (options !== NO_OPTIONS) {
      const fault = optionsFault('a write', options, checks);
      if (fault !== undefined) return fault;
    }
    if (this.#isClosed) return closedError(`${this.#options.path}: a write after close()`);
    if (options.signal?.aborted === true) return abortedError(options.signal);
    if (!isInside(this.#runner)) return undefined;
    return new SqlsyncError(
      'NESTED_WRITE',
      `${this.#options.path}: a write of the pool within its own transaction`,
      {
        hint: 'It would wait for itself: use the `tx` or the connection that the function received, or tx.savepoint(fn).',
      },
    );
  }

  /** While it lasts, this pool's line stands still, and another pool serves the connection. */
  async #holdConnection<T>(fn: ConnectionFunction<T>, job: WriteJob): Promise<T> {
    this.#isHeld = true;
    const { inContext } = job.request;
    const pool = (this.#innerPool ??= new QueuedWritePool({
      ...this.#options,
      counters: this.#counters,
    }));
    const { label, priority, signal } = job;
    const connection = new HeldConnection(this.#runner, pool, { label, priority, signal });
    const call = (): MaybePromise<T> => runInside(connection, fn, connection);
    try {
      // Between its statements the connection holds no lock that others would wait for.
      if (this.#line.hasTurn) await this.#line.yieldTurn();
      return await (inContext === undefined ? call() : inContext(call));
    } finally {
      connection.end();
      await pool.#line.drained();
      await pool.#line.yieldTurn();
      this.#options.writer.stopReading();
      this.#isHeld = false;
    }
  }
}

/** Work that runs later. It writes the values of the call, even if the caller changes them meanwhile. */
function asPassed(work: Work): Work {
  return 'statement' in work && work.params !== undefined
    ? { ...work, params: copyParams(work.params) }
    : work;
}

type Statement = (writer: Writer, sql: string, params: SqlParams | undefined) => unknown;

const runStatement: Statement = (writer, sql, params) => writer.run(sql, params);
const allRows: Statement = (writer, sql, params) => writer.all(sql, params);
const firstRow: Statement = (writer, sql, params) => writer.get(sql, params);
const valuesOfRows: Statement = (writer, sql, params) => writer.values(sql, params);
const executeStatement: Statement = (writer, sql, params) => writer.execute(sql, params);
