import { SqlsyncError, systemErrorCode } from '../../errors.ts';
import { isBusy } from '../../sqlite/busy.ts';
import { notAFunction } from '../call-options.ts';
import { copyParams } from '../sql/copied-params.ts';
import { settle } from '../event-loop.ts';
import { abortedError } from '../pool-errors.ts';
import { RowIteration } from './row-iteration.ts';
import type {
  MaybePromise,
  QueryResult,
  RunResult,
  SqlParams,
  SqlRow,
  SqlValue,
  WriteTransaction,
} from '../types.ts';
import type { Writer } from './writer.ts';

/**
 * What a transaction and its savepoints share.
 *
 *     open ──► ended        committed or rolled back by the pool
 *       └────► lost         SQLite rolled it back by itself (disk full, I/O error): a statement that came now would
 *                           commit by itself, so all are refused, and the transaction fails with `failure`
 */
class TransactionState {
  readonly signal: AbortSignal | undefined;
  /** The busy error of one of its statements: the whole transaction has to run again. */
  busy: unknown;
  isLost = false;
  failure: unknown;
  savepoints = 0;

  constructor(signal: AbortSignal | undefined) {
    this.signal = signal;
  }
}

export class Transaction implements WriteTransaction {
  readonly writer: Writer;
  /** The pool whose writes would wait for its end. */
  readonly owner: object;
  readonly #state: TransactionState;
  #isOpen = true;
  #inner: Transaction | undefined;

  constructor(
    writer: Writer,
    from: { owner: object; signal?: AbortSignal | undefined; state?: TransactionState },
  ) {
    this.writer = writer;
    this.owner = from.owner;
    this.#state = from.state ?? new TransactionState(from.signal);
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** The busy error for which the transaction has to run again. */
  get busy(): unknown {
    return this.#state.busy;
  }

  /** Throws the reason not to commit it, although its function returned. */
  checkComplete(): void {
    const { isLost, failure, signal } = this.#state;
    if (isLost) throw failure;
    if (signal?.aborted === true) throw abortedError(signal);
    if (this.#inner !== undefined) {
      throw new SqlsyncError(
        'NESTED_WRITE',
        'the transaction returned while a savepoint of it was still open',
        {
          hint: 'Await tx.savepoint(…).',
        },
      );
    }
  }

  end(): void {
    this.#isOpen = false;
    this.#inner?.end();
  }

  run(sql: string, params?: SqlParams): Promise<RunResult> {
    try {
      this.#check();
      return settle(this.writer.run(sql, params));
    } catch (error) {
      return this.#failed(error);
    }
  }

  all<Row = SqlRow>(sql: string, params?: SqlParams): Promise<Row[]> {
    try {
      this.#check();
      return settle(this.writer.all(sql, params) as Row[]);
    } catch (error) {
      return this.#failed(error);
    }
  }

  get<Row = SqlRow>(sql: string, params?: SqlParams): Promise<Row | undefined> {
    try {
      this.#check();
      return settle(this.writer.get(sql, params) as Row | undefined);
    } catch (error) {
      return this.#failed(error);
    }
  }

  values(sql: string, params?: SqlParams): Promise<SqlValue[][]> {
    try {
      this.#check();
      return settle(this.writer.values(sql, params) as SqlValue[][]);
    } catch (error) {
      return this.#failed(error);
    }
  }

  execute<Row = SqlRow>(sql: string, params?: SqlParams): Promise<QueryResult<Row>> {
    try {
      this.#check();
      return settle(this.writer.execute(sql, params) as QueryResult<Row>);
    } catch (error) {
      return this.#failed(error);
    }
  }

  exec(sql: string): Promise<void> {
    try {
      this.#check();
      return settle(this.writer.exec(sql));
    } catch (error) {
      return this.#failed(error);
    }
  }

  iterate<Row = SqlRow>(sql: string, params?: SqlParams): AsyncGenerator<Row, void, undefined> {
    return this.#iterate(sql, copyParams(params));
  }

  async *#iterate<Row>(sql: string, params: SqlParams | undefined): AsyncGenerator<Row, void, undefined> {
    try {
      this.#check();
      yield* new RowIteration<Row>(this.writer, sql, params, () => this.#check());
    } catch (error) {
      await this.#failed(error);
    }
  }

  async savepoint<T>(fn: (tx: WriteTransaction) => MaybePromise<T>): Promise<T> {
    this.#check();
    if (typeof fn !== 'function') throw notAFunction('tx.savepoint()', fn);
    const state = this.#state;
    const name = `sqlsync_${(state.savepoints += 1)}`;
    const inner = new Transaction(this.writer, { owner: this.owner, state });
    this.writer.control(`SAVEPOINT ${name}`);
    this.#inner = inner;
    try {
      const result = await fn(inner);
      // Nobody awaited this, and the transaction is over: the name may be a savepoint of the transaction that runs now.
      if (!inner.isOpen) throw endedError();
      inner.checkComplete();
      if (state.busy === undefined) this.writer.control(`RELEASE ${name}`);
      return result;
    } catch (error) {
      // If the whole transaction is gone there is nothing to undo; a later one must not be touched.
      if (inner.isOpen && !state.isLost) this.writer.control(`ROLLBACK TO ${name}; RELEASE ${name}`);
      throw error;
    } finally {
      inner.end();
      this.#inner = undefined;
    }
  }

  #check(): void {
    if (!this.#isOpen) throw endedError();
    const state = this.#state;
    if (state.isLost) throw lostError(state.failure);
    if (state.signal?.aborted === true) throw abortedError(state.signal);
    if (this.#inner !== undefined) {
      throw new SqlsyncError(
        'NESTED_WRITE',
        'a statement of the outer transaction while a savepoint is open',
        {
          hint: 'Use the `tx` that the function of tx.savepoint(fn) receives.',
        },
      );
    }
  }

  #failed(error: unknown): Promise<never> {
    if (this.#isOpen) {
      const state = this.#state;
      if (isBusy(error)) state.busy ??= error;
      if (!state.isLost && !this.writer.inTransaction) {
        state.isLost = true;
        state.failure = error;
      }
    }
    return Promise.reject(error);
  }
}

function endedError(): SqlsyncError {
  return new SqlsyncError('TX_ENDED', 'a statement of a transaction that has ended', {
    hint: 'Await everything that uses `tx` within the function that received it.',
  });
}

function lostError(cause: unknown): SqlsyncError {
  const code = systemErrorCode(cause) ?? 'an error';
  return new SqlsyncError('TX_ENDED', `a statement of a transaction that SQLite rolled back (${code})`, {
    hint: 'Let the error end the transaction, then begin a new one.',
    cause,
  });
}
