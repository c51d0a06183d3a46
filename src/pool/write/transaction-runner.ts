import { isTurnOver, nextTurn } from '../event-loop.ts';
import { SqlsyncError, systemErrorCode } from '../../errors.ts';
import { isBusy } from '../../sqlite/busy.ts';
import { labelInWords } from '../stats.ts';
import { retryWhileBusy } from '../retry.ts';
import { runInside } from './transaction-context.ts';
import type { MaybePromise, WriteTransaction } from '../types.ts';
import type { WriteCounters, WriteRun } from './write-counters.ts';
import type { WriteRequest } from './write-job.ts';
import { Transaction } from './write-transaction.ts';
import { abortedError } from '../pool-errors.ts';
import type { Writer } from './writer.ts';

export type TransactionFunction<T> = (tx: WriteTransaction) => MaybePromise<T>;

/** A running transaction. */
export interface Hold extends WriteRun {
  readonly deadlineMs: number;
  readonly signal: AbortSignal | undefined;
  /** The context of the caller, if the call did not come straight from it. */
  readonly inContext: WriteRequest['inContext'] | undefined;
}

/** The pool, as the runner of its transactions sees it. */
export interface TransactionHost {
  readonly counters: WriteCounters;
  begun(hold: Hold): void;
  /** The transaction has ended and left nothing open: other writes may begin. Returns the time. */
  ended(run: WriteRun, outcome: 'commit' | 'rollback'): number;
  /** Puts it at the head of the line, before other writes can take the writer. */
  rerun<T>(fn: TransactionFunction<T>, hold: Hold, refusedBy: unknown): Promise<T>;
}

/**
 * Runs the functions of transactions that have begun, one at a time, and ends each in one of these ways:
 *
 *     fn returned ──► COMMIT ──► done
 *                       └─ busy ──► COMMIT again until the deadline ──► done, or ROLLBACK and BUSY_TIMEOUT
 *     fn threw ─────► ROLLBACK ──► its error
 *     a statement was refused as busy ──► ROLLBACK ──► back to the head of the line
 */
export class TransactionRunner {
  readonly #path: string;
  readonly #writer: Writer;
  readonly #pool: TransactionHost;

  constructor(path: string, writer: Writer, pool: TransactionHost) {
    this.#path = path;
    this.#writer = writer;
    this.#pool = pool;
  }

  /** Runs the function of a transaction that has begun, and ends it. */
  perform<T>(fn: TransactionFunction<T>, hold: Hold): MaybePromise<T> {
    const tx = new Transaction(this.#writer, { owner: this.#pool, signal: hold.signal });
    this.#pool.begun(hold);
    let result: MaybePromise<T>;
    let isLater: boolean;
    try {
      result =
        hold.inContext === undefined ? runInside(tx, fn, tx) : hold.inContext(() => runInside(tx, fn, tx));
      isLater = isThenable(result);
    } catch (error) {
      return this.#failed(fn, hold, tx, error);
    }
    if (!isLater) return this.#succeeded(fn, hold, tx, result as T);
    return Promise.resolve(result).then<T, T>(
      (value) => this.#succeeded(fn, hold, tx, value),
      (error: unknown) => this.#failed(fn, hold, tx, error),
    );
  }

  #succeeded<T>(fn: TransactionFunction<T>, hold: Hold, tx: Transaction, value: T): MaybePromise<T> {
    if (tx.busy !== undefined) return this.#failed(fn, hold, tx, tx.busy);
    try {
      tx.checkComplete();
      tx.end();
      this.#writer.commit();
    } catch (error) {
      if (isBusy(error) && this.#writer.inTransaction) return this.#commitLater(hold, value, error);
      return this.#failed(fn, hold, tx, error);
    }
    const endMs = this.#pool.ended(hold, 'commit');
    return isTurnOver(endMs) ? nextTurn(value) : value;
  }

  #failed<T>(fn: TransactionFunction<T>, hold: Hold, tx: Transaction, error: unknown): MaybePromise<T> {
    tx.end();
    let failure = error;
    let rerun: Promise<T> | undefined;
    try {
      this.#writer.rollback();
      if (tx.busy !== undefined && hold.signal?.aborted !== true) {
        rerun = this.#pool.rerun(fn, hold, tx.busy);
      }
    } catch (rollbackError) {
      failure = rollbackError;
    }
    this.#pool.ended(hold, 'rollback');
    if (rerun !== undefined) return rerun;
    this.#pool.counters.failed(hold.label, failure);
    return Promise.reject(failure);
  }

  /** The commit was busy: the transaction is still open, and only the commit has to be tried again. */
  async #commitLater<T>(hold: Hold, value: T, refusedBy: unknown): Promise<T> {
    const onBusy = (code: string): void => this.#pool.counters.refused(hold.label, code);
    onBusy(systemErrorCode(refusedBy) ?? '');
    try {
      const commit = (): void => {
        if (hold.signal?.aborted === true) throw abortedError(hold.signal);
        this.#writer.commit();
      };
      await retryWhileBusy(commit, {
        timeoutMs: hold.deadlineMs - performance.now(),
        onBusy,
        timedOut: (_, cause) => this.#commitTimedOut(hold, cause),
      });
    } catch (error) {
      try {
        this.#writer.rollback();
      } finally {
        this.#pool.ended(hold, 'rollback');
        this.#pool.counters.failed(hold.label, error);
      }
      throw error;
    }
    this.#pool.ended(hold, 'commit');
    return value;
  }

  #commitTimedOut(hold: Hold, cause: unknown): SqlsyncError {
    const waitedMs = performance.now() - hold.calledMs;
    this.#pool.counters.timedOut(hold.label, waitedMs);
    return new SqlsyncError(
      'BUSY_TIMEOUT',
      `${this.#path}: the commit of ${labelInWords(hold.label, 'write')} was refused as busy for ${Math.round(waitedMs)} ms; it was rolled back`,
      { hint: 'Another program reads an attached database: allow more time with deadlineMs.', cause },
    );
  }
}

function isThenable(value: unknown): boolean {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function';
}
