/** The thread of the decompressor: see there. */
import { closeSync, openSync, readSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import { takeApart } from './frame.ts';
import { decompressBody } from './zstd.ts';

export interface DecompressorStart {
  readonly port: MessagePort;
  /** Counts what is done, for whoever waits for it. */
  readonly done: SharedArrayBuffer;
}

/** Where the plain bytes of a frame are: here, or in a part of a file. */
export type FrameBytes =
  | { readonly plain: Uint8Array }
  | { readonly path: string; readonly offset: number; readonly length: number };

export interface ToDecompress {
  readonly id: number;
  readonly frame: FrameBytes;
}

/** The parts of a frame: its first bytes, and its body in memory of its own. */
export interface FrameParts {
  readonly header: Uint8Array;
  readonly body: Uint8Array;
}

export interface Decompressed {
  readonly id: number;
  /** undefined where it cannot be read, is not compressed or is no frame. */
  readonly parts: FrameParts | undefined;
}

const { port, done } = workerData as DecompressorStart;
const counter = new Int32Array(done);
/** Used again and again: new memory for each frame costs as much as reading it. */
let room = new Uint8Array(1024 * 1024);

port.on('message', ({ id, frame }: ToDecompress) => {
  const result: Decompressed = { id, parts: partsOrNothing(frame) };
  port.postMessage(result, result.parts === undefined ? [] : [result.parts.body.buffer as ArrayBuffer]);
  Atomics.add(counter, 0, 1);
  Atomics.notify(counter, 0);
});

function partsOrNothing(frame: FrameBytes): FrameParts | undefined {
  try {
    const { header, packed, rawBytes } = takeApart('plain' in frame ? frame.plain : read(frame), '');
    return packed === undefined ? undefined : { header, body: decompressBody(packed, rawBytes) };
  } catch {
    return undefined;
  }
}

/** Throws the system's errors, and an Error where the file ends before. */
function read({ path, offset, length }: Extract<FrameBytes, { path: string }>): Uint8Array {
  if (room.length < length) room = new Uint8Array(length);
  const descriptor = openSync(path, 'r');
  try {
    for (let filled = 0; filled < length;) {
      const got = readSync(descriptor, room, filled, length - filled, offset + filled);
      if (got === 0) throw new Error('the file ends before');
      filled += got;
    }
  } finally {
    closeSync(descriptor);
  }
  return room.subarray(0, length);
}
