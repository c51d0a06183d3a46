import { setTimeout as delay } from 'node:timers/promises';
import { nameOf, OUTCOMES } from '../../../protocol/messages.ts';
import type { MessageOf, Outcome } from '../../../protocol/messages.ts';
import { sanitizeText, SqlsyncError, toSqlsyncError } from '../../errors.ts';
import type { ErrorCode } from '../../errors.ts';
import { FollowedOrigin } from '../agents/followed-origin.ts';
import type { OriginResult } from '../agents/origin-agent.ts';
import type { Connection } from '../link/connection.ts';
import { FollowedReplica } from '../quick/followed-replica.ts';
import { pauseAfterHashing } from '../quick/pace.ts';
import { converse } from '../runs/conversation.ts';
import { FIRST_PAUSE_MS, LINK_FAILURES, MAX_PAUSE_MS } from '../runs/retry.ts';
import { farOf, plan, pull, push } from '../runs/sync.ts';
import type { Follow, Run, SyncOptions } from '../runs/sync.ts';

export interface FollowOptions extends Pick<
  SyncOptions,
  Exclude<keyof SyncOptions, keyof OnceOptions | 'onProgress' | 'maxTimeMs'>
> {
  /** How often to look for changes, in milliseconds; default 1,000, at least 10. */
  readonly intervalMs?: number | undefined;
  /** How long a comparison of all pages counts, in milliseconds; default an hour. 0 compares all pages at every step. */
  readonly fullEveryMs?: number | undefined;
  /** True to end at the first failure, instead of going on after a pause. */
  readonly exitOnError?: boolean | undefined;
  /** Called after each step, when the replica shows it. */
  readonly onStep?: ((step: FollowStep) => void) | undefined;
  /** Called for a failure after which it goes on. */
  readonly onFailure?: ((failure: FollowFailure) => void) | undefined;
}

/** The options of a sync that make no sense for one that does not end. */
type OnceOptions = Pick<SyncOptions, 'dryRun' | 'check' | 'full' | 'retries' | 'replace' | 'reflink'>;

/** One snapshot of the origin that the replica shows from now on. */
export interface FollowStep {
  /** From 1. */
  readonly step: number;
  /** `unchanged` if all pages were the same already. */
  readonly outcome: Outcome;
  /** When the other side confirmed it, in milliseconds since 1970. */
  readonly atMs: number;
  /** Bytes. */
  readonly pageSize: number;
  readonly pageCount: number;
  readonly pagesChanged: number;
  readonly pagesTransferred: number;
  readonly pagesDelta: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  /** From the snapshot to the confirmed commit. */
  readonly durationMs: number;
  readonly snapshotHeldMs: number;
  readonly created: boolean;
  readonly warnings: readonly string[];
}

export interface FollowFailure {
  readonly failure: SqlsyncError;
  /** How long it waits before it tries again, in milliseconds. */
  readonly pauseMs: number;
}

export interface FollowSummary {
  readonly origin: string;
  readonly replica: string;
  readonly steps: number;
  /** How many of the steps changed the replica. */
  readonly commits: number;
  /** Failures after which it went on. */
  readonly failures: number;
  /** How many of these were changes that no frame of the WAL had told of (`CHANGES_MISSED`). */
  readonly missed: number;
  /** When the last step was confirmed, in milliseconds since 1970: the replica shows the origin as it was before that. */
  readonly lastStepAtMs: number;
  /** The code of the failure since the last step that a pause did not cure; undefined if the replica followed until the end. */
  readonly failing: ErrorCode | undefined;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly durationMs: number;
  readonly warnings: readonly string[];
}

export const DEFAULT_INTERVAL_MS = 1000;
export const DEFAULT_FOLLOW_FULL_EVERY_MS = 3_600_000;

/** How often a login may be refused before it counts as lasting. */
export const MAX_REFUSED_LOGINS = 3;

/** After these no later attempt can succeed, or may be tried: somebody has to decide. */
const LASTING: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'USAGE',
  'SAME_FILE',
  'SWAPPED',
  'REPLICA_NOT_MARKED',
  'REPLICA_LINK',
  'ORIGIN_CHECKSUM_VFS',
  'ORIGIN_SHRUNK',
  'ORIGIN_TOO_LARGE',
  'NODE_UNSUPPORTED',
  'PROTOCOL_VERSION',
  'RESTRICTED',
  'HOST_KEY_MISMATCH',
  'HOST_KEY_UNKNOWN',
  'REMOTE_EXE_NOT_FOUND',
]);

