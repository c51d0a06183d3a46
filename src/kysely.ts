/**
 * A Kysely dialect on the pools: `new Kysely<Schema>({ dialect: new SqlsyncDialect({ database: db }) })`.
 * Kysely is an optional peer of sqlsync.
 */
import type {
  CompiledQuery,
  DatabaseConnection,
  DatabaseIntrospector,
  Dialect,
  DialectAdapter,
  Driver,
  Kysely,
  QueryCompiler,
  QueryResult,
  TransactionSettings,
} from 'kysely';
import { SelectQueryNode, SqliteAdapter, SqliteIntrospector, SqliteQueryCompiler } from 'kysely';
import { SqlsyncError } from './errors.ts';
import { copyValue } from './pool/sql/copied-params.ts';
import { isReaderQuery, needsWriter } from './pool/sql/reader-query.ts';
import type {
  Database,
  MaybePromise,
  ReadConnection,
  SqlParams,
  WriteConnection,
  WriteTransaction,
} from './pool/types.ts';
import { isBusy } from './sqlite/busy.ts';

export interface SqlsyncDialectConfig {
  /** Stays open when Kysely is destroyed: its opener closes it. */
  readonly database: Database;
  /** Names Kysely's work in `database.stats()` and in errors. Default: 'kysely'. */
  readonly label?: string;
}

/**
 * SELECTs run on the read pool, and everything else on the write pool. A connection of Kysely (`k.connection()`) holds
 * the pool's connection from its first statement that is not a SELECT until it is released, so that it finds its
 * `last_insert_rowid()`, its temp tables and what its PRAGMAs set; all other writes wait meanwhile. A transaction holds
 * it from its begin; one with access mode 'read only' is a snapshot of the read pool.
 *
 * Kysely's driver cannot run Kysely's callback again. If SQLite refuses a statement within a transaction as busy (not
 * its begin, which waits), it rejects with BUSY_TIMEOUT, and the application runs the transaction again. Within a
 * transaction or a connection write with its `trx` or `db` only: another write waits for it, until BUSY_TIMEOUT.
 */
export class SqlsyncDialect implements Dialect {
  readonly #config: Required<SqlsyncDialectConfig>;

  constructor(config: SqlsyncDialectConfig) {
    this.#config = { label: 'kysely', ...config };
  }

  createAdapter(): DialectAdapter {
    return new PooledSqliteAdapter();
  }

  createDriver(): Driver {
    return new PoolDriver(this.#config);
  }

  createIntrospector(db: Kysely<unknown>): DatabaseIntrospector {
    return new SqliteIntrospector(db);
  }

  createQueryCompiler(): QueryCompiler {
    return new CopyingQueryCompiler();
  }
}

/**
 * Kysely compiles a query when it is executed, and only then asks for a connection: when the pools are called, the
 * caller may have refilled the same buffer.
 */
class CopyingQueryCompiler extends SqliteQueryCompiler {
  protected override addParameter(parameter: unknown): void {
    super.addParameter(copyValue(parameter));
  }
}

class PooledSqliteAdapter extends SqliteAdapter {
  /** Otherwise Kysely would run one query or transaction at a time, even readers. */
  override get supportsMultipleConnections(): boolean {
    return true;
  }
}

/**
 * Makes a session for each connection that Kysely requests; Kysely does not say whether it is for one query or for
 * several.
 */
class PoolDriver implements Driver {
  readonly #config: Required<SqlsyncDialectConfig>;

  constructor(config: Required<SqlsyncDialectConfig>) {
    this.#config = config;
  }

  init(): Promise<void> {
    return Promise.resolve();
  }

