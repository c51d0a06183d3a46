import { Readable, Writable } from 'node:stream';
import { SqlsyncError } from '../errors.ts';
import type { Transport, TransportExit } from './transport.ts';

/** Bytes that each stream of a memory transport holds before it asks its writer to wait. */
const HIGH_WATER_MARK = 64 * 1024;

/**
 * Two transports, each the far end of the other, for tests and for agents that share a process.
 *
 *     near.output ──► far.input        near.input ◄── far.output
 *
 * Bytes are copied, as any real medium does. When one side terminates, the other's input ends **cleanly** after what
 * had arrived, like a dropped SSH connection at its worst, and its output fails. `exited` has status 0 where both
 * directions ended by themselves, null where a side terminated.
 */
export function memoryTransportPair(): [Transport, Transport] {
  const forth = memoryPipe();
  const back = memoryPipe();
  const exited = Promise.withResolvers<TransportExit>();
  const exit = (status: number | null): void => exited.resolve({ status, signal: null, stderr: '' });
  void Promise.all([forth.ended, back.ended]).then(() => exit(0));
  const side = (name: string, incoming: MemoryPipe, outgoing: MemoryPipe): Transport => ({
    description: `memory transport (${name} side)`,
    input: incoming.readable,
    output: outgoing.writable,
    exited: exited.promise,
    terminate: () => {
      exit(null);
      outgoing.cut();
      incoming.cut();
      incoming.readable.destroy();
    },
  });
  return [side('near', back, forth), side('far', forth, back)];
}

interface MemoryPipe {
  readonly readable: Readable;
  readonly writable: Writable;
  /** Settles when the writer is done and the reader has seen that, or gave up. */
  readonly ended: Promise<void>;
  /** Fails the writer; the reader gets what had arrived, then the end. */
  cut(): void;
}

/**
 * A write calls back once its bytes were taken in below the high-water mark: memory is bounded at both ends. What is
 * written to a reader that gave up is dropped.
 */
function memoryPipe(): MemoryPipe {
  let pending: ((error?: Error) => void) | undefined;
  let finished = false;
  const ended = Promise.withResolvers<void>();
  const settlePending = (error?: Error): void => {
    const callback = pending;
    pending = undefined;
    callback?.(error);
  };
  const finish = (): void => {
    if (readable.destroyed) ended.resolve();
    else if (!finished) readable.push(null);
    finished = true;
  };
  const readable = new Readable({
    highWaterMark: HIGH_WATER_MARK,
    read: () => settlePending(),
    destroy: (error, callback) => {
      settlePending();
      if (finished) ended.resolve();
      callback(error);
    },
  });
  const writable = new Writable({
    highWaterMark: HIGH_WATER_MARK,
    write: (chunk: Buffer, _encoding, callback) => {
      pending = callback;
      if (readable.destroyed || readable.push(Buffer.from(chunk))) settlePending();
    },
    final: (callback) => {
      finish();
      callback();
    },
    destroy: (error, callback) => {
      settlePending(error ?? lostError());
      finish();
      callback(error);
    },
  });
  writable.on('error', () => {}); // the callback of a write reports its error; nobody else need listen
  const cut = (): void => {
    if (!finished) writable.destroy(lostError());
  };
  return { readable, writable, ended: ended.promise, cut };
}

function lostError(): SqlsyncError {
  return new SqlsyncError('CONNECTION_LOST', 'the other side of the memory transport is gone', {
    hint: 'Run sqlsync again.',
  });
}
