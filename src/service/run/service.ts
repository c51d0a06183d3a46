import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { toSqlsyncError } from '../../errors.ts';
import type { ServiceConfig } from '../config/read-config.ts';
import { JobLister } from '../jobs/job-list.ts';
import type { Job } from '../jobs/job.ts';
import { copyOnce, proveOnce, runHook } from '../jobs/run-job.ts';
import type { CopyResult } from '../jobs/run-job.ts';
import { judgeState } from '../state/judge.ts';
import type { Status } from '../state/judge.ts';
import { withoutSecrets } from '../state/state.ts';
import type { Failure } from '../state/state.ts';
import { followJob } from './follow-job.ts';
import { FollowerStarts } from './follower-starts.ts';
import { Reports } from './reports.ts';
import { TargetStates } from './target-states.ts';

/** What the log of the service has. */
export interface ServiceListeners {
  onCopied(job: Job, result: CopyResult): void;
  onFailed(job: Job, failure: Failure): void;
  onProven(job: Job): void;
  /** A replica that follows shows its origin, for the first time or again after a failure. */
  onFollowing(job: Job): void;
  onWarning(text: string): void;
}

/** How long the service sleeps at most: a suspended machine or a new time of day shows after that. */
const LONGEST_SLEEP_MS = 30_000;

/** How often the file gets what followers did, and a sign of life, in milliseconds. */
const SAVE_INTERVAL_MS = 5000;
const ALIVE_INTERVAL_MS = 60_000;

/** The least time between two attempts to prove a copy. */
const PROOF_RETRY_MS = 3_600_000;

/** How far the clock may go back, by corrections, until the times that are due are looked at again. */
const CLOCK_SLACK_MS = 1000;

interface Activity {
  readonly job: Job;
  readonly kind: 'copy' | 'proof' | 'follow';
  readonly controller: AbortController;
  readonly done: Promise<void>;
}

/**
 * Runs the jobs of a configuration until it is stopped.
 *
 *     config ── listJobs ──► jobs ── due? ──► activities: copies and proofs (bounded), followers
 *        ▲  every scan                            │
 *        └── reload                               └──► states ──► file, status
 *
 * A target has at most one copy or proof under way.
 */
export class Service {
  readonly states: TargetStates;
  readonly #folder: string;
  readonly #listeners: ServiceListeners;
  readonly #activities = new Set<Activity>();
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #lister = new JobLister();
  readonly #reports: Reports;
  readonly #starts = new FollowerStarts();
  #config: ServiceConfig;
  #jobs: ReadonlyMap<string, Job> = new Map();
  /** Jobs with a database that the last look did not find. */
  #missing: ReadonlySet<string> = new Set();
  #clockOffsetMs: number = clockOffset();
  #wakeTimer: NodeJS.Timeout | undefined;
  #scanTimer: NodeJS.Timeout | undefined;
  #isStopped = false;

  constructor(config: ServiceConfig, folder: string, listeners: ServiceListeners) {
    this.#config = config;
    this.#folder = folder;
    this.#listeners = listeners;
    this.states = new TargetStates(folder, config, Date.now(), (why) => listeners.onWarning(why));
    this.#reports = new Reports((why) => listeners.onWarning(why));
  }

  get status(): Status {
    return judgeState(this.states.snapshot, 'runs', Date.now());
  }

  /** The target with this id. */
  job(id: string): Job | undefined {
    return this.#jobs.get(id);
  }

  get #proofFolder(): string {
    return join(this.#folder, 'proof');
  }

  /** How many targets there are. */
  get size(): number {
    return this.#jobs.size;
  }

  start(): void {
    this.#clearProofs();
    this.#take();
    this.states.save();
    this.#timers.push(
      setInterval(() => this.states.saveIfChanged(), SAVE_INTERVAL_MS),
      setInterval(() => this.#guard(() => this.#showLife()), ALIVE_INTERVAL_MS),
    );
    this.#scan();
  }