  acquireConnection(): Promise<DatabaseConnection> {
    return Promise.resolve(new PoolSession(this.#config));
  }

  beginTransaction(connection: DatabaseConnection, settings: TransactionSettings): Promise<void> {
    return (connection as PoolSession).begin(settings.accessMode === 'read only');
  }

  commitTransaction(connection: DatabaseConnection): Promise<void> {
    return (connection as PoolSession).end('commit');
  }

  rollbackTransaction(connection: DatabaseConnection): Promise<void> {
    return (connection as PoolSession).end('rollback');
  }

  savepoint(connection: DatabaseConnection, name: string): Promise<void> {
    return (connection as PoolSession).savepoint(name);
  }

  async rollbackToSavepoint(connection: DatabaseConnection, name: string): Promise<void> {
    await (connection as PoolSession).endSavepoint(name, 'rollback');
    // As in SQL: the savepoint still exists, to be released or rolled back to again.
    await (connection as PoolSession).savepoint(name);
  }

  releaseSavepoint(connection: DatabaseConnection, name: string): Promise<void> {
    return (connection as PoolSession).endSavepoint(name, 'commit');
  }

  releaseConnection(connection: DatabaseConnection): Promise<void> {
    return (connection as PoolSession).release();
  }

  destroy(): Promise<void> {
    return Promise.resolve();
  }
}

type End = 'commit' | 'rollback';

/** An open transaction, snapshot or savepoint, or the held connection. */
interface Level<Connection = ReadConnection | WriteTransaction> {
  readonly name: string;
  readonly connection: Connection;
  end(how: End): Promise<void>;
}

/** Kysely's signal, in the versions that have one. */
interface Abortable {
  readonly signal?: AbortSignal;
}

/**
 * A connection as Kysely sees it. It holds nothing until its first statement that is not a SELECT: that may be the only
 * one, and the release that follows gives the pool's connection back at once.
 */
class PoolSession implements DatabaseConnection {
  readonly #config: Required<SqlsyncDialectConfig>;
  /** The transaction and its savepoints, the innermost last. */
  readonly #levels: Level[] = [];
  #held: Level<WriteConnection> | undefined;

  constructor(config: Required<SqlsyncDialectConfig>) {
    this.#config = config;
  }

  async executeQuery<Row>(query: CompiledQuery, options?: Abortable): Promise<QueryResult<Row>> {
    const { database, label } = this.#config;
    const params = query.parameters as SqlParams;
    const level = this.#levels.at(-1);
    if (level !== undefined) return executeWithin<Row>(level.connection, query.sql, params);
    const wait = { label, signal: options?.signal };
    if (this.#held === undefined && isSelect(query)) {
      return { rows: await database.read.all<Row>(query.sql, params, wait) };
    }
    const { connection } = await this.#hold(options?.signal);
    return written(await connection.execute<Row>(query.sql, params, wait));
  }

  async *streamQuery<Row>(
    query: CompiledQuery,
    chunkSize: number,
    options?: Abortable,
  ): AsyncGenerator<QueryResult<Row>, void, undefined> {
    if (!SelectQueryNode.is(query.query) && !isReaderQuery(query.sql)) {
      throw new SqlsyncError('USAGE', 'a stream of a query that is not a SELECT', {
        hint: 'Use execute() for RETURNING.',
      });
    }
    const { database, label } = this.#config;
    if (needsWriter(query.sql)) await this.#hold(options?.signal);
    const source = this.#levels.at(-1)?.connection ?? this.#held?.connection ?? database.read;
    const wait = { label, signal: options?.signal };
    let rows: Row[] = [];
    for await (const row of source.iterate<Row>(query.sql, query.parameters as SqlParams, wait)) {
      rows.push(row);
      if (rows.length < chunkSize) continue;
      yield { rows };
      rows = [];
    }
    if (rows.length > 0) yield { rows };
  }

  async begin(isReadOnly: boolean): Promise<void> {
    const { database, label } = this.#config;
    if (isReadOnly) {
      this.#levels.push(await hold('', (fn) => database.read.snapshot(fn, { label })));
      return;
    }
    const { connection } = await this.#hold(undefined);
    this.#levels.push(await hold('', (fn) => connection.transaction(fn)));
  }

  async release(): Promise<void> {
    try {
      await this.end('rollback');
    } finally {
      const held = this.#held;
      this.#held = undefined;
      await held?.end('commit');
    }
  }

  /** The pool's connection, until the release. `signal` only ends the wait for it. */
  async #hold(signal: AbortSignal | undefined): Promise<Level<WriteConnection>> {
    if (this.#held !== undefined) return this.#held;
    const { database, label } = this.#config;
    const waiting = new AbortController();
    const abort = (): void => waiting.abort(signal?.reason);
    if (signal?.aborted === true) abort();
    signal?.addEventListener('abort', abort);
    try {
      const options = { label, signal: waiting.signal };
      return (this.#held = await hold('', (fn) => database.write.connection(fn, options)));
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /** Ends the transaction with all its savepoints. */
  async end(how: End): Promise<void> {
    while (this.#levels.length > 0) await this.#levels.pop()?.end(how);
  }

  async savepoint(name: string): Promise<void> {
    const outer = this.#levels.at(-1)?.connection;
    if (outer === undefined || !('savepoint' in outer)) {
      throw new SqlsyncError('USAGE', `savepoint ${name} where no transaction that writes is open`);
    }
    this.#levels.push(await hold(name, (fn) => outer.savepoint(fn)));
  }

  /** Ends the latest savepoint with this name, and all within it. */
  async endSavepoint(name: string, how: End): Promise<void> {
    const index = this.#levels.findLastIndex((level) => level.name === name);
    if (index < 1) throw new SqlsyncError('USAGE', `savepoint ${name}, which is not open`);
    while (this.#levels.length > index) await this.#levels.pop()?.end(how);
  }
}

const ROLLED_BACK = Object.assign(new Error('rolled back as asked'), { code: 'ROLLED_BACK' });

/**
 * Opens a transaction whose function waits until it is asked to end: Kysely begins and ends a transaction with calls,
 * the pools with a function.
 *
 *     Kysely   begin ─► … statements …                 end(commit) ─►
 *     pool          └─ fn(tx) ── waits for the end ──────────────┴─► COMMIT
 */
function hold<Connection>(
  name: string,
  open: (fn: (connection: Connection) => MaybePromise<void>) => Promise<void>,
): Promise<Level<Connection>> {
  return new Promise<Level<Connection>>((begun, failed) => {
    let hasBegun = false;
    const ended = open((connection) => {
      // It was refused as busy in the middle, and Kysely's callback cannot run again.
      if (hasBegun) throw refusedWithin();
      hasBegun = true;
      return new Promise<void>((commit, rollback) => {
        const end = (how: End): Promise<void> => {
          if (how === 'commit') commit();
          else rollback(ROLLED_BACK);
          return how === 'commit' ? ended : ended.catch(ignoreRollback);
        };
        begun({ name, connection, end });
      });
    });
    // Once it has begun, this changes nothing: end() reports the error.
    ended.catch(failed);
  });
}

function ignoreRollback(error: unknown): void {
  const wasRefused = error instanceof SqlsyncError && error.code === 'BUSY_TIMEOUT';
  if (error !== ROLLED_BACK && !wasRefused) throw error;
}

async function executeWithin<Row>(
  connection: ReadConnection | WriteTransaction,
  sql: string,
  params: SqlParams,
): Promise<QueryResult<Row>> {
  if (!('execute' in connection)) return { rows: await connection.all<Row>(sql, params) };
  try {
    return written(await connection.execute<Row>(sql, params));
  } catch (error) {
    throw isBusy(error) ? refusedWithin(error) : error;
  }
}

function refusedWithin(cause?: unknown): SqlsyncError {
  return new SqlsyncError('BUSY_TIMEOUT', 'a statement within a transaction was refused as busy', {
    hint: 'Roll the transaction back and run it again.',
    cause,
  });
}

function written<Row>(result: Awaited<ReturnType<WriteTransaction['execute']>>): QueryResult<Row> {
  return {
    rows: result.rows as Row[],
    numAffectedRows: BigInt(result.changes),
    insertId: BigInt(result.lastInsertRowid),
  };
}

/** Raw SQL has no node that says it. */
function isSelect(query: CompiledQuery): boolean {
  return SelectQueryNode.is(query.query) ? !needsWriter(query.sql) : isReaderQuery(query.sql);
}
