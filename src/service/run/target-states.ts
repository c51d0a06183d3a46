import { createHash } from 'node:crypto';
import { sanitizeLine, toSqlsyncError } from '../../errors.ts';
import { dueAfter } from '../config/schedule.ts';
import type { ServiceConfig } from '../config/read-config.ts';
import { patternsOf } from '../jobs/job-list.ts';
import type { JobList } from '../jobs/job-list.ts';
import type { Job, Memory } from '../jobs/job.ts';
import { JobFailure } from '../jobs/run-job.ts';
import type { CopyResult } from '../jobs/run-job.ts';
import { SIZES_KEPT, loadState, placeId, putAsideBroken, saveState, withoutSecrets } from '../state/state.ts';
import type { EntryState, Failure, ServiceState, TargetState } from '../state/state.ts';

/** The pause before a failed copy is made again, in ms, unless it is due before: the first, doubled up to the last. */
const FIRST_RETRY_MS = 60_000;
const LAST_RETRY_MS = 3_600_000;

/** The least time between two writes of the file: in milliseconds, and by how long the last one took. */
const SAVE_PAUSE_MS = 200;
const SAVE_PAUSE_FACTOR = 20;

/** How far a time may be ahead before the clock must have gone back, in milliseconds. */
const CLOCK_SLACK_MS = 60_000;

/** How long the state of a database that has gone is kept, in milliseconds. */
const GONE_KEPT_MS = 30 * 86_400_000;

