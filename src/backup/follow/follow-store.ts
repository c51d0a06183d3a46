import { setTimeout as delay } from 'node:timers/promises';
import { nameOf, OUTCOMES } from '../../../protocol/messages.ts';
import type { MessageOf } from '../../../protocol/messages.ts';
import { sanitizeText, SqlsyncError, toSqlsyncError } from '../../errors.ts';
import type { ErrorCode } from '../../errors.ts';
import { pageSize } from '../../pages/page-types.ts';
import type { PageSize } from '../../pages/page-types.ts';
import { runCopy } from '../../sync/agents/replica-agent.ts';
import { DEFAULT_INTERVAL_MS, isLasting, MAX_REFUSED_LOGINS } from '../../sync/follow/follow.ts';
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
import type { BackupOptions } from '../options.ts';
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
  extends
    Omit<FollowOptions, StoreMisfit>,
    Pick<OpenOptions, 'password' | 'acceptNewStore' | 'cache'>,
    Pick<BackupOptions, 'host'> {
  /** The age of a snapshot from which the next change makes another one, in milliseconds; default an hour. */
  readonly snapshotEveryMs?: number | undefined;
  /** How long each single step is kept, in milliseconds; default an hour. Older ones are put together. */
  readonly keepStepsMs?: number | undefined;
}

/** Options of a replica that a store has no use for. */
type StoreMisfit = 'overwrite' | 'followLinks' | 'maxSnapshotMs' | 'maxWalGrowthBytes' | 'fullEveryMs';

export const DEFAULT_SNAPSHOT_EVERY_MS = 3_600_000;
export const DEFAULT_KEEP_STEPS_MS = 3_600_000;

/** As `FollowStoreOptions`, as an application gives them. */
export interface FollowIntoStoreOptions extends Omit<FollowStoreOptions, 'replica'> {
  /** Folder of the store, `[user@]host:path`, `s3:…` or `sftp:…`. */
  readonly store: string;
}

/** How often to look whether the snapshot of the stream is still in the store, in milliseconds. */
const LOOK_FOR_BASE_MS = Number(process.env['SQLSYNC_LOOK_FOR_BASE_MS'] ?? 5 * 60_000);

/** Snapshots without a step between them pause for this many times what the last one took. */
const REST = 3;