  /** Removes what a service that was killed left; a process of its may still be about to end. */
  #clearProofs(): void {
    this.#guard(() =>
      rmSync(this.#proofFolder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }),
    );
  }

  /** A fault in one look must not end the copies that are under way. */
  #guard(look: () => void): void {
    try {
      look();
    } catch (error) {
      this.#listeners.onWarning(withoutSecrets(toSqlsyncError(error).message));
    }
  }

  /** Goes on with another configuration. What is the same in both is not disturbed. */
  reload(config: ServiceConfig): void {
    this.#config = config;
    this.#take();
    this.states.reloaded();
  }

  /** Ends all that is under way; resolves when it has ended. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const timer of [...this.#timers, this.#wakeTimer, this.#scanTimer]) clearTimeout(timer);
    for (const { controller } of this.#activities) controller.abort();
    await Promise.all([...this.#activities].map(({ done }) => done));
    await this.#reports.end();
    this.states.ended();
  }

  #scan(): void {
    this.#scanTimer = setTimeout(() => {
      if (this.#config.databases.some(({ isPattern }) => isPattern)) this.#guard(() => this.#take());
      this.#scan();
    }, this.#config.scanMs);
  }

  /** Looks for the databases of the configuration, and ends what is not asked for any more. */
  #take(): void {
    const known = this.#jobs;
    const list = this.#lister.list(this.#config, this.states.memory);
    this.#jobs = new Map(list.jobs.map((job) => [job.id, job]));
    this.#missing = list.missing;
    for (const { job, kind, controller } of this.#activities) {
      const now = this.#jobs.get(job.id);
      // A copy under way ends as it began; a follower has to begin again to take other options.
      if (now === undefined || (kind === 'follow' && !isSame(job, now))) controller.abort();
    }
    for (const [id, job] of this.#jobs) {
      const before = known.get(id);
      if (before !== undefined && isSame(before, job)) (this.#jobs as Map<string, Job>).set(id, before);
    }
    this.states.take(list, this.#config, Date.now());
    this.#wake();
  }

  /** Starts what is due and has room, and sets the time of the next look. */
  #wake(): void {
    if (this.#isStopped) return;
    clearTimeout(this.#wakeTimer);
    const nowMs = Date.now();
    if (this.#hasClockGoneBack()) return this.#take();
    for (const job of this.#jobs.values()) if (job.target.kind === 'follow') this.#ensureFollower(job);
    const open = [...this.#jobs.values()].flatMap((job) => this.#dueWork(job) ?? []);
    open.sort((a, b) => a.atMs - b.atMs);
    for (const { job, kind, atMs } of open) {
      if (atMs > nowMs || this.#underWay >= this.#config.concurrency) break;
      if (!this.#isBusy(job)) this.#begin(job, kind);
    }
    const next = open.find(({ atMs }) => atMs > nowMs)?.atMs ?? Infinity;
    const sleepMs = Math.min(LONGEST_SLEEP_MS, Math.max(0, next - nowMs));
    this.#wakeTimer = setTimeout(() => this.#guard(() => this.#wake()), sleepMs);
  }

  /** What was due by a clock that was ahead is not due for as long as it was ahead. */
  #hasClockGoneBack(): boolean {
    const before = this.#clockOffsetMs;
    this.#clockOffsetMs = clockOffset();
    return this.#clockOffsetMs < before - CLOCK_SLACK_MS;
  }

  /** The next copy or proof of a job, whichever comes first. */
  #dueWork(
    job: Job,
  ): { readonly job: Job; readonly kind: 'copy' | 'proof'; readonly atMs: number } | undefined {
    const state = this.states.get(job.id);
    if (state === undefined || this.#missing.has(job.id) || this.#isActive(job)) return undefined;
    const copyAt = state.dueAtMs ?? Infinity;
    const { verifyMs } = job.target;
    const proofAt =
      verifyMs === undefined || state.successAtMs === undefined || job.error !== undefined
        ? Infinity
        : Math.max(nextProof(state.provenAtMs, state.successAtMs, verifyMs), retryOf(state, verifyMs));
    if (copyAt === Infinity && proofAt === Infinity) return undefined;
    return copyAt <= proofAt ? { job, kind: 'copy', atMs: copyAt } : { job, kind: 'proof', atMs: proofAt };
  }

  get #underWay(): number {
    return [...this.#activities].filter(({ kind }) => kind !== 'follow').length;
  }

  /**
   * What has to end first: all but the follower of a target that is proven. A reload may have made a follower of a
   * schedule, or the reverse.
   */
  #inTheWayOf({ target }: Job): Activity[] {
    return [...this.#activities].filter(({ kind }) => kind !== 'follow' || target.kind !== 'follow');
  }

  #isActive(job: Job): boolean {
    return this.#inTheWayOf(job).some((each) => each.job.id === job.id);
  }

  /** True while the target has another copy or proof under way, also of another database in the same store. */
  #isBusy(job: Job): boolean {
    return this.#inTheWayOf(job).some(
      (each) => each.job.error === undefined && each.job.target.place === job.target.place,
    );
  }

  #begin(job: Job, kind: 'copy' | 'proof'): void {
    this.#add(job, kind, (signal) => (kind === 'copy' ? this.#copy(job, signal) : this.#prove(job, signal)));
  }

  #ensureFollower(job: Job): void {
    const isActive = [...this.#activities].some((each) => each.job.id === job.id);
    if (isActive || this.#missing.has(job.id) || this.#isBusy(job)) return;
    this.#add(job, 'follow', (signal) =>
      followJob(job, this.states, this.#starts, signal, {
        onFollowing: () => this.#listeners.onFollowing(job),
        onFailed: (failure) => this.#tellFailure(job, failure),
        onWarning: (text) => this.#listeners.onWarning(text),
      }),
    );
  }

  /** `work` never rejects, but for a bug. */
  #add(job: Job, kind: Activity['kind'], work: (signal: AbortSignal) => Promise<void>): void {
    const controller = new AbortController();
    // Begins in a later turn, when the activity is known.
    const done = delay(0).then(() => this.#runToEnd(activity, work));
    const activity: Activity = { job, kind, controller, done };
    this.#activities.add(activity);
  }

  async #runToEnd(activity: Activity, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    try {
      await work(activity.controller.signal);
    } catch (error) {
      this.#listeners.onWarning(withoutSecrets(toSqlsyncError(error).message));
    }
    this.#activities.delete(activity);
    this.#guard(() => this.#wake());
  }

  async #copy(job: Job, signal: AbortSignal): Promise<void> {
    this.states.started(job.id, Date.now());
    this.#reports.ping(job, 'start', '');
    try {
      const { result, finding } = await copyOnce(job, signal);
      this.states.succeeded(this.#current(job), result, Date.now());
      this.#listeners.onCopied(job, result);
      const failure =
        finding ?? (await runHook(job, 'after', {}, signal).then(undefined, (error: unknown) => error));
      if (failure === undefined) this.#reports.ping(job, 'success', '');
      else if (!signal.aborted)
        this.#tellFailure(job, this.states.succeededWith(job.id, failure, Date.now()));
    } catch (error) {
      if (signal.aborted) return this.states.cutOff(job.id);
      if (this.#hasVanished(job)) {
        this.states.cutOff(job.id);
        return this.#take();
      }
      this.#tellFailure(job, this.states.failed(this.#current(job), error, Date.now()));
    }
  }

  /** True for a database of a pattern that is not there: whether that is for long shows in the next looks. */
  #hasVanished({ origin, pattern, error }: Job): boolean {
    return pattern !== undefined && error === undefined && !existsSync(origin);
  }

  #tellFailure(job: Job, failure: Failure): void {
    this.#listeners.onFailed(job, failure);
    this.#reports.failure(job, failure);
  }

  /** As it is asked for now: a reload may have given it another schedule meanwhile. */
  #current(job: Job): Job {
    return this.#jobs.get(job.id) ?? job;
  }

  async #prove(job: Job, signal: AbortSignal): Promise<void> {
    this.states.proving(job.id, Date.now());
    try {
      await proveOnce(job, this.states.get(job.id)?.snapshot, this.#proofFolder, signal);
      this.states.proven(job.id, Date.now());
      this.#listeners.onProven(job);
    } catch (error) {
      if (signal.aborted) return;
      this.#tellFailure(job, this.states.notProven(job.id, error, Date.now()));
    }
  }

  /** A service that only follows writes its file, too, and reports that it follows. */
  #showLife(): void {
    this.states.save();
    for (const job of this.#jobs.values())
      if (this.states.get(job.id)?.isFollowing === true) this.#reports.ping(job, 'success', '');
  }
}

/** The clock of this host against one that only goes on. */
function clockOffset(): number {
  return Date.now() - performance.now();
}

function isSame(a: Job, b: Job): boolean {
  return a.error?.message === b.error?.message && JSON.stringify(a.target) === JSON.stringify(b.target);
}

/** A copy that was never proven is so next, and not before older work. */
function nextProof(provenAtMs: number | undefined, successAtMs: number, verifyMs: number): number {
  return provenAtMs === undefined ? successAtMs : provenAtMs + verifyMs;
}

/** When a proof that failed, or was cut off, may be tried again. */
function retryOf(
  { proofTriedAtMs, provenAtMs }: { proofTriedAtMs?: number | undefined; provenAtMs?: number | undefined },
  verifyMs: number,
): number {
  if (proofTriedAtMs === undefined || (provenAtMs ?? 0) >= proofTriedAtMs) return -Infinity;
  return proofTriedAtMs + Math.min(verifyMs, PROOF_RETRY_MS);
}
