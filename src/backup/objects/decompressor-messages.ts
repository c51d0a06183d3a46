import type { MessagePort } from 'node:worker_threads';

export interface DecompressorStart {
  readonly port: MessagePort;
  /** Numbers: see `CELLS`. */
  readonly shared: SharedArrayBuffer;
}

/**
 * Places in the shared memory: 1 from when the thread is up, how many frames are done, and the number of the thread.
 */
export const CELLS = { isUp: 0, done: 1, thread: 2, count: 3 } as const;

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
  /** undefined if it cannot be read, is not compressed or is no frame. */
  readonly parts: FrameParts | undefined;
}
