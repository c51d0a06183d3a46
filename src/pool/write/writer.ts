import type { PoolConnection, PoolStatement } from '../../sqlite/pool-connection.ts';
import { keepPoolPragmas, mayChangePragmas, refusePoolPragmas } from '../sql/pool-pragmas.ts';
import { PATIENT_ATTEMPT_MS } from '../retry.ts';
import type { CachedStatement } from '../sql/statements.ts';
import {
  ArrayStatements,
  StatementCache,
  allRows,
  firstRow,
  iterateRows,
  refuseTransactionControl,
  requireText,
  runStatement,
  transactionControl,
} from '../sql/statements.ts';
import type { QueryResult, RunResult, SqlParams } from '../types.ts';

const CHANGES = 'SELECT changes() AS changes, last_insert_rowid() AS lastInsertRowid';

type ChangesRow = Readonly<Record<keyof RunResult, number | bigint>>;

/** A result that is being read, as its connection sees it. */
export interface RowSource {
  /** Reads the rest into memory, so that the connection is free. */
  readToEnd(): void;
  /** Drops the rest. */
  stop(): void;
}

/**
 * The connection that writes, one statement after the other. Everything here runs at once and throws SQLite's errors.
 *
 * SQLite can read a result while the same connection writes, but better-sqlite3 cannot: a half read result is read to
 * its end, into memory, before the next statement that writes.
 */
export class Writer {
  readonly #connection: PoolConnection;
  readonly #statements: StatementCache;
  readonly #arrayStatements: ArrayStatements;
  readonly #begin: PoolStatement;
  readonly #commit: PoolStatement;
  readonly #rollback: PoolStatement;
  readonly #reading = new Set<RowSource>();

  /** @param begin The statement that begins a transaction. */
  constructor(connection: PoolConnection, statementCacheSize: number, begin: string) {
    this.#connection = connection;
    const prepare = (sql: string): PoolStatement => this.#keepingPragmas(sql, () => connection.prepare(sql));
    this.#statements = new StatementCache(prepare, statementCacheSize);
    this.#arrayStatements = new ArrayStatements(prepare, statementCacheSize);
    this.#begin = connection.prepare(begin);
    this.#commit = connection.prepare('COMMIT');
    this.#rollback = connection.prepare('ROLLBACK');
  }

  get inTransaction(): boolean {
    return this.#connection.inTransaction;
  }

  begin(): void {
    if (this.#reading.size > 0) this.#finishReading();
    this.#begin.run();
  }

  /** May be busy; the transaction is then still open. */
  commit(): void {
    if (this.#reading.size > 0) this.#stopReading();
    this.#commit.run();
  }

  /** Leaves no transaction open, even if SQLite already rolled back by itself. */
  rollback(): void {
    if (this.#reading.size > 0) this.#stopReading();
    if (this.#connection.inTransaction) this.#rollback.run();
  }

  run(sql: string, params: SqlParams | undefined): RunResult {
    if (this.#reading.size > 0) this.#finishReading();
    const cached = this.#statements.get(sql);
    if (cached.setsPragma) return keepPoolPragmas(this.#connection, () => runStatement(cached, params));
    return runStatement(cached, params);
  }

  all(sql: string, params: SqlParams | undefined): unknown[] {
    return this.#rows(this.#ready(sql), params);
  }

  get(sql: string, params: SqlParams | undefined): unknown {
    const cached = this.#ready(sql);
    if (cached.setsPragma) return keepPoolPragmas(this.#connection, () => firstRow(cached, params));
    return firstRow(cached, params);
  }

  /** Rows as arrays of their columns; empty if the statement returns none. */
  values(sql: string, params: SqlParams | undefined): unknown[] {
    const cached = this.#arrayStatements.get(sql);
    if (!cached.readonly || !cached.returnsRows) this.#finishReading();
    if (cached.returnsRows) return this.#rows(cached, params);
    runStatement(cached, params);
    return [];
  }

  execute(sql: string, params: SqlParams | undefined): QueryResult<unknown> {
    const cached = this.#ready(sql);
    if (!cached.returnsRows) return { rows: [], ...this.run(sql, params) };
    const rows = this.#rows(cached, params);
    if (cached.readonly) return { rows, changes: 0, lastInsertRowid: 0 };
    const { changes, lastInsertRowid } = this.get(CHANGES, undefined) as ChangesRow;
    // With `safeIntegers` it is a bigint here, but never in the result of run().
    return { rows, changes: Number(changes), lastInsertRowid };
  }

  /** Refuses texts that begin or end transactions or change the pools' settings, before it runs any of them. */
  exec(sql: string): void {
    requireText(sql);
    refuseTransactionControl(sql);
    refusePoolPragmas(sql);
    this.#finishReading();
    const { inTransaction } = this.#connection;
    this.#keepingPragmas(sql, () => this.#connection.exec(sql));
    if (this.#connection.inTransaction !== inTransaction) throw transactionControl('a statement');
  }

  /** For SAVEPOINT, RELEASE and ROLLBACK TO, which texts of the application may not contain. */
  control(sql: string): void {
    this.#finishReading();
    this.#connection.exec(sql);
  }

  iterate(sql: string, params: SqlParams | undefined): IterableIterator<unknown> {
    const fresh = this.#statements.prepareFresh(sql);
    if (!fresh.readonly) this.#finishReading();
    // A half read statement that writes would keep its transaction open.
    const isWhole = fresh.setsPragma || (!fresh.readonly && !this.#connection.inTransaction);
    return isWhole ? this.#rows(fresh, params).values() : iterateRows(fresh, params);
  }

  startReading(source: RowSource): void {
    this.#reading.add(source);
  }

  endReading(source: RowSource): void {
    this.#reading.delete(source);
  }

  /** Drops a half read result. */
  stopReading(): void {
    if (this.#reading.size > 0) this.#stopReading();
  }

  /** Runs `attempt` so that it waits briefly for SQLite's lock, blocking this thread. */
  patiently<T>(attempt: () => T): T {
    this.#connection.pragma(`busy_timeout = ${PATIENT_ATTEMPT_MS}`);
    try {
      return attempt();
    } finally {
      this.#connection.pragma('busy_timeout = 0');
    }
  }

  /** Empties the WAL file without waiting. Returns false if a connection reads or writes. */
  truncateWal(): boolean {
    return this.#connection.pragma('wal_checkpoint(TRUNCATE)', { simple: true }) === 0;
  }

  close(): void {
    this.#stopReading();
    this.#connection.close();
  }

  #rows(cached: CachedStatement, params: SqlParams | undefined): unknown[] {
    if (!cached.setsPragma) return allRows(cached, params);
    return keepPoolPragmas(this.#connection, () => allRows(cached, params));
  }

  #keepingPragmas<T>(sql: string, act: () => T): T {
    if (!mayChangePragmas(sql)) return act();
    // better-sqlite3 refuses to ask SQLite for its settings while a result is half read.
    this.#finishReading();
    return keepPoolPragmas(this.#connection, act);
  }

  #ready(sql: string): CachedStatement {
    const cached = this.#statements.get(sql);
    if (this.#reading.size > 0 && !cached.readonly) this.#finishReading();
    return cached;
  }

  #finishReading(): void {
    for (const source of this.#reading) source.readToEnd();
    this.#reading.clear();
  }

  #stopReading(): void {
    for (const source of this.#reading) source.stop();
    this.#reading.clear();
  }
}
