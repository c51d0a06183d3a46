import { createHash } from 'node:crypto';
import { sanitizeLine, toSqlsyncError } from '../../errors.ts';
import { dueAfter } from '../config/schedule.ts';
import type { ServiceConfig } from '../config/read-config.ts';
import type { Job } from '../jobs/job-list.ts';
import { JobFailure } from '../jobs/run-job.ts';
import type { CopyResult } from '../jobs/run-job.ts';
import { SIZES_KEPT, loadState, saveState, withoutSecrets } from '../state/state.ts';
import type { Failure, ServiceState, TargetState } from '../state/state.ts';

/** The pause before a failed copy is made again, in ms, unless it is due before: the first, doubled up to the last. */
const FIRST_RETRY_MS = 60_000;
const LAST_RETRY_MS = 3_600_000;

/** The least time between two writes of the file, in milliseconds. */
const SAVE_PAUSE_MS = 200;

/** A failure as it is kept. */
export function failureOf(error: unknown, atMs: number): Failure {
  if (error instanceof JobFailure) return { atMs, code: error.code, message: withoutSecrets(error.message) };
  const { code, message } = toSqlsyncError(error);
  return { atMs, code, message: withoutSecrets(message) };
}

/** What the service remembers, in memory and in its file. Every change has one of the methods. */
export class TargetStates {
  readonly #folder: string;
  readonly #onSaveFailure: (why: string) => void;
  readonly #states = new Map<string, TargetState>();
  #spreadMs = 0;
  #isDirty = false;
  #savedAt = -Infinity;
  #saveTimer: NodeJS.Timeout | undefined;
  #head: Omit<ServiceState, 'targets' | 'aliveAtMs'>;

