import { SqlsyncError } from '../../errors.ts';
import type { PoolStatement } from '../../sqlite/pool-connection.ts';
import { valueInWords } from '../call-options.ts';
import { checkParams } from './parameters.ts';
import type { Parameterized } from './parameters.ts';
import { refusePoolPragmas } from './pool-pragmas.ts';
import { leadingKeywords } from './sql-keywords.ts';
import type { SqlParams } from '../types.ts';

const TRANSACTION_CONTROL = new Set(['BEGIN', 'COMMIT', 'END', 'ROLLBACK', 'SAVEPOINT', 'RELEASE']);

/** A prepared statement, with the facts that decide how it may be used. */
export interface CachedStatement extends Parameterized {
  readonly statement: PoolStatement;
  /** Its first keyword, in capitals. */
  readonly keyword: string;
  readonly returnsRows: boolean;
  /** True if it sets something of its connection when it runs: a PRAGMA that SQLite does not call read-only. */
  readonly setsPragma: boolean;
  /** SQLite's statement that it does not change the database file. Some PRAGMAs and ATTACH count too: see `keyword`. */
  readonly readonly: boolean;
  /** Used since the last eviction. */
  wasUsed: boolean;
}

export type Prepare = (sql: string) => PoolStatement;

/**
 * The prepared statements of one connection, by their text; evicts the least used when there are too many. Refuses
 * texts that control transactions with TRANSACTION_CONTROL: only the pools begin and end them.
 */
export class StatementCache {
  readonly #prepare: Prepare;
  readonly #capacity: number;
  readonly #statements = new Map<string, CachedStatement>();

  constructor(prepare: Prepare, capacity: number) {
    this.#prepare = prepare;
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

  /** A new statement for an iteration: a cached one could be run again while it is half read. */
  prepareFresh(sql: string): CachedStatement {
    requireText(sql);
    const keyword = leadingKeywords(sql)[0] ?? '';
    if (TRANSACTION_CONTROL.has(keyword)) throw transactionControl(keyword);
    refusePoolPragmas(sql);
    const statement = this.#prepare(sql);
    return {
      sql,
      statement,
      keyword,
      returnsRows: statement.reader,
      setsPragma: !statement.readonly && keyword === 'PRAGMA',
      readonly: statement.readonly,
      wasUsed: false,
      parameters: undefined,
    };
  }

  #add(sql: string): CachedStatement {
    const added = this.prepareFresh(sql);
    if (this.#statements.size >= this.#capacity) this.#makeRoom();
    this.#statements.set(sql, added);
    return added;
  }

  /** Evicts the oldest statement that was not used since the last round; used ones stay for another round. */
  #makeRoom(): void {
    for (const [sql, cached] of this.#statements) {
      this.#statements.delete(sql);
      if (!cached.wasUsed) return;
      cached.wasUsed = false;
      this.#statements.set(sql, cached);
    }
  }
}

/** As {@link StatementCache}, with rows as arrays of their columns. */
export class ArrayStatements extends StatementCache {
  override prepareFresh(sql: string): CachedStatement {
    const prepared = super.prepareFresh(sql);
    if (prepared.returnsRows) prepared.statement.raw(true);
    return prepared;
  }
}

/** Throws USAGE for anything but a string. */
export function requireText(sql: unknown): asserts sql is string {
  if (typeof sql === 'string') return;
  throw new SqlsyncError('USAGE', `the statement is ${valueInWords(sql)}; expected a string of SQL`);
}

/** Throws TRANSACTION_CONTROL if a statement of `sql` begins or ends a transaction or savepoint. */
export function refuseTransactionControl(sql: string): void {
  const keyword = leadingKeywords(sql).find((word) => TRANSACTION_CONTROL.has(word));
  if (keyword !== undefined) throw transactionControl(keyword);
}

/** The error for SQL that begins or ends a transaction. */
export function transactionControl(keyword: string): SqlsyncError {
  return new SqlsyncError(
    'TRANSACTION_CONTROL',
    `${keyword} as SQL; only the pool begins and ends transactions`,
    {
      hint: 'Use write.transaction(fn) and tx.savepoint(fn).',
    },
  );
}

// Calls statements without parameters without an argument: better-sqlite3 refuses an empty one for `:name`.
export function runStatement(
  cached: CachedStatement,
  params: SqlParams | undefined,
): ReturnType<PoolStatement['run']> {
  if (params === undefined) return cached.statement.run();
  checkParams(cached, params);
  return cached.statement.run(params);
}

export function allRows(cached: CachedStatement, params: SqlParams | undefined): unknown[] {
  if (params === undefined) return cached.statement.all();
  checkParams(cached, params);
  return cached.statement.all(params);
}

export function firstRow(cached: CachedStatement, params: SqlParams | undefined): unknown {
  if (params === undefined) return cached.statement.get();
  checkParams(cached, params);
  return cached.statement.get(params);
}

export function iterateRows(
  cached: CachedStatement,
  params: SqlParams | undefined,
): IterableIterator<unknown> {
  if (params === undefined) return cached.statement.iterate();
  checkParams(cached, params);
  return cached.statement.iterate(params);
}