/** These pass by themselves, so a follower waits for that also before its first step. */
const PASSING: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  ...LINK_FAILURES,
  'BUSY',
  'ORIGIN_HOT_JOURNAL',
  'ORIGIN_REPLACED',
  'ORIGIN_CHANGED',
]);

/** True for a failure that ends a follower, before its first step also one that does not pass by itself. */
export function isLasting(code: ErrorCode, hasStepped: boolean): boolean {
  return LASTING.has(code) || !(hasStepped || PASSING.has(code));
}

/**
 * Makes `replica` an exact copy of `origin`, and again whenever `origin` has changed, until `signal` aborts: then it
 * resolves, if the replica is whole. Each step is one sync on a connection that stays open; between two of them no
 * transaction is open on either side. Throws SqlsyncError for a failure that no later attempt can mend, before the first
 * step for any that does not pass by itself, and with `exitOnError` for every one. The replica then shows the last whole
 * step.
 *
 * Opens the local database in this process, as `runSync`.
 */
export function runFollow(options: FollowOptions): Promise<FollowSummary> {
  return new Following(options).run();
}

class Following {
  readonly #options: FollowOptions;
  readonly #run: Run;
  /** What the near side knows outlives a connection. One of the two is in use. */
  readonly #follow: Follow;
  readonly #startedAt = performance.now();
  #steps = 0;
  #commits = 0;
  #failures = 0;
  #missed = 0;
  #nextPauseMs = FIRST_PAUSE_MS;
  #snapshotAt = 0;
  /** When the first step of this connection was whole, by `performance.now()`. */
  #followsSince: number | undefined;
  #refusedLogins = 0;
  /** The last failure that another attempt followed, until the next step is whole. */
  #standing: ErrorCode | undefined;
  #lastStepAtMs = 0;
  /** The far side of the next connection hashes all of them. */
  #databaseBytes = 0;

