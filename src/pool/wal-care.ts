import { statSync } from 'node:fs';
import { POOL_CHANNELS } from './stats.ts';
import type { WalEvent } from './stats.ts';

/** How often to look at the size while there are writes. */
const LOOK_MS = 50;

/** The pause after a moment that was not right; doubles up to the longest while readers or writers are in the way. */
const AGAIN_MS = 50;
const AGAIN_LONGEST_MS = 5000;

export interface WalWriter {
  /** True if no call writes or waits to write: emptying the WAL holds the writer's lock. */
  readonly isIdle: boolean;
  /** Does not wait. Returns false if a connection reads or writes. Throws SQLite's errors (disk full). */
  truncateWal(): boolean;
}

/**
 * Keeps the WAL file from growing without end. SQLite checkpoints by itself, every 1000 pages, but it cannot restart
 * the file while there is always a reader. So once the file has passed its limit, this empties it at a moment when no
 * call writes; if a reader is in the way, later.
 */
export class WalCare {
  readonly #path: string;
  readonly #walPath: string;
  readonly #limitBytes: number;
  #writer: WalWriter | undefined;
  #nextLookMs = 0;
  #againMs = AGAIN_MS;
  #timer: NodeJS.Timeout | undefined;
  truncations = 0;
  truncationsBusy = 0;

  /**
   * @param path For events, as the application named it.
   * @param filePath The path of the database's file itself; `path` may be a link to it.
   */
  constructor(path: string, filePath: string, limitBytes: number) {
    this.#path = path;
    this.#walPath = `${filePath}-wal`;
    this.#limitBytes = limitBytes;
  }

  watch(writer: WalWriter): void {
    this.#writer = writer;
  }

  /** @param nowMs On the clock of performance.now(). */
  afterWrite(nowMs: number): void {
    if (this.#timer !== undefined) return;
    if (nowMs < this.#nextLookMs) {
      // A burst of writes may end before the next look, and be the last for long.
      this.#timer = setTimeout(() => this.#look(), this.#nextLookMs - nowMs);
      this.#timer.unref();
      return;
    }
    this.#nextLookMs = nowMs + LOOK_MS;
    this.#look();
  }

  /** The file's size; 0 if it does not exist or cannot be inspected: no write fails because of that. */
  bytes(): number {
    try {
      // stat opens no descriptor: closing one would drop this process's locks on some systems.
      return statSync(this.#walPath, { throwIfNoEntry: false })?.size ?? 0;
    } catch {
      return 0;
    }
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#writer = undefined;
  }

  #look(): void {
    this.#timer = undefined;
    if (this.#writer !== undefined && this.bytes() > this.#limitBytes) this.#later(0);
  }

  #later(delayMs: number): void {
    this.#timer = setTimeout(() => this.#empty(), delayMs);
    this.#timer.unref();
  }

  #empty(): void {
    this.#timer = undefined;
    const bytes = this.bytes();
    if (this.#writer === undefined) return;
    if (bytes <= this.#limitBytes) {
      // SQLite has restarted the file meanwhile, and cut it to the limit itself.
      this.truncations += 1;
      this.#againMs = AGAIN_MS;
      return;
    }
    if (!this.#writer.isIdle) {
      this.#later(AGAIN_MS);
      return;
    }
    const isDone = wasEmptied(this.#writer);
    if (isDone) {
      this.truncations += 1;
      this.#againMs = AGAIN_MS;
    } else {
      this.truncationsBusy += 1;
      this.#later(this.#againMs);
      this.#againMs = Math.min(this.#againMs * 2, AGAIN_LONGEST_MS);
    }
    if (!POOL_CHANNELS.wal.hasSubscribers) return;
    const event: WalEvent = { path: this.#path, bytes, outcome: isDone ? 'truncated' : 'busy' };
    POOL_CHANNELS.wal.publish(event);
  }
}

/** If it fails (disk full), the next writes report it to their callers; this one has no caller. */
function wasEmptied(writer: WalWriter): boolean {
  try {
    return writer.truncateWal();
  } catch {
    return false;
  }
}
