import { setTimeout as delay } from 'node:timers/promises';
import { message } from '../../../protocol/encode.ts';
import { toSqlsyncError } from '../../errors.ts';
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
