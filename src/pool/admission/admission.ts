import assert from 'node:assert/strict';
import { SqlsyncError } from '../../errors.ts';
import { QueueMember } from './member.ts';
import type { Admission, Turn } from './types.ts';
import { monotonicUs } from './wire.ts';

/**
 * How long a turn lasts while others wait, in milliseconds: long enough that handing over (0.1 to 0.2 ms) costs 2 %,
 * short enough that 16 processes all have had a turn in 0.2 s. A longer transaction still finishes.
 */
const SLICE_MS = 10;
/** How long a coordinator may take to answer, or to be found; then a waiter gives itself the turn. */
const ANSWER_MS = 100;
/** The longest wait for a turn, even if the coordinator says nothing. After it, SQLite's lock decides the order. */
const WAIT_MAX_MS = 3000;

interface Waiter {
  readonly turn: number;
  readonly sinceUs: number;
  readonly resolve: (turn: Turn) => void;
  readonly reject: (error: unknown) => void;
  readonly signal: AbortSignal | undefined;
  readonly abort: () => void;
}

/** For processes that do not queue: it is always their turn. */
class OwnTurn implements Turn {
  readonly #startMs = performance.now();

  get isOver(): boolean {
    return performance.now() - this.#startMs >= SLICE_MS;
  }

  leave(): void {}
}

class GrantedTurn implements Turn {
  readonly number: number;
  readonly sinceUs: number = monotonicUs();
  othersWait: boolean;
  readonly #startMs = performance.now();
  readonly #left: (turn: GrantedTurn) => void;

  constructor(number: number, othersWait: boolean, left: (turn: GrantedTurn) => void) {
    this.number = number;
    this.othersWait = othersWait;
    this.#left = left;
  }

  get isOver(): boolean {
    return this.othersWait && performance.now() - this.#startMs >= SLICE_MS;
  }

  leave(): void {
    this.#left(this);
  }
}

class NoAdmission implements Admission {
  readonly isCalm = true;

  enter(): Promise<Turn> {
    return Promise.resolve(new OwnTurn());
  }

  wrote(): void {}

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** No queue: every process tries at any time. */
export const noAdmission: Admission = new NoAdmission();

/**
 * The queue among the processes that have `databasePath` open; the file must exist. It costs nothing until there is
 * contention: it connects a moment later, and never keeps the process alive. If there can be no queue (Windows, a
 * folder that cannot be written, …), it stays calm for ever. `describe` says what this process does with the database, to
 * `sqlsync doctor`.
 */
export function openAdmission(databasePath: string, describe: () => string = () => ''): Admission {
  return process.platform === 'win32' ? noAdmission : new QueueAdmission(databasePath, describe);
}

class QueueAdmission implements Admission {
  readonly #member: QueueMember;
  /** The coordinator was asked for a sign of life, and has not answered yet. */
  #isAsked = false;
  /** The coordinator has been silent for so long that waiters ignore it; its next message ends that. */
  #isSilent = false;
  #isClosed = false;
  #lastTurn = 0;
  #turn: GrantedTurn | undefined;
  #waiter: Waiter | undefined;
  readonly #patience: NodeJS.Timeout;

  constructor(databasePath: string, describe: () => string) {
    this.#patience = setTimeout(() => this.#checkPatience(), ANSWER_MS).unref();
    this.#member = new QueueMember(databasePath, {
      joined: () => this.#queueAgain(),
      heard: () => {
        this.#isAsked = false;
        this.#isSilent = false;
      },
      granted: (turn, othersWait) => this.#granted(turn, othersWait),
      wanted: (turn) => this.#wanted(turn),
      describe,
    });
  }

  get isCalm(): boolean {
    return !this.#member.isContended || this.#isSilent;
  }

  enter(signal?: AbortSignal): Promise<Turn> {
    if (this.#isClosed) return Promise.reject(closedError());
    assert(this.#turn === undefined && this.#waiter === undefined, 'one turn at a time');
    if (this.#isSilent || this.#member.isUnavailable) return Promise.resolve(new OwnTurn());
    return this.#wait(signal);
  }

  wrote(): void {
    this.#member.wrote();
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#endWait()?.reject(closedError());
    clearTimeout(this.#patience);
    await this.#member.close();
  }

  #wait(signal: AbortSignal | undefined): Promise<Turn> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const turn = this.#nextTurn();
      const abort = (): void => {
        this.#endWait();
        this.#member.send('leave', turn);
        reject(signal?.reason as Error);
      };
      this.#waiter = { turn, sinceUs: monotonicUs(), resolve, reject, signal, abort };
      signal?.addEventListener('abort', abort, { once: true });
      // A waiting write keeps the process alive, even if the process has little else to do.
      this.#patience.refresh().ref();
      if (!this.#member.send('enter', turn, false, this.#waiter.sinceUs)) this.#member.joinNow();
    });
  }

  #endWait(): Waiter | undefined {
    const waiter = this.#waiter;
    this.#waiter = undefined;
    this.#isAsked = false;
    this.#patience.unref();
    waiter?.signal?.removeEventListener('abort', waiter.abort);
    return waiter;
  }

  #nextTurn(): number {
    this.#lastTurn = (this.#lastTurn + 1) % 2 ** 32;
    return this.#lastTurn;
  }

  #granted(number: number, othersWait: boolean): void {
    if (this.#waiter?.turn === number) {
      this.#turn = new GrantedTurn(number, othersWait, (turn) => this.#left(turn));
      this.#endWait()?.resolve(this.#turn);
    } else if (this.#turn?.number === number) {
      // The last coordinator had granted this turn.
      this.#turn.othersWait ||= othersWait;
    } else {
      this.#member.send('leave', number);
    }
  }

  #wanted(number: number): void {
    if (this.#turn?.number === number) {
      this.#turn.othersWait = true;
      this.#member.send('here', number);
    } else {
      this.#member.send('leave', number);
    }
  }

  #left(turn: GrantedTurn): void {
    if (turn !== this.#turn) return;
    this.#turn = undefined;
    this.#member.send('leave', turn.number);
  }

  /** After another coordinator took over, every process keeps its place. */
  #queueAgain(): void {
    if (this.#turn !== undefined) this.#member.send('enter', this.#turn.number, true, this.#turn.sinceUs);
    else if (this.#waiter !== undefined) {
      this.#member.send('enter', this.#waiter.turn, false, this.#waiter.sinceUs);
    }
  }

  #checkPatience(): void {
    const waiter = this.#waiter;
    if (waiter === undefined && !this.#isSilent) return;
    this.#patience.refresh();
    if (waiter === undefined) {
      // Nobody waits for the coordinator, but it may have come back.
      this.#member.send('ask', 0);
      return;
    }
    const isTired = monotonicUs() - waiter.sinceUs >= WAIT_MAX_MS * 1000;
    if (isTired) this.#giveItself();
    else if (!this.#isAsked) {
      this.#isAsked = true;
      this.#member.send('ask', 0);
    } else {
      // If this process itself was held up, the answer may be there, unread: timers run before sockets.
      setImmediate(() => {
        if (this.#waiter !== waiter || !this.#isAsked) return;
        this.#isSilent = true;
        this.#giveItself();
      });
    }
  }

  #giveItself(): void {
    const waiter = this.#endWait();
    if (waiter === undefined) return;
    this.#member.send('leave', waiter.turn);
    waiter.resolve(new OwnTurn());
  }
}

function closedError(): SqlsyncError {
  return new SqlsyncError('CLOSED', 'The database was closed while a write waited for its turn');
}
