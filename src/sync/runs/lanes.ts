import { toSqlsyncError } from '../../errors.ts';
import type { ErrorCode, SqlsyncError } from '../../errors.ts';
import { AgentHost } from '../link/agent-host.ts';
import { outcomeUnknown } from '../link/connection-error.ts';
import type { Connection } from '../link/connection.ts';
import type { SshLocation } from '../link/start-agent.ts';
import { connectionOver, converse, converseOver, orInterrupted, startOptions } from './conversation.ts';
import type { ConversationOptions, Traffic } from './conversation.ts';
import { withRetries } from './retry.ts';
import type { Retry } from './retry.ts';
import type { RunOptions } from './run-options.ts';
import { remaining } from './sync.ts';

/** The most conversations at the same time. By default sshd lets one login have 10. */
const MAX_LANES = 4;

/** So many tasks a lane are worth the start of a further agent, which takes 0.3 s of a processor. */
const TASKS_PER_LANE = 5;

/** Failures of the host or of this run. All others are of one task. */
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

/** True for a failure that the next database would meet too. */
export function isOfAll({ code }: SqlsyncError): boolean {
  return OF_ALL.has(code);
}

/** Something to do in a conversation with another host. */
export interface Task {
  readonly state: 'listing' | 'recognizing' | 'opening' | 'offering';
  /** Identifies the file on this host that the task opens, if there is one. */
  fileHere?(): string | undefined;
  run(connection: Connection): Promise<void>;
  /** Takes a failure that is not of all tasks; throws otherwise. */
  fail(failure: SqlsyncError): void;
}

export interface LanesOptions extends RunOptions {
  readonly retries?: number | undefined;
}

/**
 * Does tasks with another host, over one login. Several lanes take them from one queue: each is a conversation with an
 * agent of its own, which does one task after another. A task that fails ends its conversation, as the protocol has it.
 */
export class SharedLink {
  readonly #far: SshLocation;
  readonly #options: LanesOptions;
  readonly #listeners: { onRetry(retry: Retry): void };
  readonly traffic: Traffic = { bytesSent: 0, bytesReceived: 0 };

  constructor(far: SshLocation, options: LanesOptions, listeners: { onRetry(retry: Retry): void }) {
    this.#far = far;
    this.#options = options;
    this.#listeners = listeners;
  }

