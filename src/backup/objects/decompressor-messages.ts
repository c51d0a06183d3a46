import type { MessagePort } from 'node:worker_threads';

export interface DecompressorStart {
  readonly port: MessagePort;
  /** Numbers: see `CELLS`. */
  readonly shared: SharedArrayBuffer;
}

/** Places in the shared memory: 1 once the thread is up, the number of frames done, and the number of the thread. */
export const CELLS = { isUp: 0, done: 1, thread: 2, count: 3 } as const;

/** Where the plain bytes of a frame are: here, or in a part of a file. */
export type FrameBytes =
  | { readonly plain: Uint8Array }
  | { readonly path: string; readonly offset: number; readonly length: number };

export interface ToDecompress {
  readonly id: number;
  readonly frame: FrameBytes;
  /** True to hash its whole pages. */
  readonly wantsIds: boolean;
}

/** The parts of a frame: its first bytes, and its body in new memory. */
export interface FrameParts {
  readonly header: Uint8Array;
  readonly body: Uint8Array;
  /** If wanted, the ids of its whole pages: see `PageFrame.wholeIds`. */
  readonly ids: Uint8Array | undefined;
}

export interface Decompressed {
  readonly id: number;
  /** undefined if the frame cannot be read, is not compressed, or is invalid. */
  readonly parts: FrameParts | undefined;
}
