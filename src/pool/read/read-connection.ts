import { SqlsyncError } from '../../errors.ts';
import { openReadConnection } from '../../sqlite/pool-connection.ts';
import type { PoolConnection, PoolStatement } from '../../sqlite/pool-connection.ts';
import { copyParams } from '../sql/copied-params.ts';
import { isTurnOver, nextTurn, settle } from '../event-loop.ts';
import { abortedError } from '../pool-errors.ts';
import { ReadArrayStatements, ReadStatements } from './read-only.ts';
import { allRows, firstRow, iterateRows } from '../sql/statements.ts';
import type { UserFunctions } from '../sql/user-functions.ts';
import type { ReadConnection, SqlParams, SqlRow, SqlValue } from '../types.ts';

/** The first read of a transaction decides what it sees; an empty schema works too. */
const FIRST_READ = 'SELECT 1 FROM sqlite_schema LIMIT 1';

export interface ReaderOptions {
  readonly safeIntegers: boolean;
  readonly statementCacheSize: number;
  /** How long SQLite may block this thread while another process recovers the WAL. */
  readonly timeoutMs: number;
}

/** A connection that only reads. Everything here runs at once, and throws READ_ONLY or SQLite's errors. */
export class Reader {
  readonly #connection: PoolConnection;
  readonly #statements: ReadStatements;
  readonly #arrayStatements: ReadArrayStatements;
  readonly #begin: PoolStatement;
  readonly #firstRead: PoolStatement;
  readonly #end: PoolStatement;
  readonly #iterations = new Set<IterableIterator<unknown>>();

  /**
   * @param path Absolute. The file must exist.
   * @param functions Those of the application; a worker thread has none.
   */
  constructor(path: string, options: ReaderOptions, functions?: UserFunctions) {
    this.#connection = openReadConnection(path, options);
    const prepare = (sql: string): PoolStatement => this.#connection.prepare(sql);
    this.#statements = new ReadStatements(prepare, options.statementCacheSize);
    this.#arrayStatements = new ReadArrayStatements(prepare, options.statementCacheSize);
    try {
      functions?.adopt(this.#connection);
      this.#begin = this.#connection.prepare('BEGIN');
      // Reads the schema, and so is busy while another process recovers the WAL.
      this.#firstRead = this.#connection.prepare(FIRST_READ);
      this.#end = this.#connection.prepare('ROLLBACK');
    } catch (error) {
      this.#connection.close();
      throw error;
    }
  }

  all(sql: string, params: SqlParams | undefined): unknown[] {
    return allRows(this.#statements.get(sql), params);
  }

  get(sql: string, params: SqlParams | undefined): unknown {
    return firstRow(this.#statements.get(sql), params);
  }

  /** All rows as arrays of their columns. */
  values(sql: string, params: SqlParams | undefined): unknown[] {
    return allRows(this.#arrayStatements.get(sql), params);
  }

  iterateValues(sql: string, params: SqlParams | undefined): IterableIterator<unknown> {
    return this.#started(iterateRows(this.#arrayStatements.get(sql), params));
  }

  /** The only query of this connection until it ends. The caller must pass it to {@link stop} in any case. */
  iterate(sql: string, params: SqlParams | undefined): IterableIterator<unknown> {
    return this.#started(iterateRows(this.#statements.get(sql), params));
  }

  /**
   * One of several iterations. It has its own statement, because the same text may be run again while this one is half
   * read.
   */
  iterateBeside(sql: string, params: SqlParams | undefined): IterableIterator<unknown> {
    return this.#started(iterateRows(this.#statements.prepareFresh(sql), params));
  }

  stop(rows: IterableIterator<unknown>): void {
    if (this.#iterations.delete(rows)) rows.return?.();
  }

  /** Begins a transaction and fixes what it sees. */
  begin(): void {
    this.#begin.run();
    try {
      this.#firstRead.get();
    } catch (error) {
      this.end();
      throw error;
    }
  }

  /** Ends any transaction and any half read result. */
  end(): void {
    for (const rows of this.#iterations) this.stop(rows);
    if (this.#connection.inTransaction) this.#end.run();
  }

  close(): void {
    this.end();
    this.#connection.close();
  }

  #started(rows: IterableIterator<unknown>): IterableIterator<unknown> {
    this.#iterations.add(rows);
    return rows;
  }
}

/** Rows of an iteration that has been stepped to `result`. Tells the reader when the loop ends, however it ends. */
export async function* remainingRows<Row>(
  reader: Reader,
  rows: IterableIterator<unknown>,
  first: IteratorResult<unknown>,
  check: () => void,
): AsyncGenerator<Row, void, undefined> {
  try {
    for (let result = first; result.done !== true; result = rows.next()) {
      yield result.value as Row;
      check();
      if (isTurnOver(performance.now())) {
        await nextTurn();
        check();
      }
    }
  } finally {
    reader.stop(rows);
  }
}

/** The `r` of a snapshot: one connection within one transaction, until {@link end}. */
export class Snapshot implements ReadConnection {
  readonly #reader: Reader;
  readonly #signal: AbortSignal | undefined;
  #isOpen = true;
  readonly #check = (): void => {
    if (!this.#isOpen) {
      throw new SqlsyncError('TX_ENDED', 'a query of a snapshot that has ended', {
        hint: 'Await everything that uses `r` within the function that received it.',
      });
    }
    if (this.#signal?.aborted === true) throw abortedError(this.#signal, 'read');
  };

  /** @param reader In a transaction. */
  constructor(reader: Reader, signal: AbortSignal | undefined) {
    this.#reader = reader;
    this.#signal = signal;
  }

  end(): void {
    this.#isOpen = false;
  }

  all<Row = SqlRow>(sql: string, params?: SqlParams): Promise<Row[]> {
    try {
      this.#check();
      return settle(this.#reader.all(sql, params) as Row[]);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  get<Row = SqlRow>(sql: string, params?: SqlParams): Promise<Row | undefined> {
    try {
      this.#check();
      return settle(this.#reader.get(sql, params) as Row | undefined);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  values(sql: string, params?: SqlParams): Promise<SqlValue[][]> {
    try {
      this.#check();
      return settle(this.#reader.values(sql, params) as SqlValue[][]);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  iterate<Row = SqlRow>(sql: string, params?: SqlParams): AsyncGenerator<Row, void, undefined> {
    return this.#iterate(sql, copyParams(params));
  }

  async *#iterate<Row>(sql: string, params: SqlParams | undefined): AsyncGenerator<Row, void, undefined> {
    this.#check();
    const rows = this.#reader.iterateBeside(sql, params);
    yield* remainingRows<Row>(this.#reader, rows, firstStep(this.#reader, rows), this.#check);
  }
}

/** The first row. If the step fails, the iteration is over. */
export function firstStep(reader: Reader, rows: IterableIterator<unknown>): IteratorResult<unknown> {
  try {
    return rows.next();
  } catch (error) {
    reader.stop(rows);
    throw error;
  }
}
