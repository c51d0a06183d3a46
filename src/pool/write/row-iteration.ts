import type { RowSource, Writer } from './writer.ts';
import type { SqlParams } from '../types.ts';

/** Rows of a statement of a transaction, one at a time. `check` throws once the transaction is no longer usable. */
export class RowIteration<Row> implements AsyncIterableIterator<Row>, RowSource {
  readonly #writer: Writer;
  readonly #check: () => void;
  #rows: Iterator<unknown>;

  constructor(writer: Writer, sql: string, params: SqlParams | undefined, check: () => void) {
    this.#writer = writer;
    this.#check = check;
    this.#rows = writer.iterate(sql, params);
    writer.startReading(this);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  // Async, so that an error rejects.
  async next(): Promise<IteratorResult<Row>> {
    this.#check();
    const result = this.#rows.next();
    if (result.done === true) this.#writer.endReading(this);
    return result as IteratorResult<Row>;
  }

  return(): Promise<IteratorResult<Row>> {
    this.stop();
    this.#writer.endReading(this);
    return Promise.resolve({ done: true, value: undefined });
  }

  readToEnd(): void {
    const rest: unknown[] = [];
    for (let result = this.#rows.next(); result.done !== true; result = this.#rows.next()) {
      rest.push(result.value);
    }
    this.#rows = rest.values();
  }

  stop(): void {
    this.#rows.return?.();
  }
}
