import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import Database from 'better-sqlite3';

/** How often it took the write lock, and how often SQLite refused it, since the last question. */
export interface WriterFigures {
  readonly taken: number;
  readonly refused: number;
}

const THIS_FILE = fileURLToPath(import.meta.url);

/** The pause between two turns with the write lock. */
const PAUSE_MS = 2;

/**
 * A process that takes the write lock of a database again and again, never waits for it, and gives it back
 * without a change. So it sees who makes a writer wait, and the bytes of the origin stay the same.
 */
export class OriginWriter {
  readonly #child: ChildProcess;

  static async start(path: string): Promise<OriginWriter> {
    const child = fork(THIS_FILE, [path], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    await once(child, 'message');
    return new OriginWriter(child);
  }

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  /** Takes the lock at least once more before it answers. */
  async figures(): Promise<WriterFigures> {
    const answer = once(this.#child, 'message');
    this.#child.send('figures');
    return ((await answer) as [WriterFigures])[0];
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.disconnect();
    await exited;
  }
}

function work(path: string): void {
  const database = new Database(path, { timeout: 0 });
  const [take, giveBack] = [database.prepare('BEGIN IMMEDIATE'), database.prepare('ROLLBACK')];
  let [taken, refused] = [0, 0];
  const turn = (): void => {
    try {
      take.run();
      giveBack.run();
      taken++;
    } catch {
      refused++;
    }
  };
  turn();
  const timer = setInterval(turn, PAUSE_MS);
  process.on('message', () => {
    turn();
    process.send?.({ taken, refused } satisfies WriterFigures);
    [taken, refused] = [0, 0];
  });
  process.on('disconnect', () => {
    clearInterval(timer);
    database.close();
  });
  process.send?.('ready');
}

if (process.argv[1] === THIS_FILE && process.argv[2] !== undefined) work(process.argv[2]);
