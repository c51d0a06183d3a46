import { resolve } from 'node:path';
import { toSqlsyncError } from '../../errors.ts';
import type { ErrorCode, SqlsyncError } from '../../errors.ts';
import { makeFolders, placeOfTrial } from '../../files/make-folders.ts';
import { parseLocation } from '../../transport/location.ts';
import type { Location } from '../../transport/location.ts';
import type { Connection } from '../link/connection.ts';
import { converse } from './conversation.ts';
import type { Traffic } from './conversation.ts';
import { withRetries } from './retry.ts';
import type { Retry } from './retry.ts';
import { farOf, plan, pull, push, remaining, runSync, summarize } from './sync.ts';
import type { Run, SyncOptions, SyncSummary } from './sync.ts';

/** A database and its copy: paths or [user@]host:path. All remote ones of a list are on one host. */
export interface Pair {
  readonly origin: string;
  readonly replica: string;
}

export type ManyOptions = Omit<SyncOptions, 'origin' | 'replica' | 'reflink' | 'onProgress'>;

export interface ManyListeners {
  onDone(pair: Pair, summary: SyncSummary): void;
  /** This database was not copied; the others are. */
  onFailed(pair: Pair, failure: SqlsyncError): void;
  onRetry(retry: Retry): void;
}

/** Failures of the host or of this run. All others are of one database. */
const OF_ALL: ReadonlySet<ErrorCode> = new Set([
  'INTERRUPTED',
  'CONNECT_FAILED',
  'CONNECTION_LOST',
  'TIMEOUT',
  'HOST_KEY_UNKNOWN',
  'HOST_KEY_MISMATCH',
  'AUTH_FAILED',
  'REMOTE_EXE_NOT_FOUND',
  'PROTOCOL',
  'PROTOCOL_VERSION',
  'BINDING_MISSING',
  'NODE_UNSUPPORTED',
  'TEMP_UNAVAILABLE',
]);

/** Something to do on a connection to another host. */
export interface Task {
  readonly state: 'listing' | 'recognizing' | 'opening' | 'offering';
  run(connection: Connection): Promise<void>;
  /** Takes a failure that is not of all tasks; throws otherwise. */
  fail(failure: SqlsyncError): void;
}

/**
 * Does tasks one after another on one connection. A task that fails ends the conversation, as the protocol has it; the
 * next one begins another.
 */
export class SharedLink {
  readonly #far: Location;
  readonly #options: ManyOptions;
  readonly #listeners: Pick<ManyListeners, 'onRetry'>;
  readonly #startedAt: number = performance.now();
  readonly traffic: Traffic = { bytesSent: 0, bytesReceived: 0 };

  constructor(far: Location, options: ManyOptions, listeners: Pick<ManyListeners, 'onRetry'>) {
    this.#far = far;
    this.#options = options;
    this.#listeners = listeners;
  }

  /** `tasks` may grow meanwhile; each is taken out of it when it has ended. Throws SqlsyncError. */
  async run(tasks: Task[]): Promise<void> {
    let done = 0;
    let doneBefore = 0;
    const attempt = async (): Promise<void> => {
      doneBefore = done;
      while (tasks[0] !== undefined) {
        await this.#talk(tasks, () => done++);
      }
    };
    await withRetries(attempt, {
      retries: this.#options.retries ?? 0,
      hasProgressed: () => done > doneBefore,
      onRetry: (retry) => this.#listeners.onRetry(retry),
      signal: this.#options.signal,
    });
  }

  /** One connection, until a task fails or none is left. */
  async #talk(tasks: Task[], onDone: () => void): Promise<void> {
    let current: Task | undefined;
    const [first] = tasks;
    if (first === undefined) return;
    const conversation = {
      run: this.#options,
      maxTimeMs: remaining(this.#options.maxTimeMs, this.#startedAt),
      traffic: this.traffic,
      onWarning: (text: string) => this.#options.onWarning?.(text, 'news'),
    };
    try {
      await converse(this.#far, first.state, conversation, async (connection) => {
        for (let task = tasks[0]; task !== undefined; task = tasks[0]) {
          if (task !== first) connection.expect(task.state);
          current = task;
          await task.run(connection);
          tasks.shift();
          onDone();
        }
      });
    } catch (error) {
      const failure = toSqlsyncError(error);
      if (current === undefined || OF_ALL.has(failure.code)) throw failure;
      tasks.shift();
      onDone();
      current.fail(failure);
    }
  }
}

/** The copy of one database as a task. Throws SqlsyncError USAGE. */
export function copyTask(pair: Pair, options: ManyOptions, listeners: ManyListeners): Task {
  const run = plan({ ...options, ...placed(pair, options) });
  const isPull = farOf(run.origin, run.replica) === run.origin;
  return {
    state: isPull ? 'opening' : 'offering',
    async run(connection) {
      const startedAt = performance.now();
      const { bytesSent, bytesReceived } = connection;
      const attempt = {
        number: 1,
        ask: undefined,
        maxTimeMs: undefined,
        makesFolders: true,
        hasProgressed: false,
      };
      if (isPull) makeFolderOf(run);
      const result = await (isPull ? pull : push)(connection, run, attempt);
      run.traffic.bytesSent = connection.bytesSent - bytesSent;
      run.traffic.bytesReceived = connection.bytesReceived - bytesReceived;
      const summary = summarize(run, result, 1, performance.now() - startedAt);
      listeners.onDone(pair, { ...summary, replica: pair.replica });
    },
    fail: (failure) => listeners.onFailed(pair, failure),
  };
}

/** Copies databases of this host to others of this host. Throws SqlsyncError only for failures of all. */
export async function syncHere(
  pairs: readonly Pair[],
  options: ManyOptions,
  listeners: ManyListeners,
): Promise<void> {
  for (const pair of pairs) {
    try {
      const one = { ...options, ...placed(pair, options) };
      makeFolderOf(plan(one));
      listeners.onDone(pair, { ...(await runSync(one)), replica: pair.replica });
    } catch (error) {
      const failure = toSqlsyncError(error);
      if (OF_ALL.has(failure.code)) throw failure;
      listeners.onFailed(pair, failure);
    }
  }
}

/** The pair, or for a dry run one with a replica in a folder that is there. */
function placed(pair: Pair, { dryRun = false }: ManyOptions): Pair {
  const replica = parseLocation(pair.replica);
  if (!dryRun || replica.kind !== 'local') return pair;
  return { ...pair, replica: placeOfTrial(resolve(replica.path)) };
}

function makeFolderOf({ replica, request }: Run): void {
  if (!request.dryRun && replica.kind === 'local') makeFolders(resolve(replica.path));
}
