/** The thread of the decompressor: see decompressor.ts. */
import { closeSync, openSync, readSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { ownThreadNumber } from '../../sqlite/thread-life.ts';
import { CELLS } from './decompressor-messages.ts';
import type {
  Decompressed,
  DecompressorStart,
  FrameBytes,
  FrameParts,
  ToDecompress,
} from './decompressor-messages.ts';
import { decodeBody, takeApart } from '../packs/frame.ts';
import { decompressBody } from '../packs/zstd.ts';

const { port, shared } = workerData as DecompressorStart;
const cells = new Int32Array(shared);
Atomics.store(cells, CELLS.thread, ownThreadNumber());
Atomics.store(cells, CELLS.isUp, 1);
/** Reused: new memory for each frame costs as much as reading it. */
let room = new Uint8Array(1024 * 1024);

port.on('message', ({ id, frame, wantsIds }: ToDecompress) => {
  const result: Decompressed = { id, parts: partsOrNothing(frame, wantsIds) };
  const { parts } = result;
  const memory = parts === undefined ? [] : [parts.body, ...(parts.ids === undefined ? [] : [parts.ids])];
  port.postMessage(
    result,
    memory.map(({ buffer }) => buffer as ArrayBuffer),
  );
  Atomics.add(cells, CELLS.done, 1);
  Atomics.notify(cells, CELLS.done);
});

function partsOrNothing(frame: FrameBytes, wantsIds: boolean): FrameParts | undefined {
  try {
    const { header, packed, rawBytes } = takeApart('plain' in frame ? frame.plain : read(frame), '');
    if (packed === undefined) return undefined;
    const body = decompressBody(packed, rawBytes);
    if (!wantsIds) return { header, body, ids: undefined };
    // Hashed here, where the bytes still are in the cache of the processor, and beside the main thread.
    const { frame: parsed } = decodeBody(header, body, '');
    return { header, body, ids: parsed.kind === 'pages' ? parsed.wholeIds() : undefined };
  } catch {
    return undefined;
  }
}

/** Throws the system's errors, and an Error if the file ends before. */
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
