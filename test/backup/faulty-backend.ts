import { setImmediate as nextTick } from 'node:timers/promises';
import type { Random } from '../../fixtures/random.ts';
import type { ByteRange, LocalBackend, StoredFile, StoreFolder } from '../../src/backup/backends/backend.ts';
import { unavailable } from '../../src/backup/store-error.ts';

export type Operation = 'put' | 'get' | 'list' | 'delete';

/**
 * What becomes of one operation: it works; it fails without effect; it has its effect and fails, as if the
 * answer were lost; it fails and has its effect later, as after a time-out of a request that is still under
 * way; or it runs twice, as by a client that repeats it.
 */
export type Fault = 'none' | 'before' | 'after' | 'late' | 'twice';

/** A backend that asks `plan` for the fate of each operation, by the operation's number from 1. */
export class FaultyBackend implements LocalBackend {
  readonly description = 'a faulty store';
  readonly parallel: number;
  /** The number of operations so far. */
  count = 0;
  /** The system's code of its faults. */
  code = 'ENOSPC';
  readonly #backend: LocalBackend;
  readonly #plan: (number: number, operation: Operation, name: string) => Fault;
  readonly #pauses: Random | undefined;
  readonly #hold: ((number: number) => Promise<void> | undefined) | undefined;
  readonly #late: (() => Promise<unknown>)[] = [];

  /**
   * With `pauses`, every operation takes a random number of turns of the event loop, so that operations of
   * others come between. With `hold`, it waits for the promise that `hold` returns for its number.
   */
  constructor(
    backend: LocalBackend,
    plan: (number: number, operation: Operation, name: string) => Fault,
    pauses?: Random,
    hold?: (number: number) => Promise<void> | undefined,
  ) {
    this.#backend = backend;
    this.parallel = backend.parallel ?? 1;
    this.#plan = plan;
    this.#pauses = pauses;
    this.#hold = hold;
  }

  put(name: string, pieces: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    return this.#do('put', name, () => this.#backend.put(name, pieces));
  }

  replaceConfig(pieces: readonly Uint8Array[]): Promise<void> {
    return this.#do('put', 'config', () => this.#backend.replaceConfig(pieces));
  }

  get(name: string, range?: ByteRange): Promise<Uint8Array> {
    return this.#do('get', name, () => this.#backend.get(name, range));
  }

  getNow(name: string, range?: ByteRange): Uint8Array {
    const fault = this.#plan(++this.count, 'get', name);
    if (fault === 'before' || fault === 'after' || fault === 'late') throw this.#error('get', name);
    return this.#backend.getNow(name, range);
  }

  list(folder: StoreFolder): Promise<StoredFile[]> {
    return this.#do('list', folder, () => this.#backend.list(folder));
  }

  delete(name: string): Promise<void> {
    return this.#do('delete', name, () => this.#backend.delete(name));
  }

  /** Late operations take effect, in the order of their calls. */
  async arrive(): Promise<void> {
    for (const action of this.#late.splice(0)) {
      await this.#pause();
      await action();
    }
  }

  async #do<T>(operation: Operation, name: string, action: () => Promise<T>): Promise<T> {
    await this.#pause();
    const number = ++this.count;
    const fault = this.#plan(number, operation, name);
    if (fault === 'late' && (operation === 'put' || operation === 'delete')) this.#late.push(action);
    if (fault === 'before' || fault === 'late') throw this.#error(operation, name);
    await this.#hold?.(number);
    let result = await action();
    if (fault === 'twice') result = await action();
    if (fault === 'after') throw this.#error(operation, name);
    return result;
  }

  async #pause(): Promise<void> {
    for (let pauses = this.#pauses?.integer(0, 4) ?? 0; pauses > 0; pauses--) await nextTick();
  }

  #error(operation: Operation, name: string): Error {
    const cause = Object.assign(new Error(`${this.code}: a fault`), { code: this.code });
    return unavailable(this.description, `${operation} ${name}`, cause);
  }
}
