import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import type { SqlsyncError } from '../../errors.ts';
import { isTurnOver, nextTurn, settle } from '../event-loop.ts';
import { abortedError } from '../pool-errors.ts';
import type { MaybePromise, Priority, SqlParams, WriteOptions, WriteTransaction } from '../types.ts';
import type { Writer } from './writer.ts';

export type TransactionFunction<T> = (tx: WriteTransaction) => MaybePromise<T>;

/** One statement that commits by itself, a transaction, or a call that holds the connection. */
export type Work =
  | {
      readonly statement: (writer: Writer, sql: string, params: SqlParams | undefined) => unknown;
      readonly sql?: string;
      readonly params?: SqlParams | undefined;
    }
  | { readonly transaction: TransactionFunction<unknown> }
  | { readonly connection: (job: WriteJob) => Promise<unknown> };

/** What a caller requests. */
export interface WriteRequest {
  readonly work: Work;
  /** On the clock of performance.now(). */
  readonly deadlineMs: number;
  readonly signal: AbortSignal | undefined;
  /** Runs a function with the AsyncLocalStorage values of the call; undefined if the call itself runs the work. */
  readonly inContext: ReturnType<typeof AsyncLocalStorage.snapshot> | undefined;
}

/** What came of a job that ran. */
export type WriteOutcome =
  | { readonly type: 'done'; readonly value: unknown; readonly endMs: number }
  | { readonly type: 'failed'; readonly error: unknown }
  /** SQLite refused one of its statements as busy. It was rolled back, and has to run again. */
  | { readonly type: 'busy' };

/** A caller that waits for a job. */
interface Caller extends WriteRequest {
  inContext: WriteRequest['inContext'];
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
  readonly onAbort: () => void;
}

/**
 * A write of the pool, with the promises of those that wait for it. Several callers wait for one job if their writes
 * had the same key. It runs the write of the latest caller that has not given up; each caller gives up at its own
 * deadline and by its own signal.
 */
export class WriteJob {
  readonly priority: Priority;
  readonly label: string;
  readonly coalesce: string | undefined;
  readonly calledMs: number;
  beganMs: number;
  /** How often in a row SQLite refused it. */
  refusals = 0;
  /** The promise of a job that ended before anyone waited for it. */
  result: Promise<unknown> | undefined;
  #first: WriteRequest | undefined;
  #hasBegun = false;
  #callers: Caller[] = [];

  /** @param first The request to run while nobody has joined. */
  constructor(label: string, calledMs: number, options: WriteOptions, first?: WriteRequest) {
    this.priority = options.priority ?? 'normal';
    this.label = label;
    this.coalesce = options.coalesce;
    this.calledMs = calledMs;
    this.beganMs = calledMs;
    this.#first = first;
  }

  /** The request to run. Only ask before it has ended. */
  get request(): WriteRequest {
    const latest = this.#callers.at(-1) ?? this.#first;
    assert(latest !== undefined, 'a job without a waiting caller');
    return latest;
  }

  /** The latest deadline of its callers. */
  get deadlineMs(): number {
    return this.#callers.reduce(
      (latest, { deadlineMs }) => Math.max(latest, deadlineMs),
      this.#first?.deadlineMs ?? 0,
    );
  }

  /** When the next caller gives up. */
  get earliestDeadlineMs(): number {
    return this.#callers.reduce(
      (earliest, { deadlineMs }) => Math.min(earliest, deadlineMs),
      this.#first?.deadlineMs ?? Infinity,
    );
  }

  get isAwaited(): boolean {
    return this.#callers.length > 0;
  }

  /** The signal that ends it once it runs; undefined if several callers wait for it, since none of them may end it. */
  get signal(): AbortSignal | undefined {
    return this.#callers.length > 1 ? undefined : this.request.signal;
  }

  /**
   * The promise of one more caller, whose work replaces that of the others.
   * @param onAborted Called when its signal has ended its wait.
   */
  join<T>(request: WriteRequest, onAborted: (error: SqlsyncError) => void): Promise<T> {
    const { signal } = request;
    this.#first = undefined;
    return new Promise<T>((resolve, reject) => {
      const onAbort = (): void => {
        this.#callers = this.#callers.filter((other) => other !== caller);
        const error = abortedError(signal as AbortSignal);
        reject(error);
        onAborted(error);
      };
      const caller: Caller = { ...request, resolve, reject, onAbort };
      this.#callers.push(caller);
      if (!this.#hasBegun) wait(caller);
    });
  }

  /** It leaves the line: from here on a signal ends it through the transaction. */
  begin(): void {
    this.#hasBegun = true;
    for (const caller of this.#callers) forget(caller);
  }

  /** It goes back to the line, refused as busy. */
  wait(): void {
    this.#hasBegun = false;
    this.refusals += 1;
    for (const caller of this.#callers) wait(caller);
  }

  /** Settles the promises of the callers; in the next turn of the event loop if this one must end. */
  settle(outcome: Exclude<WriteOutcome, { type: 'busy' }>): void {
    if (outcome.type === 'failed') {
      if (this.isAwaited) this.reject(outcome.error);
      else this.result = Promise.reject(outcome.error);
    } else if (this.isAwaited) {
      const { value, endMs } = outcome;
      this.resolve(isTurnOver(endMs) ? nextTurn(value) : value);
    } else this.result = settle(outcome.value, outcome.endMs);
  }

  resolve(value: unknown): void {
    for (const caller of this.#takeCallers()) caller.resolve(value as never);
  }

  reject(error: unknown): void {
    for (const caller of this.#takeCallers()) caller.reject(error as Error);
  }

  /**
   * Rejects callers whose deadline has passed, at least one, until this turn of the event loop must end. Returns false
   * if the turn is over. A job that already runs is completed, however late.
   */
  expire(nowMs: number, error: (waitedMs: number) => Error): boolean {
    if (this.#hasBegun) return true;
    const callers = this.#callers;
    this.#callers = [];
    let isOver = false;
    for (const caller of callers) {
      if (isOver || caller.deadlineMs > nowMs) {
        this.#callers.push(caller);
      } else {
        forget(caller);
        caller.reject(error(nowMs - this.calledMs));
        isOver = isTurnOver(performance.now());
      }
    }
    return !isOver;
  }

  #takeCallers(): Caller[] {
    const callers = this.#callers;
    this.#callers = [];
    for (const caller of callers) forget(caller);
    return callers;
  }
}

function wait(caller: Caller): void {
  caller.inContext ??= AsyncLocalStorage.snapshot();
  caller.signal?.addEventListener('abort', caller.onAbort, { once: true });
}

function forget({ signal, onAbort }: Caller): void {
  signal?.removeEventListener('abort', onAbort);
}
