import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import { message } from '../../../protocol/encode.ts';
import { SqlsyncError, toSqlsyncError } from '../../errors.ts';
import type { ErrorCode } from '../../errors.ts';
import type { Location } from '../../transport/location.ts';
import type { Ask } from '../../transport/terminal.ts';
import type { Transport } from '../../transport/transport.ts';
import type { AgentHost } from '../link/agent-host.ts';
import { Connection } from '../link/connection.ts';
import { needsNoProcess, startAgentHere } from './agent-here.ts';
import { DEFAULT_IDLE_TIMEOUT_MS } from './run-options.ts';
import type { RunOptions } from './run-options.ts';
import { greetingTimeoutMs, startAgent } from '../link/start-agent.ts';
import type { StartOptions } from '../link/start-agent.ts';

/** Bytes of all connections of a run, including those that failed. */
export interface Traffic {
  bytesSent: number;
  bytesReceived: number;
}

/** What a conversation begins with. */
type Opening = 'opening' | 'offering' | 'examining' | 'listing' | 'recognizing';

export interface ConversationOptions {
  readonly run: RunOptions;
  /** The time left for the run, in milliseconds, if that is not `run.maxTimeMs`. */
  readonly maxTimeMs?: number | undefined;
  readonly ask?: Ask | undefined;
  /**
   * True if the agent of a small database may run in this process: the near side opens no database that could be the
   * same file. Closing a descriptor drops the locks that its process holds on a file.
   */
  readonly mayShareProcess?: boolean | undefined;
  /** True if the agent will hardly read a page, so that a large database needs no process of its own either. */
  readonly isUnread?: boolean | undefined;
  /** Where to start the agent, if conversations share a login. */
  readonly host?: AgentHost | undefined;
  /** The connections of those that go on at the same time. */
  readonly siblings?: ReadonlySet<Connection> | undefined;
  readonly traffic: Traffic;
  readonly onWarning: (text: string) => void;
}

/** How a far agent is missed that has ended. */
const LINK_LOSSES: ReadonlySet<ErrorCode> = new Set(['AUTH_FAILED', 'CONNECT_FAILED', 'CONNECTION_LOST']);

/** How long a far agent may take to end after `close`; then it is ended. */
const CLOSE_WAIT_MS = 5000;

/**
 * Starts an agent at `far`, runs `work` with it, and ends the conversation: with `close`, or by telling the other side
 * what went wrong, which is then thrown. When it settles, the agent is gone or was asked to go.
 */
export async function converse<T>(
  far: Location,
  state: Opening,
  options: ConversationOptions,
  work: (connection: Connection) => Promise<T>,
): Promise<T> {
  return orInterrupted(options.run.signal, async () =>
    converseOver(await connectAgent(far, state, options), far, options.traffic, work),
  );
}

/** As `converse`, with an agent that was started. */
export async function converseOver<T>(
  connection: Connection,
  far: Location,
  traffic: Traffic,
  work: (connection: Connection) => Promise<T>,
): Promise<T> {
  try {
    const result = await work(connection);
    await closeConnection(connection);
    return result;
  } catch (error) {
    const failure = toSqlsyncError(error);
    connection.sendError(failure);
    connection.end();
    throw failure;
  } finally {
    traffic.bytesSent += connection.bytesSent;
    traffic.bytesReceived += connection.bytesReceived;
    // Otherwise the signal of a follower would keep every connection that it has lost.
    connection.detach();
    connection.transport.terminate();
    // What the agent has open in this process is closed with it.
    if (far.kind === 'local') await waitForEnd(connection);
  }
}

/** Starts an agent where `far` is. The caller terminates the connection's transport. Throws SqlsyncError. */
export async function connectAgent(
  far: Location,
  state: Opening,
  options: Omit<ConversationOptions, 'traffic'>,
): Promise<Connection> {
  const { run, maxTimeMs = run.maxTimeMs, mayShareProcess = false, host } = options;
  const { signal } = run;
  // A limited rate is for a process of its own: its pipe holds back the agent's work.
  if (
    mayShareProcess &&
    run.bandwidthBytesPerS === undefined &&
    needsNoProcess(far, options.isUnread === true)
  )
    return new Connection(startAgentHere(), state, { idleTimeoutMs: 0, maxTimeMs, signal, isPeerOurs: true });
  const transport = await (host?.start() ?? startAgent(far, startOptions(options)));
  return connectionOver(transport, far, state, options);
}

export function startOptions({ run, ask, onWarning }: Omit<ConversationOptions, 'traffic'>): StartOptions {
  return {
    remote: run,
    ask,
    signal: run.signal,
    onStderr: (text) => run.onNote?.(text.trimEnd()),
    onWarning,
  };
}

/** The connection to an agent at `far` that was started. */
export function connectionOver(
  transport: Transport,
  far: Location,
  state: Opening,
  { run, maxTimeMs = run.maxTimeMs, siblings }: Omit<ConversationOptions, 'traffic'>,
): Connection {
  const idleTimeoutMs = run.idleTimeoutMs ?? DEFAULT_IDLE_TIMEOUT_MS;
  const options = {
    idleTimeoutMs,
    greetingTimeoutMs: greetingTimeoutMs(far, run, idleTimeoutMs),
    maxTimeMs,
    signal: run.signal,
    isPeerOurs: far.kind === 'local',
  };
  const connection = new Connection(transport, state, options);
  if (siblings !== undefined) connection.siblings = siblings;
  return connection;
}

/**
 * Ends a conversation whose work is done. A far agent that does not end properly now changes nothing about that: it is
 * waited for only a while.
 */
export async function closeConnection(connection: Connection): Promise<void> {
  connection.send(message('close', {}));
  connection.detach();
  connection.end();
  await waitForEnd(connection);
}

async function waitForEnd({ transport }: Connection): Promise<void> {
  await Promise.race([transport.exited, delay(CLOSE_WAIT_MS, undefined, { ref: false })]);
}

/** How long a signal of this process may take to be seen here, on a busy machine. */
const SIGNAL_WAIT_MS = 200;

/**
 * Runs `work`; where it lost its link because this run is being ended, throws INTERRUPTED instead. Ctrl-C signals a
 * whole process group: the remote shell may die of it, and its pipe close, before this process looks at its own signal.
 */
export async function orInterrupted<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const failure = toSqlsyncError(error);
    if (signal === undefined || !LINK_LOSSES.has(failure.code)) throw failure;
    // Pending signals are handled when the event loop has polled once more, and when the thread that got them has run.
    for (let turn = 0; turn < 2; turn++) await nextTurn();
    await delay(SIGNAL_WAIT_MS, undefined, { signal }).catch(() => {});
    throw signal.aborted ? interrupted(failure) : failure;
  }
}

function interrupted(failure: SqlsyncError): SqlsyncError {
  const { outcome, hint } = failure;
  const isKnown = outcome === undefined || hint === undefined;
  return new SqlsyncError('INTERRUPTED', 'Interrupted', {
    hint: isKnown ? 'Run sqlsync again: it continues from what has arrived.' : hint,
    outcome,
    cause: failure,
  });
}
