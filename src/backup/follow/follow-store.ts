import { setTimeout as delay } from 'node:timers/promises';
import { nameOf, OUTCOMES } from '../../../protocol/messages.ts';
import type { MessageOf } from '../../../protocol/messages.ts';
import { sanitizeText, SqlsyncError, toSqlsyncError } from '../../errors.ts';
import type { ErrorCode } from '../../errors.ts';
import { pageSize } from '../../pages/page-types.ts';
import type { PageSize } from '../../pages/page-types.ts';
import { runCopy } from '../../sync/agents/replica-agent.ts';
import { DEFAULT_INTERVAL_MS, isLasting } from '../../sync/follow/follow.ts';
import type { FollowOptions, FollowStep, FollowSummary } from '../../sync/follow/follow.ts';
import type { Connection } from '../../sync/link/connection.ts';
import { FollowedReplica } from '../../sync/quick/followed-replica.ts';
import { Announcements } from '../../sync/request/announcements.ts';
import { copyRequest } from '../../sync/request/copy-request.ts';
import { converse } from '../../sync/runs/conversation.ts';
import { FIRST_PAUSE_MS, MAX_PAUSE_MS } from '../../sync/runs/retry.ts';
import { parseLocation } from '../../transport/location.ts';
import { makeBackup } from '../copy/backup.ts';
import type { MadeBackup } from '../copy/backup.ts';
import type { OpenOptions } from '../files/access.ts';
import { lookForSnapshot } from '../files/recall.ts';
import type { StoreAccess } from '../files/store-files.ts';
import { openStoreAtPlace, refusePast } from '../open-store.ts';
import { coveredSteps } from '../steps/step-name.ts';
import { removeSteps } from '../steps/remove-steps.ts';
import { StepWriter } from '../steps/step-writer.ts';
import type { StepFile } from '../steps/step-name.ts';
import { throwIfAborted } from '../store-error.ts';
import { NeedsSnapshotError, StepDestination } from './step-destination.ts';
import type { StoredState } from './step-destination.ts';

/** As `FollowOptions`, where `replica` is the place of a store. */
export interface FollowStoreOptions
  extends FollowOptions, Pick<OpenOptions, 'password' | 'acceptNewStore' | 'cache'> {
  /** The age of a snapshot from which the next change makes another one, in milliseconds; default an hour. */
  readonly snapshotEveryMs?: number | undefined;
  /** How long each single step is kept, in milliseconds; default an hour. Older ones are put together. */
  readonly keepStepsMs?: number | undefined;
}

export const DEFAULT_SNAPSHOT_EVERY_MS = 3_600_000;
export const DEFAULT_KEEP_STEPS_MS = 3_600_000;

/** How often to look whether the snapshot of the stream is still in the store, in milliseconds. */
const LOOK_FOR_BASE_MS = 5 * 60_000;

/** Failures of a store that no later attempt mends. */
const LASTING: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'STORE_NOT_FOUND',
  'STORE_VERSION',
  'STORE_PASSWORD',
  'STORE_CHANGED',
]);

/**
 * Adds each state of `origin` to a store, until `signal` aborts: first a snapshot, then a step for each change. Resolves
 * when the last step is durable. Failures are as with `runFollow`.
 */
export function runFollowStore(options: FollowStoreOptions): Promise<FollowSummary> {
  refusePast(options.replica);
  return new StoreFollowing(options).run();
}

class StoreFollowing {
  readonly #options: FollowStoreOptions;
  readonly #announcements: Announcements;
  readonly #traffic = { bytesSent: 0, bytesReceived: 0 };
  readonly #startedAt = performance.now();
  #steps = 0;
  #commits = 0;
  #failures = 0;
  #missed = 0;
  #nextPauseMs = FIRST_PAUSE_MS;
  #standing: ErrorCode | undefined;
  #lastStepAtMs = 0;
  /** What is left in the store of the streams that this run has ended. */
  #files: StepFile[] = [];

  constructor(options: FollowStoreOptions) {
    this.#options = options;
    this.#announcements = new Announcements(options);
  }