  /** `tasks` may grow meanwhile; each is taken out of it when it begins. Throws SqlsyncError. */
  async run(tasks: Task[]): Promise<void> {
    const startedAt = performance.now();
    const { retries = 0, signal, maxTimeMs, onWarning } = this.#options;
    const conversation = {
      run: this.#options,
      traffic: this.traffic,
      onWarning: (text: string) => onWarning?.(text, 'news'),
    };
    const host = new AgentHost(this.#far, startOptions(conversation));
    let crew: Crew | undefined;
    const attempt = async (): Promise<void> => {
      const left = remaining(maxTimeMs, startedAt);
      crew = new Crew(this.#far, tasks, { ...conversation, maxTimeMs: left, host });
      try {
        await crew.run();
      } finally {
        host.close();
      }
    };
    await withRetries(attempt, {
      retries,
      hasProgressed: () => crew?.hasProgressed === true,
      onRetry: (retry) => this.#listeners.onRetry(retry),
      signal,
    });
  }
}

type Conversation = ConversationOptions & { readonly host: AgentHost };

/** The lanes of one attempt, from the login on. */
class Crew {
  /** True once a task has ended. */
  hasProgressed = false;
  readonly #far: SshLocation;
  readonly #tasks: Task[];
  readonly #conversation: Conversation;
  readonly #connections = new Set<Connection>();
  /** What is under way, with the files of this host that are open for it. */
  readonly #current = new Map<Task, string | undefined>();
  #working = 0;
  #opening = 0;
  /** True once the host did not let a further agent start. */
  #isRefused = false;
  #failure: SqlsyncError | undefined;
  #isOutcomeUnknown = false;
  #wake = (): void => {};

  constructor(far: SshLocation, tasks: Task[], conversation: Conversation) {
    this.#far = far;
    this.#tasks = tasks;
    this.#conversation = { ...conversation, siblings: this.#connections };
  }

  /** Ends when all is done, or nothing more can be: throws the failure of all. */
  async run(): Promise<void> {
    while (!this.#isOver || this.#working > 0) {
      const change = Promise.withResolvers<void>();
      this.#wake = change.resolve;
      if (!this.#isOver) this.#open();
      await change.promise;
    }
    if (this.#failure === undefined) return;
    throw this.#isOutcomeUnknown ? outcomeUnknown(this.#failure) : this.#failure;
  }

  get #isOver(): boolean {
    return this.#failure !== undefined || this.#tasks.length === 0;
  }

  /** The first lane begins alone: the list of databases has to come first. */
  #open(): void {
    if (this.#working + this.#opening === 0) void this.#work();
    if (!this.hasProgressed || this.#isRefused || !this.#conversation.host.sharesLogin) return;
    const undone = this.#tasks.length + this.#current.size;
    const wanted = Math.min(MAX_LANES, Math.floor(undone / TASKS_PER_LANE));
    while (this.#working + this.#opening < wanted) void this.#openFurther();
  }

  /** A host that refuses a further agent is no failure: the other lanes go on. */
  async #openFurther(): Promise<void> {
    this.#opening++;
    let connection: Connection | undefined;
    try {
      const transport = await this.#conversation.host.startFurther();
      const opened = (connection = connectionOver(transport, this.#far, 'opening', this.#conversation));
      await opened.receiveWithin(Infinity, () => opened.state !== 'greeting');
      void this.#work(opened);
    } catch (error) {
      this.#isRefused = true;
      connection?.detach();
      connection?.transport.terminate();
      if (!this.#isOver)
        this.#conversation.run.onNote?.(
          `Not more than ${this.#working} databases are copied at the same time: ${toSqlsyncError(error).message}`,
        );
    } finally {
      this.#opening--;
      this.#wake();
    }
  }

  /** One conversation, until a task fails or none is left. */
  async #work(opened?: Connection): Promise<void> {
    this.#working++;
    const { traffic, run } = this.#conversation;
    let task: Task | undefined;
    const work = async (connection: Connection): Promise<void> => {
      this.#connections.add(connection);
      try {
        for (task = this.#take(); task !== undefined; task = this.#take()) {
          connection.expect(task.state);
          await task.run(connection);
          this.#end(task);
        }
      } finally {
        this.#connections.delete(connection);
      }
    };
    try {
      if (opened === undefined) await converse(this.#far, 'opening', this.#conversation, work);
      else await orInterrupted(run.signal, () => converseOver(opened, this.#far, traffic, work));
    } catch (error) {
      this.#fail(task, toSqlsyncError(error));
    } finally {
      this.#working--;
      this.#wake();
    }
  }

  /**
   * The next task. No two tasks open one file at the same time, which may have several names: closing it in one would
   * drop the locks of the other.
   */
  #take(): Task | undefined {
    if (this.#failure !== undefined) return undefined;
    const files = new Set(this.#current.values());
    for (const [place, task] of this.#tasks.entries()) {
      const file = task.fileHere?.();
      if (file !== undefined && files.has(file)) continue;
      this.#tasks.splice(place, 1);
      this.#current.set(task, file);
      return task;
    }
    return undefined;
  }

  #end(task: Task): void {
    this.#current.delete(task);
    this.hasProgressed = true;
    this.#wake();
  }

  #fail(task: Task | undefined, failure: SqlsyncError): void {
    try {
      if (task === undefined || isOfAll(failure)) throw failure;
      this.#end(task);
      task.fail(failure);
    } catch (error) {
      // The others end what they have begun, and then begin nothing more.
      if (task !== undefined && this.#current.delete(task)) this.#tasks.unshift(task);
      this.#failure ??= toSqlsyncError(error);
      this.#isOutcomeUnknown ||= failure.outcome === 'unknown';
    }
  }
}
