import { systemErrorCode } from '../../errors.ts';
import { isBusy } from '../../sqlite/busy.ts';
import { HolderWatch } from '../../sqlite/locks/holder-watch.ts';
import { abortedError } from '../pool-errors.ts';
import { retryWhileBusy } from '../retry.ts';
import type { WalCare } from '../wal-care.ts';
import { runInside } from './transaction-context.ts';
import type { WriteCounters } from './write-counters.ts';
import type { TransactionFunction, Work, WriteJob, WriteOutcome } from './write-job.ts';
import type { JobRunner, Run } from './write-line.ts';
import { commitTimeout, writeTimeout } from './write-stats.ts';
import { Transaction } from './write-transaction.ts';
import type { Writer } from './writer.ts';

type Ended = (outcome: WriteOutcome) => void;

/**
 * Runs jobs on the writer, one at a time. A transaction ends in one of these ways:
 *
 *     fn returned ──► COMMIT ──► done
 *                       └─ busy ──► COMMIT again until the deadline ──► done, or ROLLBACK and BUSY_TIMEOUT
 *     fn threw ─────► ROLLBACK ──► failed with its error
 *     a statement was refused as busy ──► ROLLBACK ──► busy: it has to run again
 */
export class WriteRunner implements JobRunner {
  readonly #path: string;
  readonly #writer: Writer;
  readonly #walCare: WalCare;
  readonly #counters: WriteCounters;
  readonly #lockHolder: HolderWatch;
  #holder: WriteJob | undefined;

  constructor(path: string, writer: Writer, walCare: WalCare, counters: WriteCounters) {
    this.#path = path;
    this.#writer = writer;
    this.#walCare = walCare;
    this.#counters = counters;
    this.#lockHolder = new HolderWatch(path);
  }

  /** The transaction that runs, or the call that holds the connection. */
  get holder(): WriteJob | undefined {
    return this.#holder;
  }

  get isTaken(): boolean {
    return this.#holder !== undefined;
  }

  get served(): number {
    return this.#counters.commits + this.#counters.rollbacks;
  }

  attempt(job: WriteJob, patiently: boolean): Run | undefined {
    const { work } = job.request;
    if ('connection' in work) return (ended) => this.#hold(job, work.connection, ended);
    try {
      const value = patiently ? this.#writer.patiently(() => this.#begin(work)) : this.#begin(work);
      if ('statement' in work) return (ended) => ended(this.#done(job, value));
    } catch (error) {
      // A failed statement has undone itself, unless SQLite left a transaction open.
      if (this.#writer.inTransaction) this.#writer.rollback();
      if (!isBusy(error)) return (ended) => ended(this.#failed(job, error));
      this.#counters.refused(job.label, systemErrorCode(error) ?? '');
      this.#lockHolder.look();
      return undefined;
    }
    if (patiently) job.beganMs = performance.now();
    return (ended) => this.#perform(job, work.transaction, ended);
  }

  timedOut(label: string, waitedMs: number): Error {
    this.#counters.timedOut(label, waitedMs);
    const elsewhere = this.#holder === undefined ? this.#lockHolder.inWords() : undefined;
    const error = writeTimeout(this.#path, label, waitedMs, this.#holder, elsewhere);
    this.#counters.failed(label, error);
    return error;
  }

  /** Runs a statement, or begins a transaction. */
  #begin(work: Exclude<Work, { connection: unknown }>): unknown {
    if ('transaction' in work) return this.#writer.begin();
    return work.statement(this.#writer, work.sql ?? '', work.params);
  }

  #hold(job: WriteJob, serve: (job: WriteJob) => Promise<unknown>, ended: Ended): void {
    const release = (): number => this.#free(this.#counters.released(job));
    this.#holder = job;
    void serve(job).then(
      (value) => ended({ type: 'done', value, endMs: release() }),
      (error: unknown) => {
        release();
        ended(this.#failed(job, error));
      },
    );
  }

  /** Runs the function of a transaction that has begun, and ends it. */
  #perform(job: WriteJob, fn: TransactionFunction<unknown>, ended: Ended): void {
    const { inContext } = job.request;
    const tx = new Transaction(this.#writer, { owner: this, signal: job.signal });
    this.#holder = job;
    let result: unknown;
    let isLater: boolean;
    try {
      result = inContext === undefined ? runInside(tx, fn, tx) : inContext(() => runInside(tx, fn, tx));
      isLater = isThenable(result);
    } catch (error) {
      return ended(this.#rollBack(job, tx, error));
    }
    if (!isLater) return this.#commit(job, tx, result, ended);
    void Promise.resolve(result).then(
      (value) => this.#commit(job, tx, value, ended),
      (error: unknown) => ended(this.#rollBack(job, tx, error)),
    );
  }

  #commit(job: WriteJob, tx: Transaction, value: unknown, ended: Ended): void {
    if (tx.busy !== undefined) return ended(this.#rollBack(job, tx, tx.busy));
    try {
      tx.checkComplete();
      tx.end();
      this.#writer.commit();
    } catch (error) {
      if (!isBusy(error) || !this.#writer.inTransaction) return ended(this.#rollBack(job, tx, error));
      this.#counters.refused(job.label, systemErrorCode(error) ?? '');
      void this.#commitLater(job, value).then(ended);
      return;
    }
    ended(this.#done(job, value));
  }

  /** The commit was busy: the transaction is still open, and only the commit has to be tried again. */
  async #commitLater(job: WriteJob, value: unknown): Promise<WriteOutcome> {
    const { signal } = job;
    const commit = (): void => {
      if (signal?.aborted === true) throw abortedError(signal);
      this.#writer.commit();
    };
    try {
      await retryWhileBusy(commit, {
        timeoutMs: job.deadlineMs - performance.now(),
        onBusy: (code) => this.#counters.refused(job.label, code),
        timedOut: (_, cause) => {
          const waitedMs = performance.now() - job.calledMs;
          this.#counters.timedOut(job.label, waitedMs);
          return commitTimeout(this.#path, job.label, waitedMs, cause);
        },
      });
    } catch (error) {
      return this.#rollBack(job, undefined, error);
    }
    return this.#done(job, value);
  }

  #rollBack(job: WriteJob, tx: Transaction | undefined, error: unknown): WriteOutcome {
    tx?.end();
    let failure = error;
    let isAgain = tx?.busy !== undefined && job.signal?.aborted !== true;
    try {
      this.#writer.rollback();
    } catch (rollbackError) {
      failure = rollbackError;
      isAgain = false;
    }
    this.#end(job, 'rollback');
    if (!isAgain) return this.#failed(job, failure);
    this.#counters.refused(job.label, systemErrorCode(tx?.busy) ?? '');
    return { type: 'busy' };
  }

  #done(job: WriteJob, value: unknown): WriteOutcome {
    return { type: 'done', value, endMs: this.#end(job, 'commit') };
  }

  #failed(job: WriteJob, error: unknown): WriteOutcome {
    this.#counters.failed(job.label, error);
    return { type: 'failed', error };
  }

  #end(job: WriteJob, outcome: 'commit' | 'rollback'): number {
    const endMs = performance.now();
    this.#lockHolder.reset();
    this.#counters.ended(job, endMs, outcome);
    return this.#free(endMs);
  }

  /** Nothing is left open: other writes may begin. */
  #free(endMs: number): number {
    this.#holder = undefined;
    this.#walCare.afterWrite(endMs);
    return endMs;
  }
}

function isThenable(value: unknown): boolean {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function';
}
