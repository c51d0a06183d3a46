import { SqlsyncError } from '../../errors.ts';
import { abortedError } from '../pool-errors.ts';
import { timerMs } from '../retry.ts';
import type { ReadCounters } from './read-counters.ts';
import { NO_LABEL, labelInWords } from '../stats.ts';
import type { Activity, WaitOptions } from '../types.ts';

/** A connection or thread that a caller has. */
export interface Lease<Resource> {
  readonly resource: Resource;
  readonly label: string;
  /** On the clock of performance.now(), like the next two. */
  readonly calledMs: number;
  readonly beganMs: number;
  readonly deadlineMs: number;
}

interface Waiter<Resource> {
  readonly label: string;
  readonly calledMs: number;
  begin(resource: Resource): void;
  fail(error: unknown): void;
}

export interface ReadLineOptions<Resource> {
  readonly capacity: number;
  /** What it hands out, and the option that adds more, for errors. */
  readonly what: string;
  readonly option: string;
  readonly busyTimeoutMs: number;
  readonly counters: ReadCounters;
  open(): Resource;
}

/** The most waiting calls that stats() lists. */
const WAITING_LISTED = 100;

/**
 * Connections or threads for readers, opened when needed, and the queue for them: first come, first served, each waiter
 * until its deadline. A waiter only waits while all are in use: a free one goes to the first in the queue.
 */
export class ReadLine<Resource> {
  readonly #options: ReadLineOptions<Resource>;
  readonly #idle: Resource[] = [];
  readonly #leases = new Set<Lease<Resource>>();
  readonly #waiters = new Set<Waiter<Resource>>();
  #opened = 0;
  #onIdle: (() => void) | undefined;

  constructor(options: ReadLineOptions<Resource>) {
    this.#options = options;
  }

  get opened(): number {
    return this.#opened;
  }

  get inUse(): number {
    return this.#leases.size;
  }

  get length(): number {
    return this.#waiters.size;
  }

  holders(nowMs: number): Activity[] {
    return [...this.#leases].map(({ label, beganMs }) => ({ label, forMs: nowMs - beganMs }));
  }

  waiting(nowMs: number): Activity[] {
    const listed = [...this.#waiters].slice(0, WAITING_LISTED);
    return listed.map(({ label, calledMs }) => ({ label, forMs: nowMs - calledMs }));
  }

  /** A free one, which stays free: for work that ends before any other caller can come. Throws what opening throws. */
  peek(): Resource | undefined {
    if (this.#idle.length === 0) {
      if (this.#opened >= this.#options.capacity) return undefined;
      this.#idle.push(this.#open());
    }
    return this.#idle[this.#idle.length - 1];
  }

  /** Rejects with READ_TIMEOUT, ABORTED, or what opening throws. */
  async take(options: WaitOptions, calledMs: number): Promise<Lease<Resource>> {
    const { label = NO_LABEL, deadlineMs = this.#options.busyTimeoutMs, signal } = options;
    if (signal?.aborted === true) throw abortedError(signal, 'read');
    const free = this.peek();
    if (free !== undefined) this.#idle.pop();
    const until = calledMs + deadlineMs;
    if (free !== undefined) return this.#lease(free, label, calledMs, until);
    const lease = new Promise<Lease<Resource>>((resolve, reject) => {
      const left = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
        this.#waiters.delete(waiter);
      };
      const waiter: Waiter<Resource> = {
        label,
        calledMs,
        begin: (resource) => {
          left();
          resolve(this.#lease(resource, label, calledMs, until));
        },
        fail: (error) => {
          left();
          this.#checkIdle();
          reject(error);
        },
      };
      const abort = (): void => waiter.fail(abortedError(signal as AbortSignal, 'read'));
      const expire = (): void => {
        // A timer fires early for times beyond its range.
        if (performance.now() < until - 1) timer = setTimeout(expire, timerMs(until - performance.now()));
        else waiter.fail(this.#timedOut(waiter));
      };
      let timer = setTimeout(expire, timerMs(until - performance.now()));
      signal?.addEventListener('abort', abort, { once: true });
      this.#waiters.add(waiter);
    });
    return lease;
  }

  /** Takes the lease back. */
  give(lease: Lease<Resource>): void {
    if (!this.#release(lease)) return;
    const next = first(this.#waiters);
    if (next === undefined) this.#idle.push(lease.resource);
    else next.begin(lease.resource);
    this.#checkIdle();
  }

  /** Takes back a lease whose resource is useless now. */
  discard(lease: Lease<Resource>): void {
    if (this.#release(lease)) this.#forget();
  }

  /** Forgets a resource that became useless while it was free. */
  discardIdle(resource: Resource): void {
    const index = this.#idle.indexOf(resource);
    if (index === -1) return;
    this.#idle.splice(index, 1);
    this.#forget();
  }

  /** Resolves with all of them once none is in use and no call waits. */
  async drained(): Promise<readonly Resource[]> {
    if (this.#leases.size > 0 || this.#waiters.size > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
    }
    this.#opened -= this.#idle.length;
    return this.#idle.splice(0);
  }

  #open(): Resource {
    const opened = this.#options.open();
    this.#opened += 1;
    return opened;
  }

  #lease(resource: Resource, label: string, calledMs: number, deadlineMs: number): Lease<Resource> {
    const lease = { resource, label, calledMs, beganMs: performance.now(), deadlineMs };
    this.#leases.add(lease);
    return lease;
  }

  #release(lease: Lease<Resource>): boolean {
    if (!this.#leases.delete(lease)) return false;
    const { label, calledMs, beganMs } = lease;
    this.#options.counters.ended(label, beganMs - calledMs, performance.now() - beganMs);
    return true;
  }

  #forget(): void {
    this.#opened -= 1;
    for (let next = first(this.#waiters); next !== undefined; next = first(this.#waiters)) {
      if (this.#opened >= this.#options.capacity) break;
      try {
        next.begin(this.#open());
      } catch (error) {
        next.fail(error);
      }
    }
    this.#checkIdle();
  }

  #checkIdle(): void {
    if (this.#onIdle !== undefined && this.#leases.size === 0 && this.#waiters.size === 0) this.#onIdle();
  }

  #timedOut(waiter: Waiter<Resource>): SqlsyncError {
    const nowMs = performance.now();
    const { capacity, what, option, counters } = this.#options;
    const waitedMs = nowMs - waiter.calledMs;
    counters.timedOut(waiter.label, waitedMs);
    const oldest = first(this.#leases);
    const holder =
      oldest === undefined
        ? ''
        : `; ${labelInWords(oldest.label, 'read')} has had one for ${Math.round(nowMs - oldest.beganMs)} ms`;
    // The caller itself is still counted among the waiters.
    const others = this.#waiters.size - 1;
    const company = others === 0 ? '' : `, as ${others} more ${others === 1 ? 'does' : 'do'}`;
    return new SqlsyncError(
      'READ_TIMEOUT',
      `${counters.path}: ${labelInWords(waiter.label, 'read')} waited ${Math.round(waitedMs)} ms for one of ` +
        `${capacity} ${what}${company}${holder}`,
      { hint: `End snapshots and iterations sooner, or open the database with more \`${option}\`.` },
    );
  }
}

function first<T>(set: ReadonlySet<T>): T | undefined {
  for (const value of set) return value;
  return undefined;
}