  constructor(options: FollowOptions) {
    this.#options = options;
    const { fullEveryMs = DEFAULT_FOLLOW_FULL_EVERY_MS } = options;
    // A replica that is followed is ours, so another page size needs no second consent.
    this.#run = plan({ ...options, fullEveryMs, replace: true });
    const { hash, fullEveryMs: comparesEveryMs } = this.#run.request;
    const lookEveryMs = options.intervalMs ?? DEFAULT_INTERVAL_MS;
    this.#follow = {
      replica: new FollowedReplica({ lookEveryMs, fullEveryMs: comparesEveryMs, hash }),
      origin: new FollowedOrigin(),
    };
  }

  async run(): Promise<FollowSummary> {
    try {
      return await this.#untilEnd();
    } finally {
      await this.#follow.origin.close();
    }
  }

  async #untilEnd(): Promise<FollowSummary> {
    const { signal } = this.#options;
    for (;;) {
      try {
        await this.#connect();
      } catch (error) {
        const failure = toSqlsyncError(error);
        const isEnded = signal?.aborted === true && failure.code === 'INTERRUPTED';
        if (isEnded && this.#steps > 0) return this.#summary();
        if (isEnded || !this.#goesOn(failure)) throw failure;
        await this.#pause(failure);
      }
    }
  }

  /** Follows on one connection, until it fails. */
  async #connect(): Promise<never> {
    const { origin, replica, announcements, traffic } = this.#run;
    const far = farOf(origin, replica);
    const conversation = {
      run: this.#options,
      traffic,
      onWarning: (text: string) => announcements.warn(text),
    };
    const isPull = far === origin;
    return converse(far, isPull ? 'opening' : 'offering', conversation, (connection) =>
      this.#takeSteps(connection, isPull),
    );
  }

  async #takeSteps(connection: Connection, isPull: boolean): Promise<never> {
    for (let number = 1; ; number++) {
      const attempt = {
        number: 1,
        ask: undefined,
        maxTimeMs: undefined,
        hasProgressed: false,
        follow: this.#follow,
        onSnapshot: () => (this.#snapshotAt = performance.now()),
      };
      const before = trafficOf(connection);
      if (number > 1 && !isPull) connection.state = 'offering';
      const result = await (isPull ? pull : push)(connection, this.#run, attempt);
      this.#onStep(result, before, connection);
    }
  }

  #onStep(result: OriginResult, before: Traffic, connection: Connection): void {
    const outcome = nameOf(OUTCOMES, result.done.outcome);
    if (outcome === undefined)
      throw new SqlsyncError('PROTOCOL', `The other side reported outcome ${result.done.outcome}`);
    this.#followsSince ??= performance.now();
    this.#refusedLogins = 0;
    this.#standing = undefined;
    this.#lastStepAtMs = Date.now();
    this.#databaseBytes = result.done.pageSize * result.done.pageCount;
    this.#steps++;
    if (outcome === 'committed') this.#commits++;
    for (const warning of result.done.warnings) this.#run.announcements.warn(warning);
    const now = trafficOf(connection);
    this.#options.onStep?.({
      step: this.#steps,
      outcome,
      atMs: this.#lastStepAtMs,
      ...countsOf(result.done),
      bytesSent: now.bytesSent - before.bytesSent,
      bytesReceived: now.bytesReceived - before.bytesReceived,
      durationMs: Math.round(performance.now() - this.#snapshotAt),
      snapshotHeldMs: result.snapshotHeldMs,
      created: result.done.created,
      warnings: result.done.warnings.map((warning) => sanitizeText(warning)),
    });
  }

  /** Before the first step, a user is there to mend what is wrong. */
  #goesOn({ code }: SqlsyncError): boolean {
    if (this.#options.exitOnError === true || LASTING.has(code)) return false;
    // A server that is asked again and again locks the user or this host out.
    if (code === 'AUTH_FAILED' && this.#refusedLogins >= MAX_REFUSED_LOGINS) return false;
    return this.#steps > 0 || PASSING.has(code);
  }

  async #pause(failure: SqlsyncError): Promise<void> {
    const { replica, origin } = this.#follow;
    for (const side of [replica, origin]) side.giveUp();
    // A connection that breaks after each first step costs a login and all hashes each time.
    if (performance.now() - (this.#followsSince ?? Infinity) >= MAX_PAUSE_MS)
      this.#nextPauseMs = FIRST_PAUSE_MS;
    this.#followsSince = undefined;
    const backOffMs = this.#nextPauseMs * (1 - Math.random() / 2);
    const farPauseMs = pauseAfterHashing(this.#databaseBytes);
    const pauseMs = Math.round(Math.max(backOffMs, farPauseMs, replica.untilDueMs, origin.untilDueMs));
    this.#nextPauseMs = Math.min(this.#nextPauseMs * 2, MAX_PAUSE_MS);
    this.#failures++;
    if (failure.code === 'CHANGES_MISSED') this.#missed++;
    if (failure.code === 'AUTH_FAILED') this.#refusedLogins++;
    this.#options.onFailure?.({ failure, pauseMs });
    const { signal } = this.#options;
    // The next attempt reports an interruption.
    await delay(pauseMs, undefined, signal && { signal }).catch(() => {});
    // systemd and a terminal end all processes at once, so that the loss of the other side may come first.
    if (signal?.aborted !== true) this.#standing = failure.code;
  }

  #summary(): FollowSummary {
    const { announcements, traffic } = this.#run;
    return {
      origin: this.#options.origin,
      replica: this.#options.replica,
      steps: this.#steps,
      commits: this.#commits,
      failures: this.#failures,
      missed: this.#missed,
      lastStepAtMs: this.#lastStepAtMs,
      failing: this.#standing,
      ...traffic,
      durationMs: Math.round(performance.now() - this.#startedAt),
      warnings: announcements.warnings,
    };
  }
}

type Traffic = Pick<FollowStep, 'bytesSent' | 'bytesReceived'>;

function trafficOf({ bytesSent, bytesReceived }: Connection): Traffic {
  return { bytesSent, bytesReceived };
}

type Counts = 'pageSize' | 'pageCount' | 'pagesChanged' | 'pagesTransferred' | 'pagesDelta';

function countsOf(done: MessageOf<'done'>): Pick<FollowStep, Counts> {
  const { pageSize, pageCount, pagesChanged, pagesTransferred, pagesDelta } = done;
  return { pageSize, pageCount, pagesChanged, pagesTransferred, pagesDelta };
}
