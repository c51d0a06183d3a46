import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { toSqlsyncError } from '../../errors.ts';
import { ping } from '../../cli/job/ping.ts';
import type { PingEvent } from '../../cli/job/ping.ts';
import type { ServiceConfig } from '../config/read-config.ts';
import { listJobs } from '../jobs/job-list.ts';
import type { Job } from '../jobs/job-list.ts';
import { copyOnce, proveOnce, runHook } from '../jobs/run-job.ts';
import type { CopyResult } from '../jobs/run-job.ts';
import { judgeState } from '../state/judge.ts';
import type { Status } from '../state/judge.ts';
import type { Failure } from '../state/state.ts';
import { followJob } from './follow-job.ts';
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
  #config: ServiceConfig;
  #jobs: ReadonlyMap<string, Job> = new Map();
  #wakeTimer: NodeJS.Timeout | undefined;
  #scanTimer: NodeJS.Timeout | undefined;
  #isStopped = false;

  constructor(config: ServiceConfig, folder: string, listeners: ServiceListeners) {
    this.#config = config;
    this.#folder = folder;
    this.#listeners = listeners;
    this.states = new TargetStates(folder, config, Date.now(), (why) => listeners.onWarning(why));
  }

  get status(): Status {
    return judgeState(this.states.snapshot, true, Date.now());
  }

  get #proofFolder(): string {
    return join(this.#folder, 'proof');
  }

  /** How many targets there are. */
  get size(): number {
    return this.#jobs.size;
  }

  start(): void {
    // What a service that was killed left there.
    rmSync(this.#proofFolder, { recursive: true, force: true });
    this.#take();
    this.states.save();
    this.#timers.push(
      setInterval(() => this.states.saveIfChanged(), SAVE_INTERVAL_MS),
      setInterval(() => this.#showLife(), ALIVE_INTERVAL_MS),
    );
    this.#scan();
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
    this.states.ended();
  }

  #scan(): void {
    this.#scanTimer = setTimeout(() => {
      if (this.#config.databases.some(({ isPattern }) => isPattern)) this.#take();
      this.#scan();
    }, this.#config.scanMs);
  }

  /** Looks for the databases of the configuration, and ends what is not asked for any more. */
  #take(): void {
    const known = this.#jobs;
    const jobs = listJobs(this.#config, (path) => this.states.isKnown(path));
    this.#jobs = new Map(jobs.map((job) => [job.id, job]));
    for (const { job, kind, controller } of this.#activities) {
      const now = this.#jobs.get(job.id);
      // A copy under way ends as it began; a follower has to begin again to take other options.
      if (now === undefined || (kind === 'follow' && !isSame(job, now))) controller.abort();
    }
    for (const [id, job] of this.#jobs) {
      const before = known.get(id);
      if (before !== undefined && isSame(before, job)) (this.#jobs as Map<string, Job>).set(id, before);
    }
    this.states.take(this.#jobs, this.#config, Date.now());
    this.#wake();
  }

  /** Starts what is due and has room, and sets the time of the next look. */
  #wake(): void {
    if (this.#isStopped) return;
    clearTimeout(this.#wakeTimer);
    const nowMs = Date.now();
    for (const job of this.#jobs.values()) if (job.target.kind === 'follow') this.#ensureFollower(job);
    const open = [...this.#jobs.values()].flatMap((job) => this.#dueWork(job) ?? []);
    open.sort((a, b) => a.atMs - b.atMs);
    for (const { job, kind, atMs } of open) {
      if (atMs > nowMs || this.#underWay >= this.#config.concurrency) break;
      if (!this.#isBusy(job)) this.#begin(job, kind);
    }
    const next = open.find(({ atMs }) => atMs > nowMs)?.atMs ?? Infinity;
    this.#wakeTimer = setTimeout(() => this.#wake(), Math.min(LONGEST_SLEEP_MS, Math.max(0, next - nowMs)));
  }

  /** The next copy or proof of a job, whichever comes first. */
  #dueWork(
    job: Job,
  ): { readonly job: Job; readonly kind: 'copy' | 'proof'; readonly atMs: number } | undefined {
    const state = this.states.get(job.id);
    if (
      state === undefined ||
      [...this.#activities].some((each) => each.job.id === job.id && each.kind !== 'follow')
    )
      return undefined;
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

  /** True while the target has another copy or proof under way, also of another database in the same store. */
  #isBusy({ target }: Job): boolean {
    return [...this.#activities].some(
      ({ job, kind }) => kind !== 'follow' && job.target.place === target.place,
    );
  }

  #begin(job: Job, kind: 'copy' | 'proof'): void {
    this.#add(job, kind, (signal) => (kind === 'copy' ? this.#copy(job, signal) : this.#prove(job, signal)));
  }

  #ensureFollower(job: Job): void {
    if ([...this.#activities].some((each) => each.kind === 'follow' && each.job.id === job.id)) return;
    this.#add(job, 'follow', (signal) =>
      followJob(job, this.states, signal, {
        onFollowing: () => this.#listeners.onFollowing(job),
        onFailed: (failure) => {
          this.#listeners.onFailed(job, failure);
          void this.#ping(job, 'fail', failure.message);
          void this.#hook(job, 'failure', failure);
        },
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
      this.#listeners.onWarning(toSqlsyncError(error).message);
    }
    this.#activities.delete(activity);
    this.#wake();
  }

  async #copy(job: Job, signal: AbortSignal): Promise<void> {
    this.states.started(job.id, Date.now());
    const started = this.#ping(job, 'start', '');
    try {
      const result = await copyOnce(job, signal);
      this.states.succeeded(this.#current(job), result, Date.now());
      this.#listeners.onCopied(job, result);
      await started;
      await this.#ping(job, 'success', '');
    } catch (error) {
      if (signal.aborted) return this.states.cutOff(job.id, Date.now());
      const failure = this.states.failed(this.#current(job), error, Date.now());
      this.#listeners.onFailed(job, failure);
      await started;
      await Promise.all([this.#ping(job, 'fail', failure.message), this.#hook(job, 'failure', failure)]);
    }
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
      const failure = this.states.notProven(job.id, error, Date.now());
      this.#listeners.onFailed(job, failure);
      await Promise.all([this.#ping(job, 'fail', failure.message), this.#hook(job, 'failure', failure)]);
    }
  }

  async #hook(job: Job, name: 'failure', { code, message }: Failure): Promise<void> {
    const more = { SQLSYNC_CODE: code, SQLSYNC_MESSAGE: message };
    await runHook(job, name, more, AbortSignal.timeout(60_000)).catch((error: unknown) =>
      this.#listeners.onWarning(toSqlsyncError(error).message),
    );
  }

  /** Never rejects. */
  async #ping({ target }: Job, event: PingEvent, body: string): Promise<void> {
    if (target.pingUrl === undefined) return;
    const failure = await ping(new URL(target.pingUrl), event, body);
    if (failure !== undefined) this.#listeners.onWarning(failure);
  }

  /** A service that only follows writes its file, too, and reports that it follows. */
  #showLife(): void {
    this.states.save();
    for (const job of this.#jobs.values())
      if (this.states.get(job.id)?.isFollowing === true) void this.#ping(job, 'success', '');
  }
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
