import assert from 'node:assert/strict';
import type { AsyncLocalStorage } from 'node:async_hooks';
import type { SqlsyncError } from '../../errors.ts';
import { isTurnOver } from '../event-loop.ts';
import { abortedError } from '../pool-errors.ts';
import type { MaybePromise, Priority, WriteConnection, WriteOptions, WriteTransaction } from '../types.ts';
import type { Writer } from './writer.ts';

/** One statement that commits by itself, a transaction, or a call that holds the connection. */
export type Work<T> =
  | { readonly statement: (writer: Writer) => T }
  | { readonly transaction: (tx: WriteTransaction) => MaybePromise<T> }
  | { readonly connection: (connection: WriteConnection) => MaybePromise<T> };

/** What one waiting caller requests. */
export interface WriteRequest {
  readonly work: Work<unknown>;
  /** On the clock of performance.now(). */
  readonly deadlineMs: number;
  readonly signal: AbortSignal | undefined;
  /** Runs a function with the AsyncLocalStorage values of the call. */
  readonly inContext: ReturnType<typeof AsyncLocalStorage.snapshot>;
}

/** A caller that waits for a job. */
interface Caller extends WriteRequest {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
  /** Removes its listener from its signal. */
  readonly forget: () => void;
}

/**
 * A write that could not run at once. Several callers wait for one job if their writes had the same key. It runs the
 * write of the latest caller that has not given up; each caller gives up at its own deadline and by its own signal.
 */
export class WriteJob {
  readonly priority: Priority;
  readonly label: string;
  readonly coalesce: string | undefined;
  readonly calledMs: number;
  /** How often in a row SQLite refused it. */
  refusals = 0;
  #hasBegun = false;
  #callers: Caller[] = [];

  constructor(label: string, calledMs: number, options: WriteOptions) {
    this.priority = options.priority ?? 'normal';
    this.label = label;
    this.coalesce = options.coalesce;
    this.calledMs = calledMs;
  }

  /** The request to run. Only ask while a caller waits. */
  get request(): WriteRequest {
    const latest = this.#callers.at(-1);
    assert(latest !== undefined, 'a job without a waiting caller');
    return latest;
  }

  /** The latest deadline of its callers. */
  get deadlineMs(): number {
    return this.#callers.reduce((latest, { deadlineMs }) => Math.max(latest, deadlineMs), 0);
  }

  /** When the next caller gives up. */
  get earliestDeadlineMs(): number {
    return this.#callers.reduce((earliest, { deadlineMs }) => Math.min(earliest, deadlineMs), Infinity);
  }

  get isAwaited(): boolean {
    return this.#callers.length > 0;
  }

  /** The signal that ends it once it runs; undefined if several callers wait for it, since none of them may end it. */
  get signal(): AbortSignal | undefined {
    return this.#callers.length === 1 ? this.#callers[0]?.signal : undefined;
  }

  /**
   * The promise of one more caller, whose work replaces that of the others.
   * @param onAborted Called when its signal has ended its wait.
   */
  join<T>(request: WriteRequest, onAborted: (error: SqlsyncError) => void): Promise<T> {
    const { signal } = request;
    return new Promise<T>((resolve, reject) => {
      const onAbort = (): void => {
        this.#callers = this.#callers.filter((other) => other !== caller);
        const error = abortedError(signal as AbortSignal);
        reject(error);
        onAborted(error);
      };
      const forget = (): void => signal?.removeEventListener('abort', onAbort);
      const caller: Caller = { ...request, resolve, reject, forget };
      this.#callers.push(caller);
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** It leaves the queue: from here on a signal ends it through the transaction. */
  begin(): void {
    this.#hasBegun = true;
    for (const { forget } of this.#callers) forget();
  }

  settleWith(result: MaybePromise<unknown>): void {
    if (!(result instanceof Promise)) return this.resolve(result);
    result.then(
      (value) => this.resolve(value),
      (error: unknown) => this.reject(error),
    );
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
        caller.forget();
        caller.reject(error(nowMs - this.calledMs));
        isOver = isTurnOver(performance.now());
      }
    }
    return !isOver;
  }

  #takeCallers(): Caller[] {
    const callers = this.#callers;
    this.#callers = [];
    for (const { forget } of callers) forget();
    return callers;
  }
}
