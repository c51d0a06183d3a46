import { Writable } from 'node:stream';
import type { Duplex } from 'node:stream';
import type { Client, ClientChannel } from 'ssh2';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { freeChunk } from '../chunk-memory.ts';
import { relayInput } from '../relay-input.ts';
import { EXIT_CANNOT_RUN, cannotRun, missingExecutable } from '../silent-exit.ts';
import { RECEIVE_WINDOW_MAX_BYTES, widenReceiveWindow } from './ssh-window.ts';
import { StderrTail } from '../stderr-tail.ts';
import type { Transport, TransportExit } from '../transport.ts';

export interface SshChannelParts {
  /** `ssh user@host`, for messages. */
  description: string;
  /** The command on the far side, for messages. */
  command: string;
  client: Client;
  /** The stream below the client: ssh2 ignores both its backpressure and the channel's receive window. */
  socket: Duplex;
  channel: ClientChannel;
  /** The time of a message to the host and its answer, at most. */
  roundTripMs: number;
  onStderr: ((text: string) => void) | undefined;
  /** Ends the connections that this one goes through. Undefined if the connection serves another transport too. */
  closeBelow: (() => void) | undefined;
  another?: Transport['another'];
}

/** Bytes that `output` holds before it asks the writer to wait. */
const OUTPUT_HIGH_WATER_MARK = 256 * 1024;

/**
 * A host that respects the window never has more than that window and ssh2's own (2 MiB) waiting with us; a host that
 * exceeds this bound is cut off.
 */
const MAX_UNREAD_BYTES = RECEIVE_WINDOW_MAX_BYTES + 4 * 1024 * 1024;

/** The state of the connection. `lost` and `exit` come as separate events, in any order. */
interface ChannelState {
  exit: { status: number | null; signal: string | null } | undefined;
  /** The connection ended although we did not end it. */
  lost: boolean;
  /** The error that preceded the loss, if any. */
  cause: Error | undefined;
}

/** The transport over an exec channel that was opened. Call it in the same turn, before any event of the channel. */
export function channelTransport(parts: SshChannelParts): Transport {
  const { client, socket, channel } = parts;
  const isShared = parts.closeBelow === undefined;
  const state: ChannelState = { exit: undefined, lost: false, cause: undefined };
  const stderr = new StderrTail(channel.stderr, parts.onStderr);
  const exited = Promise.withResolvers<TransportExit>();
  const settle = (): void => {
    exited.resolve({ status: null, signal: null, ...state.exit, stderr: stderr.text });
  };
  const output = channelOutput(channel, socket);
  const input = relayInput(channel, async (byteCount) => {
    if (byteCount === 0) {
      const exit = await exited.promise;
      if (exit.status === 126 || exit.status === 127) return missingExecutable(parts, exit);
      if (exit.status === EXIT_CANNOT_RUN) return cannotRun(parts.description, exit);
    }
    return state.lost && state.exit === undefined ? lostError(parts, state.cause) : undefined;
  });

  widenReceiveWindow(channel, parts.roundTripMs);

  channel.on('exit', (status: number | null, signal?: string) => {
    state.exit = { status, signal: signal ?? null };
    if (channel.stderr.readableEnded) settle();
  });
  channel.stderr.on('end', () => state.exit !== undefined && settle());
  channel.on('error', (error: Error) => (state.cause ??= error));
  const onError = (error: Error): void => {
    state.cause ??= error;
    // After a fault of the protocol ssh2 only half-closes the socket, and would wait for the host.
    socket.destroy();
  };
  const onClose = (): void => {
    // ssh2 emits this before it ends the channel (cleanly!), so `conclude` above sees it.
    state.lost = true;
    parts.closeBelow?.();
    settle();
    if (!output.writableFinished) output.destroy(lostError(parts, state.cause));
  };
  const onData = (): void => {
    if (channel.readableLength > MAX_UNREAD_BYTES) {
      input.destroy(floodError(parts));
      socket.destroy();
    }
  };
  const stopListening = listen(client, socket, { onError, onClose, onData });
  channel.on('close', () => {
    settle();
    if (!output.writableFinished) output.destroy(lostError(parts, state.cause, 'the far process has ended'));
    if (isShared) return stopListening();
    client.end();
    // Over a jump host the stream below stays open: only we know that it served this command alone.
    parts.closeBelow?.();
  });
  return {
    description: parts.description,
    input,
    output,
    freeChunk,
    exited: exited.promise,
    ...(parts.another === undefined ? {} : { another: parts.another }),
    terminate: () => {
      settle();
      input.destroy();
      output.destroy();
      if (isShared) return channel.close();
      client.destroy();
      socket.destroy();
      parts.closeBelow?.();
    },
  };
}

/** Listens to the connection of a channel. Returns what ends that: a connection may serve many channels. */
function listen(
  client: Client,
  socket: Duplex,
  listeners: { onError: (error: Error) => void; onClose: () => void; onData: () => void },
): () => void {
  const { onError, onClose, onData } = listeners;
  client.on('error', onError).on('close', onClose);
  socket.on('data', onData);
  return () => {
    client.off('error', onError).off('close', onClose);
    socket.off('data', onData);
  };
}

/**
 * ssh2 calls back when the channel's window took a chunk, not when the socket did, and never for a chunk that waits
 * when the connection drops. Here a chunk is done when both took it, and fails when the stream is destroyed.
 */
function channelOutput(channel: ClientChannel, socket: Duplex): Writable {
  let pending: ((error?: Error | null) => void) | undefined;
  const settle = (error?: Error | null): void => {
    const callback = pending;
    pending = undefined;
    callback?.(error);
  };
  const output = new Writable({
    highWaterMark: OUTPUT_HIGH_WATER_MARK,
    write: (chunk: Buffer, _encoding, callback) => {
      pending = callback;
      channel.write(chunk, (error?: Error | null) => {
        if (!error && socket.writableNeedDrain) socket.once('drain', () => settle());
        else settle(error);
      });
    },
    final: (callback) => {
      channel.end();
      callback();
    },
    destroy: (error, callback) => {
      settle(error ?? new Error('the transport was terminated'));
      channel.end();
      callback(error);
    },
  });
  output.on('error', () => {}); // a writer gets it in its callback; `input` reports it to all others
  return output;
}

function lostError(
  parts: SshChannelParts,
  cause: Error | undefined,
  what = 'the connection was lost',
): SqlsyncError {
  const detail = cause === undefined ? '' : `: ${sanitizeText(cause.message, 200)}`;
  return new SqlsyncError('CONNECTION_LOST', `${parts.description}: ${what}${detail}`, {
    hint: 'Run sqlsync again: it continues from what has arrived.',
    cause,
  });
}

function floodError(parts: SshChannelParts): SqlsyncError {
  return new SqlsyncError(
    'PROTOCOL',
    `${parts.description} sent over ${MAX_UNREAD_BYTES} bytes that were not requested; expected it to respect the SSH window`,
    { hint: 'Check which program is the SSH server of that host.' },
  );
}