/** How long the end waits for the store, in milliseconds. What is not put together then stays as single steps. */
const END_MS = 500;

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
  #refusedLogins = 0;
  /** When the last snapshot began, and when it was in the store, by `performance.now()`. */
  #snapshotBegan = 0;
  #followsSince: number | undefined;
  /** How many streams without a step have ended one after another. */
  #emptyStreams = 0;
  #stepsInStream = 0;
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
        if (error instanceof NeedsSnapshotError) {
          await this.#beforeSnapshot();
          continue;
        }
        const failure = toSqlsyncError(error);
        const { code } = failure;
        const isEnded = signal?.aborted === true && code === 'INTERRUPTED';
        if (isEnded && this.#steps > 0) return this.#summary();
        const isStore = code === 'STORE_UNAVAILABLE' || code === 'STORE_PRUNED';
        const isRefused = code === 'AUTH_FAILED' && this.#refusedLogins >= MAX_REFUSED_LOGINS;
        const ends = isRefused || LASTING.has(code) || (!isStore && isLasting(code, this.#steps > 0));
        if (isEnded || exitOnError || ends) throw failure;
        await this.#pause(failure);
      }
    }
  }

  /** Makes a snapshot, and adds the steps after it until the next one is due. */
  async #followFromSnapshot(): Promise<void> {
    const { replica: store, keepStepsMs = DEFAULT_KEEP_STEPS_MS, signal } = this.#options;
    this.#snapshotBegan = performance.now();
    this.#followsSince = undefined;
    this.#stepsInStream = 0;
    const { password, acceptNewStore, cache } = this.#options;
    const onWarning = (text: string): void => this.#announcements.warn(text);
    const access = await openStoreAtPlace(store, { password, acceptNewStore, cache, onWarning });
    const backup = await makeBackup({ ...this.#options, store }, access);
    this.#tell(stepOfBackup(backup));
    this.#followsSince = performance.now();
    const thinning = this.#thinOut(access, Date.now() - keepStepsMs);
    throwIfAborted(signal);
    const size = pageSize(backup.summary.snapshot.pageSize);
    const writer = new StepWriter(access, backup.summary.snapshot, keepStepsMs, signal);
    const state: StoredState = {
      pageSize: size as PageSize,
      pageCount: backup.summary.snapshot.pageCount,
      hashes: backup.hashes.slice(),
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
      const ended = writer.end().catch((error: unknown) => this.#options.onNote?.(String(error)));
      const all = Promise.all([ended, thinning]);
      await (signal?.aborted === true ? Promise.race([all, delay(END_MS, undefined, { ref: false })]) : all);
      this.#files.push(...writer.files);
    }
  }

  /**
   * Another snapshot without a step since the last one would begin a circle: a change that is too large for a step comes
   * while each is made.
   */
  async #beforeSnapshot(): Promise<void> {
    this.#emptyStreams = this.#stepsInStream > 0 ? 0 : this.#emptyStreams + 1;
    if (this.#emptyStreams < 2) return;
    this.#announcements.warn(
      `${this.#options.origin} changes by more than a step can hold while a snapshot is made: ${this.#options.replica} gets snapshots, with pauses between them, and no states in between`,
    );
    const took = (this.#followsSince ?? performance.now()) - this.#snapshotBegan;
    await this.#rest(Math.max(FIRST_PAUSE_MS, REST * took));
  }

  /** An interruption ends it; the next attempt reports that. */
  async #rest(ms: number): Promise<void> {
    const { signal } = this.#options;
    await delay(ms, undefined, signal && { signal }).catch(() => {});
  }

  /** Deletes old single steps that this run has added. A user that may only add keeps them. */
  async #thinOut(access: StoreAccess, beforeMs: number): Promise<void> {
    const old = coveredSteps(this.#files, beforeMs);
    try {
      const gone = await removeSteps(access, old, this.#options.signal);
      this.#files = this.#files.filter((file) => !gone.has(file));
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
    // A step may cost money, so news of commits makes none come earlier.
    const followed = new FollowedReplica({
      lookEveryMs,
      stepEveryMs: lookEveryMs,
      fullEveryMs: Infinity,
      hash,
    });
    const startedAt = performance.now();
    let state = first;
    let snapshotAt = startedAt;
    const { description } = access.backend;
    const watch = setInterval(
      () => void this.#lookForBase(connection, access, snapshot.id),
      LOOK_FOR_BASE_MS,
    );
    try {
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
        this.#stepsInStream++;
        this.#nextPauseMs = FIRST_PAUSE_MS;
      }
    } finally {
      clearInterval(watch);
    }
  }

  /** The steps of a snapshot that was forgotten go with it, also while the origin is idle. */
  async #lookForBase(connection: Connection, access: StoreAccess, id: string): Promise<void> {
    const found = await lookForSnapshot(access, id).catch(() => undefined); // the next look may succeed
    if (found === undefined || found === 'there') return;
    connection.fail(new NeedsSnapshotError(`snapshot ${id}, which it follows, was forgotten`));
  }

  #tell(
    step: Omit<FollowStep, 'step' | 'created' | 'warnings'> & { readonly warnings?: readonly string[] },
  ): void {
    this.#refusedLogins = 0;
    this.#standing = undefined;
    this.#lastStepAtMs = step.atMs;
    this.#steps++;
    if (step.outcome === 'committed') this.#commits++;
    this.#options.onStep?.({ warnings: [], ...step, step: this.#steps, created: false });
  }

  async #pause(failure: SqlsyncError): Promise<void> {
    if (performance.now() - (this.#followsSince ?? Infinity) >= MAX_PAUSE_MS)
      this.#nextPauseMs = FIRST_PAUSE_MS;
    const pauseMs = Math.round(this.#nextPauseMs * (1 - Math.random() / 2));
    this.#nextPauseMs = Math.min(this.#nextPauseMs * 2, MAX_PAUSE_MS);
    this.#failures++;
    if (failure.code === 'CHANGES_MISSED') this.#missed++;
    if (failure.code === 'AUTH_FAILED') this.#refusedLogins++;
    this.#options.onFailure?.({ failure, pauseMs });
    await this.#rest(pauseMs);
    if (this.#options.signal?.aborted !== true) this.#standing = failure.code;
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
