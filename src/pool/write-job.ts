import { AsyncLocalStorage } from 'node:async_hooks';
import { abortedError } from './write-transaction.ts';
import type { MaybePromise, Priority, WriteOptions, WriteTransaction } from './types.ts';
import type { Writer } from './writer.ts';

/** One statement that commits on its own, or a transaction. */
export type Work<T> =
  | { readonly statement: (writer: Writer) => T }
  | { readonly transaction: (tx: WriteTransaction) => MaybePromise<T> };

/** One who waits for a job. */
interface Caller {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
  /** On the clock of performance.now(). */
  readonly deadlineMs: number;
  /** Takes its listener from its signal. */
  readonly forget: () => void;
}

/**
 * A write that could not run at once. Several callers wait for one where their writes had the same key: what runs
 * is the latest's, and each caller gives up at its own deadline and by its own signal.
 */
export class WriteJob {
  readonly priority: Priority;
  readonly label: string;
  readonly coalesce: string | undefined;
  readonly calledMs: number;
  work: Work<unknown>;
  /** Runs what it is given with the caller's AsyncLocalStorage values. */
  inContext: ReturnType<typeof AsyncLocalStorage.snapshot>;
  /** How often in a row SQLite refused it. */
  refusals = 0;
  #callers: Caller[] = [];
  #signal: AbortSignal | undefined;

  constructor(label: string, calledMs: number, work: Work<unknown>, options: WriteOptions) {
    this.priority = options.priority ?? 'normal';
    this.label = label;
    this.coalesce = options.coalesce;
    this.calledMs = calledMs;
    this.work = work;
    this.inContext = AsyncLocalStorage.snapshot();
  }

  /** The end of the last caller's patience. */
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

  /** The signal that ends it once it runs: where several wait for it, none of them may do that. */
  get signal(): AbortSignal | undefined {
    return this.#callers.length === 1 ? this.#signal : undefined;
  }

  /**
   * The promise of one more caller.
   * @param onAbandoned Called when a signal has ended the patience of the last one.
   */
  join<T>(deadlineMs: number, signal: AbortSignal | undefined, onAbandoned: () => void): Promise<T> {
    this.#signal = signal;
    return new Promise<T>((resolve, reject) => {
      const onAbort = (): void => {
        this.#callers = this.#callers.filter((other) => other !== caller);
        reject(abortedError(signal as AbortSignal));
        if (!this.isAwaited) onAbandoned();
      };
      const forget = (): void => signal?.removeEventListener('abort', onAbort);
      const caller: Caller = { resolve, reject, deadlineMs, forget };
      this.#callers.push(caller);
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** The later write with the same key takes its place. */
  replaceBy(work: Work<unknown>): void {
    this.work = work;
    this.inContext = AsyncLocalStorage.snapshot();
  }

  /** It leaves the queue: from here on a signal ends it by way of the transaction. */
  begin(): void {
    for (const { forget } of this.#callers) forget();
  }

  resolve(value: unknown): void {
    for (const caller of this.#takeCallers()) caller.resolve(value as never);
  }

  reject(error: unknown): void {
    for (const caller of this.#takeCallers()) caller.reject(error as Error);
  }

  /** Rejects the callers whose deadline has passed. */
  expire(nowMs: number, error: (waitedMs: number) => Error): void {
    const expired = this.#callers.filter(({ deadlineMs }) => deadlineMs <= nowMs);
    this.#callers = this.#callers.filter((caller) => !expired.includes(caller));
    for (const caller of expired) {
      caller.forget();
      caller.reject(error(nowMs - this.calledMs));
    }
  }

  #takeCallers(): Caller[] {
    const callers = this.#callers;
    this.#callers = [];
    for (const { forget } of callers) forget();
    return callers;
  }
}