  constructor(folder: string, config: ServiceConfig, nowMs: number, onSaveFailure: (why: string) => void) {
    this.#folder = folder;
    this.#onSaveFailure = onSaveFailure;
    const { file } = config;
    this.#head = {
      version: 1,
      config: sanitizeLine(file),
      pid: process.pid,
      startedAtMs: nowMs,
      isRunning: true,
    };
    for (const [id, state] of Object.entries(loadState(folder)?.targets ?? {})) this.#states.set(id, state);
  }

  get(id: string): TargetState | undefined {
    return this.#states.get(id);
  }

  /** True for a database of this path that had a copy. */
  isKnown(path: string): boolean {
    return [...this.#states.values()].some(
      ({ origin, successAtMs }) => origin === path && successAtMs !== undefined,
    );
  }

  get snapshot(): ServiceState {
    return { ...this.#head, aliveAtMs: Date.now(), targets: Object.fromEntries(this.#states) };
  }

  /** Takes the jobs of a configuration: new ones get a state, and those that are gone lose theirs, or are marked. */
  take(jobs: ReadonlyMap<string, Job>, config: ServiceConfig, nowMs: number): void {
    this.#spreadMs = config.spreadMs;
    const patterns = new Set(config.databases.filter((each) => each.isPattern).map(({ origin }) => origin));
    for (const [id, state] of this.#states) {
      if (jobs.has(id)) continue;
      if (state.pattern === undefined || !patterns.has(state.pattern)) this.#states.delete(id);
      else if (!state.isGone)
        this.#set(id, { isGone: true, isFollowing: false, runningSinceMs: undefined, dueAtMs: undefined });
    }
    for (const job of jobs.values()) this.#admit(job, nowMs);
    this.#isDirty = true;
  }

  #admit(job: Job, nowMs: number): void {
    const { id, origin, target, pattern } = job;
    const known = this.#states.get(id);
    const schedule = target.schedule.text;
    const first = target.schedule.kind === 'interval' ? nowMs : this.#dueAfter(job, nowMs);
    const isSame = known?.schedule === schedule && !known.isGone && known.kind === target.kind;
    // A run that was cut off is made again.
    const dueAtMs =
      target.kind === 'follow'
        ? undefined
        : known?.runningSinceMs !== undefined && !this.#active.has(id)
          ? nowMs
          : isSame
            ? (known.dueAtMs ?? first)
            : first;
    this.#states.set(id, {
      failedInARow: 0,
      sizes: [],
      sinceAtMs: nowMs,
      ...known,
      origin: withoutSecrets(origin),
      target: withoutSecrets(target.place),
      kind: target.kind,
      pattern,
      schedule,
      lateAfterMs: target.lateAfterMs,
      dueAtMs,
      runningSinceMs: this.#active.has(id) ? known?.runningSinceMs : undefined,
      isFollowing: this.#active.has(id) && (known?.isFollowing ?? false),
      isGone: false,
    });
  }

  /** Runs and followers of this process. */
  readonly #active = new Set<string>();

  started(id: string, nowMs: number): void {
    this.#active.add(id);
    // Not saved at once: after a crash the run is due all the same.
    this.#set(id, { runningSinceMs: nowMs, startedAtMs: nowMs });
  }

  succeeded(job: Job, result: CopyResult, nowMs: number): void {
    const { id } = job;
    this.#active.delete(id);
    const startedAtMs = this.#states.get(id)?.startedAtMs ?? nowMs;
    this.#set(id, {
      ...this.#success(id, startedAtMs, result),
      runningSinceMs: undefined,
      dueAtMs: this.#dueAfter(job, startedAtMs),
    });
    this.save();
  }

  failed(job: Job, error: unknown, nowMs: number): Failure {
    const { id } = job;
    this.#active.delete(id);
    const failure = failureOf(error, nowMs);
    const { startedAtMs = nowMs, failedInARow = 0 } = this.#states.get(id) ?? {};
    const retryMs = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(failedInARow, 10));
    this.#set(id, {
      failure,
      failedInARow: failedInARow + 1,
      runningSinceMs: undefined,
      dueAtMs: Math.min(this.#dueAfter(job, startedAtMs), nowMs + retryMs),
    });
    this.save();
    return failure;
  }

  /** A run that this service itself ended: it is due again. */
  cutOff(id: string, nowMs: number): void {
    this.#active.delete(id);
    if (this.#states.get(id)?.isGone === true) return;
    this.#set(id, { runningSinceMs: undefined, dueAtMs: nowMs });
  }

  proving(id: string, nowMs: number): void {
    this.#set(id, { proofTriedAtMs: nowMs });
    this.save();
  }

  proven(id: string, nowMs: number): void {
    this.#set(id, { provenAtMs: nowMs, proofFailure: undefined });
    this.save();
  }

  notProven(id: string, error: unknown, nowMs: number): Failure {
    const proofFailure = failureOf(error, nowMs);
    this.#set(id, { proofFailure });
    this.save();
    return proofFailure;
  }

  follows(id: string, snapshotAtMs: number, result: CopyResult): void {
    this.#active.add(id);
    this.#set(id, { ...this.#success(id, snapshotAtMs, result), isFollowing: true });
  }

  /** Returns what it keeps of the error. */
  followsNoMore(id: string, error: unknown, nowMs: number): Failure {
    const failure = failureOf(error, nowMs);
    const failedInARow = (this.#states.get(id)?.failedInARow ?? 0) + 1;
    this.#set(id, { failure, failedInARow, isFollowing: false });
    return failure;
  }

  followerEnded(id: string): void {
    this.#active.delete(id);
    this.#set(id, { isFollowing: false });
  }

  reloadFailed(error: unknown, nowMs: number): void {
    this.#head = { ...this.#head, configFailure: failureOf(error, nowMs) };
    this.save();
  }

  reloaded(): void {
    this.#head = { ...this.#head, configFailure: undefined };
    this.save();
  }

  /** Writes the last state; nothing changes after it. */
  ended(): void {
    clearTimeout(this.#saveTimer);
    this.#head = { ...this.#head, isRunning: false };
    this.#write();
  }

  saveIfChanged(): void {
    if (this.#isDirty) this.save();
  }

  /** At once, or soon after the last time: a thousand jobs of a minute change a large file. */
  save(): void {
    const leftMs = this.#savedAt + SAVE_PAUSE_MS - performance.now();
    if (leftMs <= 0) this.#write();
    else this.#saveTimer ??= setTimeout(() => this.#write(), leftMs);
  }

  /** A full disk must not stop the copies. */
  #write(): void {
    clearTimeout(this.#saveTimer);
    this.#saveTimer = undefined;
    this.#savedAt = performance.now();
    try {
      saveState(this.#folder, this.snapshot);
      this.#isDirty = false;
    } catch (error) {
      this.#onSaveFailure(`The state of the service could not be written: ${toSqlsyncError(error).message}`);
    }
  }

  #success(id: string, snapshotAtMs: number, result: CopyResult): Partial<TargetState> {
    const { bytes, pagesChanged, durationMs, sizeBytes, snapshot } = result;
    const sizes = this.#states.get(id)?.sizes ?? [];
    return {
      successAtMs: snapshotAtMs,
      failure: undefined,
      failedInARow: 0,
      moved: { bytes, pagesChanged, durationMs },
      snapshot,
      sizes:
        sizes.at(-1)?.[1] === sizeBytes
          ? sizes
          : [...sizes, [snapshotAtMs, sizeBytes] as const].slice(-SIZES_KEPT),
    };
  }

  /** Nothing for a target that is not asked for any more. */
  #set(id: string, change: Partial<TargetState>): void {
    const state = this.#states.get(id);
    if (state === undefined) return;
    this.#states.set(id, { ...state, ...change });
    this.#isDirty = true;
  }

  #dueAfter({ id, target }: Job, lastMs: number): number {
    const digest = createHash('sha256').update(id).digest().readUInt32BE();
    const due = dueAfter(target.schedule, lastMs, Math.floor((digest / 2 ** 32) * this.#spreadMs));
    return Number.isFinite(due) ? due : Number.MAX_SAFE_INTEGER;
  }
}
