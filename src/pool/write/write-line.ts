import { isTurnOver, nextTurn } from '../event-loop.ts';
import type { Admission, Turn } from '../admission/types.ts';
import { PATIENT_ATTEMPT_MS, retryDelayMs, timerMs } from '../retry.ts';
import type { WriteJob, WriteOutcome } from './write-job.ts';
import { WriteQueue } from './write-queue.ts';

/** At most one attempt in this time may block: many calls whose deadlines pass together must not each do so. */
const PATIENCE_PAUSE_MS = 250;

/**
 * One turn is not enough: an application that yields between two writes comes back in the same turn that looks for it.
 */
const QUIET_TURNS = 2;

/** Runs a job that has left the line. Calls `ended` once with the outcome, before it returns or later. */
export type Run = (ended: (outcome: WriteOutcome) => void) => void;

/** Runs the jobs of a line, one at a time. */
export interface JobRunner {
  /** True while a transaction or a call that holds the connection lasts. */
  readonly isTaken: boolean;
  /** How many writes have run so far. */
  readonly served: number;
  /**
   * Tries to begin. Returns what runs the rest, or undefined if SQLite refused it as busy.
   * @param patiently Waits briefly for SQLite's lock, blocking this thread.
   */
  attempt(job: WriteJob, patiently: boolean): Run | undefined;
  /** The error for a caller whose deadline has passed. */
  timedOut(label: string, waitedMs: number): Error;
}

/**
 * The way of every write: attempt, run, end. A job runs at once if none has to go first; else it waits. The line tries
 * again when SQLite refuses as busy, and takes part in the queue among processes. Only the head of the line tries, so
 * that the jobs behind it cost nothing.
 *
 *     submit ── nobody waits ────────────► attempt ──► run ──► end ──► next
 *       │                                  ▲ │         │
 *       │          ┌─ calm ────────────────┤ busy      └─ a statement was busy ──► head
 *       └──► wait ──► head                 │ ▼
 *                  └─ contended ──► a turn ┴─ pause
 *
 * A turn among the processes is kept while it lasts and work comes, since handing it on costs more than a small
 * transaction. It is left after {@link QUIET_TURNS} turns of the event loop without work.
 */
export class WriteLine {
  readonly #runner: JobRunner;
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
  #onIdle: (() => void) | undefined;

  constructor(runner: JobRunner, admission: Admission) {
    this.#runner = runner;
    this.#admission = admission;
  }

  get length(): number {
    return this.#queue.size;
  }

  /** True if no job has to go first: a new one may try at once. */
  get isFree(): boolean {
    if (this.#queue.size > 0 || this.#runner.isTaken) return false;
    const turn = this.#turn;
    return turn === undefined ? this.#admission.isCalm : !turn.isOver;
  }

  /** True if no writer waits that this process knows of, here or in another process. */
  get nobodyWaits(): boolean {
    return this.#queue.size === 0 && this.#turn === undefined && this.#admission.isCalm;
  }

  waitingFor(key: string): WriteJob | undefined {
    return this.#byKey.get(key);
  }

  jobs(): WriteJob[] {
    return this.#queue.items();
  }

  /** Runs the job at once, or lets it wait. */
  submit(job: WriteJob): void {
    if (this.isFree) {
      const run = this.#runner.attempt(job, false);
      if (run !== undefined) return this.#run(job, run);
      job.refusals = 1;
    }
    this.add(job);
    this.advance();
  }

  /** Call {@link advance} afterwards. */
  add(job: WriteJob): void {
    this.#queue.push(job);
    if (job.coalesce !== undefined) this.#byKey.set(job.coalesce, job);
    this.watchDeadline(job.earliestDeadlineMs);
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

  /** Resolves when no job waits or runs. */
  async drained(): Promise<void> {
    if (this.#isIdle) return;
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
    });
    this.#onIdle = undefined;
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
    if (this.#runner.isTaken) return false;
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
    job.beganMs = performance.now();
    const run = this.#runner.attempt(job, this.#mayBePatient(job, job.beganMs));
    if (run === undefined) return this.#refused(job);
    this.#queue.take();
    this.#forgetKey(job);
    this.#run(job, run);
    if (this.#pause !== undefined) return false;
    if (this.#queue.size === 0 || !isTurnOver(performance.now())) return true;
    this.#pause = 'turn';
    setImmediate(() => this.#resume());
    return false;
  }

  #run(job: WriteJob, run: Run): void {
    job.begin();
    run((outcome) => {
      if (outcome.type !== 'busy') this.#admission.wrote();
      if (outcome.type === 'busy') {
        // At once, before other writes can take the writer.
        job.wait();
        this.#queue.pushFront(job);
        this.watchDeadline(job.earliestDeadlineMs);
        if (this.#turn !== undefined) this.#pauseBefore(job);
      }
      if (this.#queue.size > 0 || this.#turn !== undefined) this.advance();
      if (outcome.type !== 'busy') job.settle(outcome);
      if (this.#isIdle) this.#onIdle?.();
    });
  }

  get #isIdle(): boolean {
    return this.#queue.size === 0 && !this.#runner.isTaken;
  }

  /** The first refusal leads to the queue among processes, the next to a pause. */
  #refused(job: WriteJob): boolean {
    job.refusals += 1;
    if (this.#turn === undefined) return true;
    this.#pauseBefore(job);
    return false;
  }

  #pauseBefore(job: WriteJob): void {
    const leftMs = job.deadlineMs - PATIENT_ATTEMPT_MS - performance.now();
    const delayMs = Math.max(1, Math.min(retryDelayMs(job.refusals), leftMs));
    this.#pause = setTimeout(() => this.#resume(), delayMs);
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
    if (this.#isIdle) this.#onIdle?.();
  }

  #linger(quietTurns = 0): void {
    const { served } = this.#runner;
    this.#isLingering = true;
    setImmediate(() => {
      this.#isLingering = false;
      if (this.#turn === undefined || this.#queue.size > 0 || this.#runner.isTaken) return;
      const quiet = this.#runner.served === served ? quietTurns + 1 : 0;
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
      const isThrough = job.expire(nowMs, (waitedMs) => this.#runner.timedOut(job.label, waitedMs));
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
