import { SqlsyncError } from '../errors.ts';
import type { PoolConnection, PoolStatement } from '../sqlite/pool-connection.ts';
import { leadingKeywords } from './sql-keywords.ts';
import type { SqlParams } from './types.ts';

const TRANSACTION_CONTROL = new Set(['BEGIN', 'COMMIT', 'END', 'ROLLBACK', 'SAVEPOINT', 'RELEASE']);

/** A prepared statement, with what decides how it may be used. */
export interface CachedStatement {
  readonly sql: string;
  readonly statement: PoolStatement;
  /** Its first keyword, in capitals. */
  readonly keyword: string;
  readonly returnsRows: boolean;
  /** SQLite's word that it does not change the database file. Some PRAGMAs and ATTACH are so too: see `keyword`. */
  readonly readonly: boolean;
  /** Used since the last time that room was needed. */
  wasUsed: boolean;
}

/**
 * The prepared statements of one connection, by their text; the least used go when there are too many.
 * Refuses texts that control transactions with TRANSACTION_CONTROL: the pools begin and end them.
 */
export class StatementCache {
  readonly #connection: PoolConnection;
  readonly #capacity: number;
  readonly #statements = new Map<string, CachedStatement>();

  constructor(connection: PoolConnection, capacity: number) {
    this.#connection = connection;
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#statements.size;
  }

  get(sql: string): CachedStatement {
    const cached = this.#statements.get(sql);
    if (cached === undefined) return this.#add(sql);
    cached.wasUsed = true;
    return cached;
  }

  /** A statement of its own, for an iteration: a cached one could be asked again while it is half read. */
  prepareFresh(sql: string): CachedStatement {
    const keyword = leadingKeywords(sql)[0] ?? '';
    if (TRANSACTION_CONTROL.has(keyword)) throw transactionControl(keyword);
    const statement = this.#connection.prepare(sql);
    return {
      sql,
      statement,
      keyword,
      returnsRows: statement.reader,
      readonly: statement.readonly,
      wasUsed: false,
    };
  }

  #add(sql: string): CachedStatement {
    const added = this.prepareFresh(sql);
    if (this.#statements.size >= this.#capacity) this.#makeRoom();
    this.#statements.set(sql, added);
    return added;
  }

  /** The oldest that was not used since the last round; those that were get another one. */
  #makeRoom(): void {
    for (const [sql, cached] of this.#statements) {
      this.#statements.delete(sql);
      if (!cached.wasUsed) return;
      cached.wasUsed = false;
      this.#statements.set(sql, cached);
    }
  }
}

/** Throws TRANSACTION_CONTROL where one of the statements of `sql` begins or ends a transaction or savepoint. */
export function refuseTransactionControl(sql: string): void {
  const keyword = leadingKeywords(sql).find((word) => TRANSACTION_CONTROL.has(word));
  if (keyword !== undefined) throw transactionControl(keyword);
}

function transactionControl(keyword: string): SqlsyncError {
  return new SqlsyncError(
    'TRANSACTION_CONTROL',
    `${keyword} as SQL, where only the pool begins and ends transactions`,
    {
      hint: 'Use write.transaction(fn) and tx.savepoint(fn).',
    },
  );
}

// Statements without parameters are called without an argument: better-sqlite3 refuses an empty one for `:name`.
export function runStatement(
  statement: PoolStatement,
  params: SqlParams | undefined,
): ReturnType<PoolStatement['run']> {
  return params === undefined ? statement.run() : statement.run(params);
}

export function allRows(statement: PoolStatement, params: SqlParams | undefined): unknown[] {
  return params === undefined ? statement.all() : statement.all(params);
}

export function firstRow(statement: PoolStatement, params: SqlParams | undefined): unknown {
  return params === undefined ? statement.get() : statement.get(params);
}

export function iterateRows(
  statement: PoolStatement,
  params: SqlParams | undefined,
): IterableIterator<unknown> {
  return params === undefined ? statement.iterate() : statement.iterate(params);
}
