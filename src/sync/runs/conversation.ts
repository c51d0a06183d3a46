import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import { message } from '../../../protocol/encode.ts';
import { SqlsyncError, toSqlsyncError } from '../../errors.ts';
import type { ErrorCode } from '../../errors.ts';
import type { Location } from '../../transport/location.ts';
import type { Ask } from '../../transport/terminal.ts';
import type { Transport } from '../../transport/transport.ts';
import { Connection } from '../link/connection.ts';
import { DEFAULT_IDLE_TIMEOUT_MS } from './run-options.ts';
import type { RunOptions } from './run-options.ts';
import { greetingTimeoutMs, startAgent } from '../link/start-agent.ts';

/** Bytes of all connections of a run, those included that failed. */
export interface Traffic {
  bytesSent: number;
  bytesReceived: number;
}

export interface ConversationOptions {
  readonly run: RunOptions;
  /** What is left of the limit for the run, in milliseconds, if that is not `run.maxTimeMs`. */
  readonly maxTimeMs?: number | undefined;
  readonly ask?: Ask | undefined;
  readonly traffic: Traffic;
  readonly onWarning: (text: string) => void;
}

/** How a far agent is missed that has ended. */
const LINK_LOSSES: ReadonlySet<ErrorCode> = new Set(['AUTH_FAILED', 'CONNECT_FAILED', 'CONNECTION_LOST']);

/** How long a far agent may take to end after `close`, before it is ended. */
const CLOSE_WAIT_MS = 5000;

/**
 * Starts an agent where `far` is, does `work` with it, and ends the conversation: with `close`, or by telling the other
 * side what went wrong, which is thrown then. When it settles, the agent is gone or told to go.
 */
export async function converse<T>(
  far: Location,
  state: 'opening' | 'offering',
  options: ConversationOptions,
  work: (connection: Connection) => Promise<T>,
): Promise<T> {
  const { signal } = options.run;
  try {
    return await converseOnce(far, state, options, work);
  } catch (error) {
    const failure = toSqlsyncError(error);
    throw (await isEndedFromOutside(failure, signal)) ? interrupted(failure) : failure;
  }
}

/**
 * Whether the link was lost because this run is being ended. Ctrl-C signals a whole process group: the remote shell may
 * die of it, and its pipe close, before this process looks at its own signal, which has come by then.
 */
async function isEndedFromOutside({ code }: SqlsyncError, signal: AbortSignal | undefined): Promise<boolean> {
  if (signal === undefined || !LINK_LOSSES.has(code)) return false;
  // Pending signals are handled when the event loop has polled once more.
  for (let turn = 0; turn < 2; turn++) await nextTurn();
  return signal.aborted;
}

function interrupted(failure: SqlsyncError): SqlsyncError {
  return new SqlsyncError('INTERRUPTED', 'Interrupted', {
    hint:
      failure.outcome === undefined || failure.hint === undefined
        ? 'Run it again: it goes on from what is there.'
        : failure.hint,
    outcome: failure.outcome,
    cause: failure,
  });
}

async function converseOnce<T>(
  far: Location,
  state: 'opening' | 'offering',
  options: ConversationOptions,
  work: (connection: Connection) => Promise<T>,
): Promise<T> {
  const { run, ask, traffic, onWarning } = options;
  const { signal } = run;
  const transport = await startAgent(far, {
    remote: run,
    ask,
    signal,
    onStderr: (text) => run.onNote?.(text.trimEnd()),
    onWarning,
  });
  const idleTimeoutMs = run.idleTimeoutMs ?? DEFAULT_IDLE_TIMEOUT_MS;
  const connection = new Connection(transport, state, {
    idleTimeoutMs,
    greetingTimeoutMs: greetingTimeoutMs(far, run, idleTimeoutMs),
    maxTimeMs: options.maxTimeMs ?? run.maxTimeMs,
    signal,
    isPeerOurs: far.kind === 'local',
  });
  try {
    const result = await work(connection);
    connection.detach();
    await close(connection, transport);
    return result;
  } catch (error) {
    const failure = toSqlsyncError(error);
    connection.sendError(failure);
    connection.end();
    throw failure;
  } finally {
    traffic.bytesSent += connection.bytesSent;
    traffic.bytesReceived += connection.bytesReceived;
    transport.terminate();
  }
}

/** The work is done; a far agent that does not end properly now changes nothing about it. */
async function close(connection: Connection, transport: Transport): Promise<void> {
  connection.send(message('close', {}));
  connection.end();
  await Promise.race([transport.exited, delay(CLOSE_WAIT_MS, undefined, { ref: false })]);
}
