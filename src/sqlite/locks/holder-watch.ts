import { basename } from 'node:path';
import { sanitizeLine } from '../../errors.ts';
import { realPath } from '../../files/path-names.ts';
import { processInfo } from '../../files/processes.ts';
import { retryBusy } from '../busy.ts';
import type { LockHolder, RetryOptions } from '../busy.ts';
import { sqliteLocks } from './sqlite-locks.ts';

/** The locks that keep others waiting; readers have none of them. */
const BLOCKING = new Set(['WRITE', 'RESERVED', 'PENDING', 'EXCLUSIVE', 'RECOVER']);

/** Each look reads the system's list of locks. */
const PAUSE_MS = 250;

/** Looks that are further apart are not of one hold. */
const MAX_GAP_MS = 4 * PAUSE_MS;

/** Programs whose second word names what they run. */
const INTERPRETERS = /^(?:node|bun|deno|python[\d.]*|ruby|perl|php[\d.]*|sh|bash)$/;
const MAX_NAME_LENGTH = 40;

let areCommandsWithheld = false;

/** From now on holders are named by their ids alone: a restricted peer gets the errors of this process. */
export function withholdCommands(): void {
  areCommandsWithheld = true;
}

/**
 * Watches who holds the lock of a database for which somebody waits. Opens neither the database nor its files, so that
 * it may run in a process that has the database open. Knows nothing where the system does not list locks.
 */
export class HolderWatch implements LockHolder {
  readonly #path: string;
  #pid: number | undefined;
  #startedAtMs: number | undefined;
  #firstMs = 0;
  #lastMs = -Infinity;
  #looks = 0;

  constructor(path: string) {
    this.#path = path;
  }

  look(): void {
    const nowMs = performance.now();
    if (nowMs - this.#lastMs >= PAUSE_MS) this.#look(nowMs);
  }

  /** The lock was got: a later holder is another one. */
  reset(): void {
    this.#pid = undefined;
    this.#lastMs = -Infinity;
  }

  /** Who holds the lock now, and how long the looks have shown it so; undefined if nobody is known to. */
  inWords(): string | undefined {
    this.look();
    const pid = this.#pid;
    if (pid === undefined) return undefined;
    const heldMs = Math.round(this.#lastMs - this.#firstMs);
    const since = this.#looks > 1 ? `, at each of ${this.#looks} looks in ${heldMs} ms` : '';
    return `${nameOf(pid)} holds it${since}`;
  }

  #look(nowMs: number): void {
    const isGap = nowMs - this.#lastMs > MAX_GAP_MS;
    this.#lastMs = nowMs;
    const pid = this.#holder();
    const startedAtMs = pid === undefined ? undefined : processInfo(pid)?.startedAtMs;
    if (isGap || pid !== this.#pid || startedAtMs !== this.#startedAtMs) {
      this.#pid = pid;
      this.#startedAtMs = startedAtMs;
      this.#firstMs = nowMs;
      this.#looks = 0;
    }
    this.#looks++;
  }

  #holder(): number | undefined {
    try {
      const locks = sqliteLocks(realPath(this.#path));
      return locks.find(({ name, isExclusive }) => isExclusive && BLOCKING.has(name))?.pid;
    } catch {
      return undefined; // the file is gone, and the caller learns of it in another way
    }
  }
}

/** As `retryBusy`, for a lock of the database at `path`; the error names who holds it. */
export function retryLocked<T>(
  path: string,
  what: string,
  action: () => T | Promise<T>,
  options: RetryOptions,
): Promise<T> {
  return retryBusy(what, action, { ...options, holder: new HolderWatch(path) });
}

function nameOf(pid: number): string {
  if (pid === process.pid) return 'another connection of this process';
  const command = areCommandsWithheld ? undefined : processInfo(pid)?.command;
  return command === undefined ? `PID ${pid}` : `PID ${pid} (\`${programOf(command)}\`)`;
}

/** The program of a command line, and its script; further words may be passwords, and errors go into logs. */
function programOf(command: string): string {
  const [first = '', second] = command.trim().split(/\s+/);
  const program = basename(first);
  const isScript = INTERPRETERS.test(program) && second !== undefined && !second.startsWith('-');
  return sanitizeLine(isScript ? `${program} ${basename(second)}` : program, MAX_NAME_LENGTH);
}