/** The least time between two sizes that are kept, in milliseconds. */
const SIZE_INTERVAL_MS = 3_600_000;

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
  #saveNotBefore = -Infinity;
  #hasEnded = false;
  #entries: readonly EntryState[] = [];
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
    if (putAsideBroken(folder))
      onSaveFailure(
        `What the service remembered in ${folder} is broken, and was put aside as state.json.bad`,
      );
    for (const [id, state] of Object.entries(loadState(folder)?.targets ?? {})) this.#states.set(id, state);
  }

  get(id: string): TargetState | undefined {
    return this.#states.get(id);
  }

  get memory(): Memory {
    return this.#states;
  }

  get snapshot(): ServiceState {
    const targets = Object.fromEntries(this.#states);
    return { ...this.#head, aliveAtMs: Date.now(), entries: this.#entries, targets };
  }

  /** Takes the jobs of a configuration: new ones get a state, and those that are gone lose theirs, or are marked. */
  take({ jobs, entries, unsure }: JobList, config: ServiceConfig, nowMs: number): void {
    this.#spreadMs = config.spreadMs;
    this.#entries = entries;
    const patterns = patternsOf(config);
    const asked = new Set(jobs.map(({ id }) => id));
    for (const [id, state] of this.#states) {
      if (asked.has(id)) continue;
      if (state.pattern === undefined || !patterns.has(state.pattern)) this.#states.delete(id);
      else if (!unsure.has(state.pattern)) this.#miss(id, state, nowMs);
    }
    for (const job of jobs) this.#admit(job, nowMs);
    this.#isDirty = true;
  }

  /** A database that has gone keeps what is known of it, and when it is due: it may come back. */
  #miss(id: string, state: TargetState, nowMs: number): void {
    const goneAtMs = state.isGone ? (state.goneAtMs ?? nowMs) : nowMs;
    const isForgotten = state.successAtMs === undefined || nowMs - goneAtMs > GONE_KEPT_MS;
    if (isForgotten) this.#states.delete(id);
    else this.#set(id, { isGone: true, goneAtMs, isFollowing: false, runningSinceMs: undefined });
  }

  #admit(job: Job, nowMs: number): void {
    const { id, origin, target, pattern } = job;
    const known = this.#states.get(id);
    const schedule = target.schedule.text;
    const isSame = known?.schedule === schedule && known.kind === target.kind;
    const { provenAtMs, proofTriedAtMs, proofFailure } = known ?? {};
    const isPast = (ms: number | undefined): boolean => ms !== undefined && ms <= nowMs + CLOCK_SLACK_MS;
    this.#states.set(id, {
      failedInARow: 0,
      sizes: [],
      sinceAtMs: nowMs,
      ...known,
      provenAtMs: isPast(provenAtMs) ? provenAtMs : undefined,
      // Nobody proves any more what is not to be verified.
      proofTriedAtMs: target.verifyMs !== undefined && isPast(proofTriedAtMs) ? proofTriedAtMs : undefined,
      proofFailure: target.verifyMs === undefined ? undefined : proofFailure,
      origin: withoutSecrets(origin),
      target: withoutSecrets(target.place),
      kind: target.kind,
      pattern,
      schedule,
      lateAfterMs: target.lateAfterMs,
      dueAtMs: target.kind === 'follow' ? undefined : this.#dueOf(job, isSame ? known : undefined, nowMs),
      placeId: placeId(target.place),
      runningSinceMs: this.#active.has(id) ? known?.runningSinceMs : undefined,
      isFollowing: this.#active.has(id) && (known?.isFollowing ?? false),
      isGone: false,
      goneAtMs: undefined,
    });
  }

  /**
   * When a job is due: as it was, but never later than after a run that starts now, since the clock may have gone back.
   * A run that was cut off stays due: its moment has passed.
   */
  #dueOf(job: Job, known: TargetState | undefined, nowMs: number): number {
    const latest = this.#dueAfter(job, nowMs);
    const wasCutOff = known?.runningSinceMs !== undefined && !this.#active.has(job.id);
    if (wasCutOff) return Math.min(known.dueAtMs ?? nowMs, nowMs);
    return Math.min(known?.dueAtMs ?? (job.target.schedule.kind === 'interval' ? nowMs : latest), latest);
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
      dueAtMs: job.target.kind === 'follow' ? undefined : this.#dueAfter(job, startedAtMs),
    });
    this.save();
  }

  /** A copy that was made, of which something else went wrong: it is not made again before its next moment. */
  succeededWith(id: string, error: unknown, nowMs: number): Failure {
    const failure = failureOf(error, nowMs);
    this.#set(id, { failure, failedInARow: 1 });
    this.save();
    return failure;
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
      dueAtMs:
        job.target.kind === 'follow'
          ? undefined
          : Math.min(this.#dueAfter(job, startedAtMs), nowMs + retryMs),
    });
    this.save();
    return failure;
  }

  /** A run that this service itself ended: it stays due, and as late as it was. */
  cutOff(id: string): void {
    this.#active.delete(id);
    this.#set(id, { runningSinceMs: undefined });
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
    this.#hasEnded = true;
  }

  saveIfChanged(): void {
    if (this.#isDirty) this.save();
  }

  /** At once, or soon after the last time: a thousand jobs of a minute change a large file. */
  save(): void {
    const leftMs = this.#saveNotBefore - performance.now();
    if (leftMs <= 0) this.#write();
    else this.#saveTimer ??= setTimeout(() => this.#write(), leftMs);
  }

  /** A full disk must not stop the copies. */
  #write(): void {
    clearTimeout(this.#saveTimer);
    this.#saveTimer = undefined;
    // Another service may have the folder by now.
    if (this.#hasEnded) return;
    const startedAt = performance.now();
    try {
      saveState(this.#folder, this.snapshot);
      this.#isDirty = false;
    } catch (error) {
      this.#onSaveFailure(`The state of the service could not be written: ${toSqlsyncError(error).message}`);
    }
    const tookMs = performance.now() - startedAt;
    this.#saveNotBefore = performance.now() + Math.max(SAVE_PAUSE_MS, SAVE_PAUSE_FACTOR * tookMs);
  }

  #success(id: string, snapshotAtMs: number, result: CopyResult): Partial<TargetState> {
    const { bytes, pagesChanged, durationMs, sizeBytes, snapshot } = result;
    const known = this.#states.get(id)?.sizes ?? [];
    const isFresh = known.length > 1 && snapshotAtMs - (known.at(-2)?.[0] ?? 0) < SIZE_INTERVAL_MS;
    const sizes = isFresh ? known.slice(0, -1) : known;
    return {
      successAtMs: snapshotAtMs,
      failure: undefined,
      failedInARow: 0,
      moved: { bytes, pagesChanged, durationMs },
      snapshot,
      sizes:
        known.at(-1)?.[1] === sizeBytes
          ? known
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
