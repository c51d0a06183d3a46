import type { ReplicaWriter } from './replica-writer.ts';

/** What a {@link ReplicaWriter} does besides taking and giving pages. */
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

/** A {@link ReplicaWriter} that may work in a thread of its own. Errors are better-sqlite3's, with SQLite's codes. */
export interface PageWriter {
  /** Calls a method of the writer, after all pages that were given to it before. */
  call<M extends keyof WriterCalls>(
    method: M,
    ...parameters: Parameters<WriterCalls[M]>
  ): Promise<ReturnType<WriterCalls[M]>>;
  /**
   * Takes a copy of a page to be written; where that fails, the next call or `ready` throws the error. At most 1 MiB of
   * pages (or one page) between two calls of `ready`.
   */
  writePage(page: number, bytes: Uint8Array): void;
  /** Resolves when there is room for more pages. */
  ready(): Promise<void>;
  /** A page as the transaction sees it, with all pages written before. */
  readPage(page: number): Uint8Array;
  /** Gives back what the writer took, after a `close` that was called or could not be. Never throws. */
  end(): Promise<void>;
}

/** The writer in this thread: for few pages, which are written before a thread has started. */
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
