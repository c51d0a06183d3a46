import type { ChildProcess } from 'node:child_process';
import { fork } from 'node:child_process';
import { once } from 'node:events';

/** A child process that answers each order with one message, after a first one when it is ready. */
export class ObedientChild<Order extends string, Reply> {
  readonly #child: ChildProcess;
  readonly #name: string;

  static async start<O extends string, R>(
    program: string,
    args: readonly string[],
  ): Promise<ObedientChild<O, R>> {
    const child = new ObedientChild<O, R>(program, args);
    await child.#answer();
    return child;
  }

  private constructor(program: string, args: readonly string[]) {
    this.#name = program;
    this.#child = fork(program, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Sends one order at a time. Rejects if the child has ended. */
  async order(order: Order): Promise<Reply> {
    const answered = this.#answer();
    if (this.#child.connected) this.#child.send(order);
    return (await answered) as Reply;
  }

  /** Rejects if the child had ended by itself. */
  async stop(): Promise<void> {
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== null || signalCode !== null) throw this.#ended(signalCode ?? exitCode);
    const exited = once(this.#child, 'exit');
    this.#child.disconnect();
    await exited;
  }

  /** Kills it, if it has not ended. Resolves when it is gone. */
  async kill(): Promise<void> {
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== null || signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exited;
  }

  async #answer(): Promise<unknown> {
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== null || signalCode !== null) throw this.#ended(signalCode ?? exitCode);
    const done = new AbortController();
    const { signal } = done;
    try {
      return await Promise.race([
        once(this.#child, 'message', { signal }).then(([value]: unknown[]) => value),
        once(this.#child, 'exit', { signal }).then(([status, killedBy]: unknown[]) => {
          throw this.#ended(killedBy ?? status);
        }),
      ]);
    } finally {
      done.abort();
    }
  }

  #ended(how: unknown): Error {
    return new Error(`${this.#name} ended with ${String(how)}`);
  }
}
