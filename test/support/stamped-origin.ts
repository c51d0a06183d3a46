import type { ChildProcess } from 'node:child_process';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { makeStamped } from './stamped-database.ts';
import type { StampedOptions } from './stamped-database.ts';
import type { WriterReport } from './stamped-writer.ts';

const WRITER = fileURLToPath(new URL('./stamped-writer.ts', import.meta.url));

/** Names of what writers do, see stamped-writer.ts; `all` is everything. */
export interface WriterSettings {
  readonly processes: number;
  readonly kinds: readonly string[];
  readonly pauseMs: number;
  readonly seed: number;
}

/** How another file takes the name of a database. */
export const REPLACEMENTS = ['rename', 'unlink', 'empty file'] as const;
export type Replacement = (typeof REPLACEMENTS)[number];

/** A stamped database and the processes that write it. */
export class StampedOrigin {
  readonly path: string;
  readonly #options: StampedOptions;
  readonly #writers: ChildProcess[] = [];
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
      const writer = fork(WRITER, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
      this.#writers.push(writer);
      await answer(writer);
    }
  }

  /** Every writer closes its connection and waits for {@link resume}. */
  pause(): Promise<WriterReport[]> {
    return this.#order('pause');
  }

  resume(): Promise<WriterReport[]> {
    return this.#order('resume');
  }

  /** What was done since the last report. */
  report(): Promise<WriterReport[]> {
    return this.#order('report');
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
    for (const writer of this.#writers) {
      if (writer.exitCode !== null || writer.signalCode !== null) throw new Error('a writer ended by itself');
      writer.disconnect();
      await once(writer, 'exit');
    }
    this.#writers.length = 0;
  }

  async #order(order: 'pause' | 'resume' | 'report'): Promise<WriterReport[]> {
    return Promise.all(
      this.#writers.map((writer) => {
        const answered = answer(writer);
        writer.send(order);
        return answered as Promise<WriterReport>;
      }),
    );
  }
}

async function answer(writer: ChildProcess): Promise<unknown> {
  const ended = new AbortController();
  try {
    return await Promise.race([
      once(writer, 'message', { signal: ended.signal }).then(([value]: unknown[]) => value),
      once(writer, 'exit', { signal: ended.signal }).then(([status, signal]: unknown[]) => {
        throw new Error(`a writer ended with ${String(signal ?? status)}`);
      }),
    ]);
  } finally {
    ended.abort();
  }
}
