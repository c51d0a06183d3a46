/** The thread of the decompressor: see there. */
import { workerData } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import { discard } from './frame-memory.ts';
import { decompressBody } from './zstd.ts';

export interface DecompressorStart {
  readonly port: MessagePort;
  /** Counts what is done, for whoever waits for it. */
  readonly done: SharedArrayBuffer;
}

export interface ToDecompress {
  readonly id: number;
  readonly bytes: Uint8Array;
  readonly rawBytes: number;
}

export interface Decompressed {
  readonly id: number;
  /** undefined where these bytes are no zstd, or not of this length. */
  readonly bytes: Uint8Array | undefined;
}

const { port, done } = workerData as DecompressorStart;
const counter = new Int32Array(done);

port.on('message', ({ id, bytes, rawBytes }: ToDecompress) => {
  const decompressed: Decompressed = { id, bytes: decompressedOrNothing(bytes, rawBytes) };
  port.postMessage(
    decompressed,
    decompressed.bytes === undefined ? [] : [decompressed.bytes.buffer as ArrayBuffer],
  );
  Atomics.add(counter, 0, 1);
  Atomics.notify(counter, 0);
});

function decompressedOrNothing(bytes: Uint8Array, rawBytes: number): Uint8Array | undefined {
  try {
    return decompressBody(bytes, rawBytes);
  } catch {
    return undefined;
  } finally {
    discard(bytes);
  }
}
