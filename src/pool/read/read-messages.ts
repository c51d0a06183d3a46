import type { ErrorData } from '../../errors.ts';
import type { ReaderOptions } from './read-connection.ts';
import type { SqlParams } from '../types.ts';

/** The first row, all rows, or all rows as arrays of their columns. */
export type QueryMode = 'get' | 'rows' | 'values';

/**
 * The messages between the caller's thread and a worker. A worker answers one query at a time, in chunks. It sends as
 * many chunks as it has credit for, so that a large result neither fills the memory nor delays the caller's event loop.
 *
 *     caller   query(id, credit 2) ──────────────► more(id) ──► …        stop(id) ──►
 *     worker           ◄── rows(id)  ◄── rows(id)      ◄── rows(id, isDone)     ◄── stopped(id)
 */
export type WorkerRequest =
  | {
      readonly type: 'query';
      readonly id: number;
      readonly sql: string;
      readonly params: SqlParams | undefined;
      readonly mode: QueryMode;
      readonly credit: number;
    }
  | { readonly type: 'more'; readonly id: number }
  | { readonly type: 'stop'; readonly id: number }
  | { readonly type: 'close' };

export interface RowsReply {
  readonly type: 'rows';
  readonly id: number;
  readonly rows: unknown[];
  /** True if a value is a blob: it arrives as `Uint8Array`, and must become a `Buffer` again. */
  readonly hasBlobs: boolean;
  readonly isDone: boolean;
}

export type WorkerReply =
  | RowsReply
  | { readonly type: 'failed'; readonly id: number; readonly error: ErrorData }
  | { readonly type: 'stopped'; readonly id: number };

export interface WorkerOptions {
  readonly path: string;
  readonly options: ReaderOptions;
}

/** Turns the `Uint8Array`s that structured cloning made back into `Buffer`s, in place. */
export function restoreBlobs(rows: readonly unknown[]): void {
  for (const row of rows as Record<string, unknown>[]) {
    for (const [name, value] of Object.entries(row)) {
      if (value instanceof Uint8Array) {
        row[name] = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
      }
    }
  }
}
