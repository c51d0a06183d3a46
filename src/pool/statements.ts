import { SqlsyncError } from '../errors.ts';
import type { PoolConnection, PoolStatement } from '../sqlite/pool-connection.ts';
import { shown } from './call-options.ts';
import { checkParams } from './parameters.ts';
import { leadingKeywords, pragmaValues } from './sql-keywords.ts';
import type { SqlParams } from './types.ts';

const TRANSACTION_CONTROL = new Set(['BEGIN', 'COMMIT', 'END', 'ROLLBACK', 'SAVEPOINT', 'RELEASE']);

/** What the pools set, with the values that change nothing. */
const POOL_PRAGMAS: ReadonlyMap<string, readonly string[]> = new Map([
  ['busy_timeout', ['0']],
  ['foreign_keys', ['on', '1', 'true', 'yes']],
  ['journal_mode', ['wal']],
  ['locking_mode', ['normal']],
  ['query_only', ['off', '0', 'false', 'no']],
]);

const PRAGMA_HINTS: Readonly<Record<string, string>> = {
  busy_timeout: 'How long a write waits is a matter of busyTimeoutMs and deadlineMs.',
  foreign_keys:
    'PRAGMA defer_foreign_keys = ON puts the checks off to the end of a transaction; a migration that needs them off ' +
    'runs before openDatabase.',
};

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
  /** The names of its parameters, once they were asked for. */
  parameters: Set<string> | undefined;
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
    requireText(sql);
    const keyword = leadingKeywords(sql)[0] ?? '';
    if (TRANSACTION_CONTROL.has(keyword)) throw transactionControl(keyword);
    refusePoolPragmas(sql);
    const statement = this.#connection.prepare(sql);
    return {
      sql,
      statement,
      keyword,
      returnsRows: statement.reader,
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

/** The same, with rows as arrays of their columns. */
export class ArrayStatements extends StatementCache {
  override prepareFresh(sql: string): CachedStatement {
    const prepared = super.prepareFresh(sql);
    if (prepared.returnsRows) prepared.statement.raw(true);
    return prepared;
  }
}

/** Throws USAGE for what is no text. */
export function requireText(sql: unknown): asserts sql is string {
  if (typeof sql === 'string') return;
  throw new SqlsyncError('USAGE', `the statement is ${shown(sql)}; expected a string of SQL`);
}

/** Throws TRANSACTION_CONTROL where one of the statements of `sql` begins or ends a transaction or savepoint. */
export function refuseTransactionControl(sql: string): void {
  const keyword = leadingKeywords(sql).find((word) => TRANSACTION_CONTROL.has(word));
  if (keyword !== undefined) throw transactionControl(keyword);
}

/**
 * Throws USAGE for PRAGMAs that would take from the pools what they promise: a busy timeout blocks the event loop,
 * without WAL or with an exclusive lock readers wait for writers, and what one write sets holds for all later ones.
 */
export function refusePoolPragmas(sql: string): void {
  if (!/pragma/i.test(sql)) return;
  for (const { name, value } of pragmaValues(sql)) {
    if (POOL_PRAGMAS.get(name)?.includes(value) !== false) continue;
    throw new SqlsyncError('USAGE', `PRAGMA ${name} = ${value} as SQL, where only openDatabase sets it`, {
      hint: PRAGMA_HINTS[name] ?? 'Leave it as it is: the pools rely on it.',
    });
  }
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
