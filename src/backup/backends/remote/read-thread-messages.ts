import type { MessagePort } from 'node:worker_threads';
import type { ErrorData } from '../../../errors.ts';
import type { ByteRange } from '../backend.ts';
import type { RequestCounts } from './request-counts.ts';

/** What is needed to reach a store elsewhere, as data that another thread can get. */
export interface RemotePlace {
  /** For messages. */
  readonly address: string;
}

export interface ReadThreadStart {
  readonly place: RemotePlace;
  readonly port: MessagePort;
  /** Numbers: see `CELLS`. */
  readonly shared: SharedArrayBuffer;
}

/** Places in the shared memory: the number of answers so far, and the number of the thread once it has started. */
export const CELLS = { done: 0, thread: 1, count: 2 } as const;

/** Stands for the number of a thread where the system reports none. */
export const NUMBER_UNKNOWN = -1;

export interface ToRead {
  readonly id: number;
  readonly name: string;
  readonly range: ByteRange | undefined;
}

export type WasRead = {
  readonly id: number;
  /** What was sent since the last answer. */
  readonly requests: RequestCounts;
} & ({ readonly bytes: Uint8Array } | { readonly error: ErrorData });
