import './environment.ts';
import type { ChildProcess } from 'node:child_process';
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Operations, Reply, Request } from './database-child.ts';

const CHILD = fileURLToPath(new URL('./database-child.ts', import.meta.url));

/** Connections to databases that another process holds, with a SQLite of its own. The process ends with the test. */
export class OtherProcess {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  /** Why nothing can be asked any more. */
  #ended: Error | undefined;
  #nextId = 1;
  #nextConnection = 1;

  constructor(t: { after(end: () => unknown): void }) {
    this.#child = fork(CHILD, { serialization: 'advanced', stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    this.#child.on('message', (reply: Reply) => {
      const waiting = this.#waiting.get(reply.id);
      this.#waiting.delete(reply.id);
      if ('error' in reply)
        waiting?.reject(Object.assign(new Error(reply.error.message), { code: reply.error.code }));
      else waiting?.resolve(reply.value);
    });
    this.#child.on('exit', (status, signal) => {
      this.#ended = new Error(`the other process ended: ${signal ?? status}`);
      for (const { reject } of this.#waiting.values()) reject(this.#ended);
    });
    // A request to a process that has just ended fails with its exit.
    this.#child.on('error', () => {});
    t.after(() => this.end());
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error('the other process did not start');
    return this.#child.pid;
  }

  async open(
    path: string,
    options: { readonly?: boolean; timeoutMs?: number } = {},
  ): Promise<OtherConnection> {
    const connection = new OtherConnection(this, this.#nextConnection++);
    await connection.call('open', { path, ...options });
    return connection;
  }

  request(connection: number, operation: keyof Operations, args: unknown[]): Promise<unknown> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const id = this.#nextId++;
    const waiting = Promise.withResolvers<unknown>();
    this.#waiting.set(id, waiting);
    const request: Request = { id, connection, operation, args };
    this.#child.send(request);
    return waiting.promise;
  }

  /** Kills it, so that its connections close without a checkpoint. Resolves when it is gone. */
  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await exited;
  }
}

/** One connection of the other process. Errors keep SQLite's `code`. */
export class OtherConnection {
  readonly #process: OtherProcess;
  readonly #number: number;

  constructor(owner: OtherProcess, number: number) {
    this.#process = owner;
    this.#number = number;
  }

  async call<O extends keyof Operations>(
    operation: O,
    ...args: Parameters<Operations[O]>
  ): Promise<ReturnType<Operations[O]>> {
    return (await this.#process.request(this.#number, operation, args)) as ReturnType<Operations[O]>;
  }

  exec(sql: string): Promise<void> {
    return this.call('exec', sql);
  }

  rows(sql: string): Promise<unknown[][]> {
    return this.call('rows', sql);
  }
}
