import { isTurnOver, nextTurn } from '../event-loop.ts';
import type { Admission, Turn } from '../admission/types.ts';
import { PATIENT_ATTEMPT_MS, retryDelayMs, timerMs } from '../retry.ts';
import type { WriteJob } from './write-job.ts';
import { WriteQueue } from './write-queue.ts';

/** At most one attempt in this time may block: many calls whose deadlines pass together must not each do so. */
const PATIENCE_PAUSE_MS = 250;

/**
 * One turn is not enough: an application that yields between two writes comes back in the same turn that looks for it.
 */
const QUIET_TURNS = 2;

/** The server of the waiting jobs, as the line sees it. */
export interface LineServer {
  /** True while a transaction runs. */
  readonly isTaken: boolean;
  /** How many writes have run so far. */
  readonly served: number;
  /** Tries to begin. Returns a function to call once the job has left the line, or undefined if it was busy. */
  attempt(job: WriteJob, patiently: boolean): (() => void) | undefined;
  timedOut(label: string, waitedMs: number): Error;
  /** The line is empty. */
  emptied(): void;
}

/**
 * The jobs that wait for the writer. Serves them one after the other, tries again when SQLite refuses as busy, and
 * takes part in the queue among processes. Only the head of the line tries, so that the jobs behind it cost nothing.
 *
 *     wait ──► head ──► calm? ── yes ──► attempt ──► served ──► next
 *                │                          │
 *                └── no ──► enter ◄── busy ─┤
 *                             └──► attempt ─┴─ busy ──► pause ──► attempt …
 *
 * A turn among the processes is kept while it lasts and work comes, since handing it on costs more than a small
 * transaction. It is left after {@link QUIET_TURNS} turns of the event loop without work.
 */
export class WriteLine {
  readonly #server: LineServer;
  readonly #admission: Admission;
  readonly #queue = new WriteQueue<WriteJob>();
  readonly #byKey = new Map<string, WriteJob>();
  #turn: Turn | undefined;
  #entering: AbortController | undefined;
  #pause: NodeJS.Timeout | 'turn' | undefined;
  #isAdvancing = false;
  #isLingering = false;
  #deadlineTimer: NodeJS.Timeout | undefined;
  #deadlineMs = Infinity;
  #lastPatienceMs = -Infinity;

  constructor(server: LineServer, admission: Admission) {
    this.#server = server;
    this.#admission = admission;
  }

  get length(): number {
    return this.#queue.size;
  }

