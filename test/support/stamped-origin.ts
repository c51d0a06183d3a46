import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ObedientChild } from './child-orders.ts';
import { makeStamped } from './stamped-database.ts';
import type { StampedOptions } from './stamped-database.ts';
import type { WriterOrder, WriterReport } from './stamped-writer.ts';

const WRITER = fileURLToPath(new URL('./stamped-writer.ts', import.meta.url));

/** Names of the writers' jobs, see stamped-writer.ts; `all` is everything. */
export interface WriterSettings {
  readonly processes: number;
  readonly kinds: readonly string[];
  readonly pauseMs: number;
  readonly seed: number;
}

/** The ways in which another file takes the name of a database. */
export const REPLACEMENTS = ['rename', 'unlink', 'empty file'] as const;
export type Replacement = (typeof REPLACEMENTS)[number];

/** A stamped database and the processes that write it. */
export class StampedOrigin {
  readonly path: string;
  readonly #options: StampedOptions;
  readonly #writers: ObedientChild<WriterOrder, WriterReport>[] = [];
  #replacements = 0;

  /** Makes the database at `path`. */
  constructor(path: string, options: StampedOptions) {
    this.path = path;
    this.#options = options;
    makeStamped(path, options);
  }

  async start({ processes, kinds, pauseMs, seed }: WriterSettings): Promise<void> {
    for (let i = 0; i < processes; i++) {
      const args = [this.path, String(seed + i), kinds.join(','), String(pauseMs)];
      this.#writers.push(await ObedientChild.start<WriterOrder, WriterReport>(WRITER, args));
    }
  }

  /** Every writer closes its connection and waits for {@link resume}. */
  pause(): Promise<WriterReport[]> {
    return this.#order('pause');
  }

  resume(): Promise<WriterReport[]> {
    return this.#order('resume');
  }

  /** The counts since the last report. */
  report(): Promise<WriterReport[]> {
    return this.#order('report');
  }

  /** One of the writers does this job once, now. */
  async act(kind: string): Promise<void> {
    const [writer] = this.#writers;
    if (writer === undefined) throw new Error('there is no writer');
    await writer.order(`do ${kind}`);
  }

  get writerPids(): number[] {
    return this.#writers.map(({ pid }) => pid);
  }

  /**
   * Another database takes the name, with the writers away and the WAL of the old one gone first: a program that
   * opened the new file beside the old one's WAL would replay it, and no copy could tell.
   */
  async replace(how: Replacement): Promise<void> {
    await this.pause();
    const next = `${this.path}.next`;
    if (how === 'empty file') writeFileSync(next, '');
    else makeStamped(next, { ...this.#options, seed: this.#options.seed + ++this.#replacements });
    if (how === 'unlink') rmSync(this.path);
    for (const suffix of ['-wal', '-shm', '-journal']) rmSync(this.path + suffix, { force: true });
    renameSync(next, this.path);
    await this.resume();
  }

  async stop(): Promise<void> {
    const writers = this.#writers.splice(0);
    for (const writer of writers) await writer.stop();
  }

  #order(order: WriterOrder): Promise<WriterReport[]> {
    return Promise.all(this.#writers.map((writer) => writer.order(order)));
  }
}