  async run(): Promise<FollowSummary> {
    const { signal, exitOnError = false } = this.#options;
    for (;;) {
      try {
        await this.#followFromSnapshot();
      } catch (error) {
        if (error instanceof NeedsSnapshotError) continue;
        const failure = toSqlsyncError(error);
        const { code } = failure;
        const isEnded = signal?.aborted === true && code === 'INTERRUPTED';
        if (isEnded && this.#steps > 0) return this.#summary();
        const isStore = code === 'STORE_UNAVAILABLE' || code === 'STORE_PRUNED';
        const ends = LASTING.has(code) || (!isStore && isLasting(code, this.#steps > 0));
        if (isEnded || exitOnError || ends) throw failure;
        await this.#pause(failure);
      }
    }
  }

  /** Makes a snapshot, and adds the steps after it until the next one is due. */
  async #followFromSnapshot(): Promise<void> {
    const { replica: store, keepStepsMs = DEFAULT_KEEP_STEPS_MS, signal } = this.#options;
    const { password, acceptNewStore, cache } = this.#options;
    const onWarning = (text: string): void => this.#announcements.warn(text);
    const access = await openStoreAtPlace(store, { password, acceptNewStore, cache, onWarning });
    const backup = await makeBackup({ ...this.#options, store }, access);
    this.#tell(stepOfBackup(backup));
    await this.#thinOut(access, Date.now() - keepStepsMs);
    throwIfAborted(signal);
    const size = pageSize(backup.summary.snapshot.pageSize);
    const writer = new StepWriter(access, backup.summary.snapshot, keepStepsMs);
    const state: StoredState = {
      pageSize: size as PageSize,
      pageCount: backup.summary.snapshot.pageCount,
      hashes: backup.hashes,
      key: backup.key,
      firstPage: backup.firstPage,
    };
    const run = { run: this.#options, traffic: this.#traffic, onWarning };
    try {
      await converse(parseLocation(this.#options.origin), 'opening', run, (connection) =>
        this.#addSteps(connection, access, writer, state, backup),
      );
    } finally {
      // What cannot be put together stays as single steps.
      await writer.endGroup().catch((error: unknown) => this.#options.onNote?.(String(error)));
      this.#files.push(...writer.files);
    }
  }

  /** Deletes old single steps that this run has added. A user that may only add keeps them. */
  async #thinOut(access: StoreAccess, beforeMs: number): Promise<void> {
    const old = coveredSteps(this.#files, beforeMs);
    try {
      await removeSteps(access, old);
      this.#files = this.#files.filter((file) => !old.includes(file));
    } catch (error) {
      const { message } = toSqlsyncError(error);
      this.#announcements.warn(`${old.length} old single steps stay in the store: ${message}`, 'advice');
    }
  }

  async #addSteps(
    connection: Connection,
    access: StoreAccess,
    writer: StepWriter,
    first: StoredState,
    { summary: { snapshot } }: MadeBackup,
  ): Promise<void> {
    const { intervalMs: lookEveryMs = DEFAULT_INTERVAL_MS, snapshotEveryMs = DEFAULT_SNAPSHOT_EVERY_MS } =
      this.#options;
    const request = copyRequest({ ...this.#options, compression: this.#options.compress });
    // Only the origin's side looks for changes: nobody else writes a stream.
    const { hash } = request;
    // A step may cost money, so commits that are told make none earlier.
    const followed = new FollowedReplica({
      lookEveryMs,
      stepEveryMs: lookEveryMs,
      fullEveryMs: Infinity,
      hash,
    });
    const startedAt = performance.now();
    let lookedAt = startedAt;
    let state = first;
    let snapshotAt = startedAt;
    const { description } = access.backend;
    while (performance.now() - startedAt < snapshotEveryMs && !writer.isFull) {
      const before = { sent: connection.bytesSent, received: connection.bytesReceived };
      const { origin, signal } = this.#options;
      const options = {
        ...request,
        originPath: parseLocation(origin).path,
        signal,
        followed,
        onSnapshot: () => (snapshotAt = performance.now()),
      };
      const { done, snapshotHeldMs } = await runCopy(connection, options, (attempt) => {
        // Without the old pages, nothing can be compared again.
        if (attempt > 1) throw new NeedsSnapshotError('what is known of the state before is wrong');
        return new StepDestination(description, state, writer, (stored) => (state = stored));
      });
      const sent = connection.bytesSent - before.sent;
      const received = connection.bytesReceived - before.received;
      this.#tell({
        ...countsOf(done),
        ...timesOf(snapshotAt),
        bytesSent: sent,
        bytesReceived: received,
        snapshotHeldMs,
      });
      if (performance.now() - lookedAt < LOOK_FOR_BASE_MS) continue;
      lookedAt = performance.now();
      if ((await lookForSnapshot(access, snapshot.id)) === 'there') continue;
      throw new NeedsSnapshotError(`snapshot ${snapshot.id}, which it follows, was forgotten`);
    }
  }

  #tell(
    step: Omit<FollowStep, 'step' | 'created' | 'warnings'> & { readonly warnings?: readonly string[] },
  ): void {
    this.#nextPauseMs = FIRST_PAUSE_MS;
    this.#standing = undefined;
    this.#lastStepAtMs = step.atMs;
    this.#steps++;
    if (step.outcome === 'committed') this.#commits++;
    this.#options.onStep?.({ warnings: [], ...step, step: this.#steps, created: false });
  }

  async #pause(failure: SqlsyncError): Promise<void> {
    const pauseMs = Math.round(this.#nextPauseMs * (1 - Math.random() / 2));
    this.#nextPauseMs = Math.min(this.#nextPauseMs * 2, MAX_PAUSE_MS);
    this.#failures++;
    if (failure.code === 'CHANGES_MISSED') this.#missed++;
    this.#options.onFailure?.({ failure, pauseMs });
    const { signal } = this.#options;
    // The next attempt reports an interruption.
    await delay(pauseMs, undefined, signal && { signal }).catch(() => {});
    if (signal?.aborted !== true) this.#standing = failure.code;
  }

  #summary(): FollowSummary {
    return {
      origin: this.#options.origin,
      replica: this.#options.replica,
      steps: this.#steps,
      commits: this.#commits,
      failures: this.#failures,
      missed: this.#missed,
      lastStepAtMs: this.#lastStepAtMs,
      failing: this.#standing,
      ...this.#traffic,
      durationMs: Math.round(performance.now() - this.#startedAt),
      warnings: this.#announcements.warnings,
    };
  }
}

type Figures = Omit<FollowStep, 'step' | 'created'>;

function timesOf(snapshotAt: number): Pick<Figures, 'atMs' | 'durationMs'> {
  return { atMs: Date.now(), durationMs: Math.round(performance.now() - snapshotAt) };
}

function countsOf(
  done: MessageOf<'done'>,
): Omit<Figures, 'atMs' | 'durationMs' | 'bytesSent' | 'bytesReceived' | 'snapshotHeldMs'> {
  const outcome = nameOf(OUTCOMES, done.outcome) ?? 'unchanged';
  const { pageSize: bytes, pageCount, pagesChanged, pagesTransferred, pagesDelta } = done;
  const warnings = done.warnings.map((warning) => sanitizeText(warning));
  return { outcome, pageSize: bytes, pageCount, pagesChanged, pagesTransferred, pagesDelta, warnings };
}

/** The snapshot that a stream begins with counts as a step. */
function stepOfBackup({ summary }: MadeBackup): Figures {
  const { snapshot, pagesTransferred, pagesDelta, bytesSent, bytesReceived, durationMs, snapshotHeldMs } =
    summary;
  const { pageSize: bytes, pageCount, statistics } = snapshot;
  return {
    outcome: 'committed',
    atMs: Date.now(),
    pageSize: bytes,
    pageCount,
    pagesChanged: statistics.pagesChanged,
    pagesTransferred,
    pagesDelta,
    bytesSent,
    bytesReceived,
    durationMs,
    snapshotHeldMs,
    warnings: [],
  };
}
