import type { ReplicaWriter } from './replica-writer.ts';

/** The methods of a {@link ReplicaWriter} other than those that take and give pages. */
export type WriterCalls = Pick<
  ReplicaWriter,
  | 'begin'
  | 'prepareForPages'
  | 'pageCount'
  | 'dataVersion'
  | 'truncateTo'
  | 'setSchemaCookie'
  | 'commit'
  | 'rollback'
  | 'keepLocks'
  | 'checkpoint'
  | 'close'
>;

/** A {@link ReplicaWriter} that may work in a separate thread. Throws better-sqlite3's errors, with SQLite's codes. */
export interface PageWriter {
  /** Calls a method of the writer, after all pages that were given to it before. */
  call<M extends keyof WriterCalls>(
    method: M,
    ...parameters: Parameters<WriterCalls[M]>
  ): Promise<ReturnType<WriterCalls[M]>>;
  /**
   * Takes a copy of a page to write; if that fails, the next call or `ready` throws the error. At most 1 MiB of pages
   * (or one page) between two calls of `ready`.
   */
  writePage(page: number, bytes: Uint8Array): void;
  /** Resolves when there is room for more pages. */
  ready(): Promise<void>;
  /** A page as the transaction sees it, with all pages written before. */
  readPage(page: number): Uint8Array;
  /** Releases what the writer holds, after `close` or instead of it. Never throws. */
  end(): Promise<void>;
}

/** The writer in this thread, for few pages: it has written them before a thread would have started. */
export class DirectPageWriter implements PageWriter {
  readonly #writer: ReplicaWriter;

  constructor(writer: ReplicaWriter) {
    this.#writer = writer;
  }

  call<M extends keyof WriterCalls>(
    method: M,
    ...parameters: Parameters<WriterCalls[M]>
  ): Promise<ReturnType<WriterCalls[M]>> {
    return new Promise((resolve) => resolve(callWriter(this.#writer, method, parameters)));
  }

  writePage(page: number, bytes: Uint8Array): void {
    this.#writer.writePage(page, bytes);
  }

  ready(): Promise<void> {
    return Promise.resolve();
  }

  readPage(page: number): Uint8Array {
    return this.#writer.readPage(page);
  }

  end(): Promise<void> {
    return Promise.resolve();
  }
}

export function callWriter<M extends keyof WriterCalls>(
  writer: ReplicaWriter,
  method: M,
  parameters: Parameters<WriterCalls[M]>,
): ReturnType<WriterCalls[M]> {
  const called = writer[method] as (...given: Parameters<WriterCalls[M]>) => ReturnType<WriterCalls[M]>;
  return called.apply(writer, parameters);
}
