import type { MessagePort } from 'node:worker_threads';
import type { ErrorData } from '../../errors.ts';
import type { WriterOptions } from './replica-writer.ts';
import type { WriterCalls } from './page-writer.ts';

/** The start data of a writer's thread. */
export interface ThreadStart {
  readonly path: string;
  /** Bytes. */
  readonly pageSize: number;
  readonly options: WriterOptions;
  readonly port: MessagePort;
  /**
   * Two numbers. The first becomes 1 when the answer to a `read` is in the port; the other thread waits for it. The
   * second is the thread's own number.
   */
  readonly answered: SharedArrayBuffer;
  /** Pages are handed over here, in slots of `slotBytes`. */
  readonly slots: SharedArrayBuffer;
  readonly slotBytes: number;
}

/** To the writer's thread. */
export type ToWriter =
  | { readonly kind: 'pages'; readonly numbers: readonly number[]; readonly slot: number }
  | { readonly kind: 'call'; readonly method: keyof WriterCalls; readonly parameters: readonly unknown[] }
  | { readonly kind: 'read'; readonly page: number };

/** From the writer's thread. Each `pages` and each `call` gets an answer, in their order. */
export type FromWriter =
  /** Once, when the connection is open. */
  | { readonly kind: 'open' }
  /** The slot of a `pages` is free again; or why its pages could not be written. */
  | { readonly kind: 'taken'; readonly slot: number; readonly failure: ErrorData | undefined }
  | { readonly kind: 'result'; readonly value: unknown }
  | { readonly kind: 'page'; readonly bytes: Uint8Array }
  | { readonly kind: 'failed'; readonly error: ErrorData };