  /** True if no job has to go first: a new one may try at once. */
  get isFree(): boolean {
    if (this.#queue.size > 0) return false;
    const turn = this.#turn;
    return turn === undefined ? this.#admission.isCalm : !turn.isOver;
  }

  /** True if there is nothing to do after a write. */
  get isQuiet(): boolean {
    return this.#queue.size === 0 && this.#turn === undefined;
  }

  /** True if no writer waits that this process knows of, here or in another process. */
  get nobodyWaits(): boolean {
    return this.isQuiet && this.#admission.isCalm;
  }

  waitingFor(key: string): WriteJob | undefined {
    return this.#byKey.get(key);
  }

  jobs(): WriteJob[] {
    return this.#queue.items();
  }

  /** Call {@link advance} afterwards. */
  add(job: WriteJob, isFirst = false): void {
    if (isFirst) this.#queue.pushFront(job);
    else this.#queue.push(job);
    if (job.coalesce !== undefined) this.#byKey.set(job.coalesce, job);
    this.watchDeadline(job.deadlineMs);
  }

  /** The job was given up: no caller waits for it any more. */
  remove(job: WriteJob): void {
    this.#queue.remove(job);
    this.#forgetKey(job);
    if (this.#queue.size === 0) this.#emptied();
  }

  /** Serves every job that can be served now. Call it whenever that may have changed. */
  advance(): void {
    if (this.#isAdvancing || this.#pause !== undefined || this.#entering !== undefined) return;
    this.#isAdvancing = true;
    try {
      while (this.#step());
    } finally {
      this.#isAdvancing = false;
    }
  }

  /** Makes sure that deadlines are checked at this moment. */
  watchDeadline(deadlineMs: number): void {
    if (deadlineMs < this.#deadlineMs) {
      clearTimeout(this.#deadlineTimer);
      this.#deadlineMs = deadlineMs;
      this.#deadlineTimer = setTimeout(() => this.#expire(), timerMs(deadlineMs - performance.now()));
    } else {
      this.#deadlineTimer?.ref();
    }
  }

  close(): void {
    clearTimeout(this.#deadlineTimer);
    this.#leave();
  }

  get hasTurn(): boolean {
    return this.#turn !== undefined;
  }

  /** Passes its turn among the processes on. Resolves when it has none and waits for none. */
  async yieldTurn(): Promise<void> {
    while (this.#entering !== undefined) await nextTurn();
    this.#leave();
  }

  #step(): boolean {
    if (this.#server.isTaken) return false;
    if (this.#turn?.isOver === true) this.#leave();
    const job = this.#queue.peek();
    if (job === undefined) {
      this.#emptied();
      return false;
    }
    if (this.#turn === undefined && (job.refusals > 0 || !this.#admission.isCalm)) {
      this.#enter();
      return false;
    }
    const nowMs = performance.now();
    const proceed = this.#server.attempt(job, this.#mayBePatient(job, nowMs));
    if (proceed === undefined) return this.#refused(job);
    this.#queue.take();
    this.#forgetKey(job);
    proceed();
    if (this.#queue.size === 0 || !isTurnOver(performance.now())) return true;
    this.#pause = 'turn';
    setImmediate(() => this.#resume());
    return false;
  }

  /** The first refusal leads to the queue among processes, the next to a pause. */
  #refused(job: WriteJob): boolean {
    job.refusals += 1;
    if (this.#turn === undefined) return true;
    const leftMs = job.deadlineMs - PATIENT_ATTEMPT_MS - performance.now();
    const delayMs = Math.max(1, Math.min(retryDelayMs(job.refusals), leftMs));
    this.#pause = setTimeout(() => this.#resume(), delayMs);
    return false;
  }

  /** SQLite itself notices a free lock better than attempts from outside: once, near the end. */
  #mayBePatient(job: WriteJob, nowMs: number): boolean {
    if (job.refusals === 0 || nowMs < job.deadlineMs - PATIENT_ATTEMPT_MS) return false;
    if (nowMs - this.#lastPatienceMs < PATIENCE_PAUSE_MS) return false;
    this.#lastPatienceMs = nowMs;
    return true;
  }

  #resume(): void {
    this.#pause = undefined;
    this.advance();
  }

  #enter(): void {
    const entering = new AbortController();
    this.#entering = entering;
    const entered = (turn: Turn | undefined): void => {
      this.#entering = undefined;
      this.#turn = turn;
      this.advance();
    };
    this.#admission.enter(entering.signal).then(entered, () => {
      // The queue is a courtesy: if it fails, the lock alone decides.
      entered(entering.signal.aborted ? undefined : SOLO_TURN);
    });
  }

  #leave(): void {
    const turn = this.#turn;
    this.#turn = undefined;
    turn?.leave();
  }

  #emptied(): void {
    this.#deadlineTimer?.unref();
    this.#entering?.abort();
    if (typeof this.#pause === 'object') {
      clearTimeout(this.#pause);
      this.#pause = undefined;
    }
    if (this.#turn !== undefined && !this.#isLingering) this.#linger();
    this.#server.emptied();
  }

  #linger(quietTurns = 0): void {
    const { served } = this.#server;
    this.#isLingering = true;
    setImmediate(() => {
      this.#isLingering = false;
      if (this.#turn === undefined || this.#queue.size > 0 || this.#server.isTaken) return;
      const quiet = this.#server.served === served ? quietTurns + 1 : 0;
      if (this.#turn.isOver || quiet === QUIET_TURNS) this.#leave();
      else this.#linger(quiet);
    });
  }

  #expire(): void {
    this.#deadlineTimer = undefined;
    // No other timer until all have been checked.
    this.#deadlineMs = -Infinity;
    this.#expireFrom(this.#queue.items(), 0);
  }

  /** In portions: if very many give up at the same moment, the event loop turns in between. */
  #expireFrom(jobs: readonly WriteJob[], first: number): void {
    // A timer may fire a fraction of a millisecond early.
    const nowMs = performance.now() + 1;
    for (let index = first; index < jobs.length; index += 1) {
      const job = jobs[index] as WriteJob;
      // Between two portions other jobs may have been served or aborted.
      if (!job.isAwaited) continue;
      const isThrough = job.expire(nowMs, (waitedMs) => this.#server.timedOut(job.label, waitedMs));
      if (!job.isAwaited) this.remove(job);
      if (!isThrough) {
        setImmediate(() => this.#expireFrom(jobs, index));
        return;
      }
    }
    this.#deadlineMs = Infinity;
    const waiting = this.#queue.items();
    this.watchDeadline(waiting.reduce((next, job) => Math.min(next, job.earliestDeadlineMs), Infinity));
    this.advance();
  }

  #forgetKey(job: WriteJob): void {
    if (job.coalesce !== undefined && this.#byKey.get(job.coalesce) === job) this.#byKey.delete(job.coalesce);
  }
}

const SOLO_TURN: Turn = { isOver: false, leave: () => undefined };
