import type { Facts } from '../doctor/facts.ts';
import type { Finding } from '../doctor/finding.ts';

/**
 * The interfaces that an application uses. The types separate reads from writes: a {@link ReadConnection} has no method
 * that writes, so a function that takes one cannot write, whichever connection it gets.
 *
 *     ReadConnection       db.read, a snapshot's `r`, a transaction's `tx`
 *     WriteTransaction     a transaction's `tx`, a savepoint's `tx`
 *     Database             both pools
 */

/**
 * A value of SQLite in JavaScript. There are no booleans, dates or `undefined`. Blobs are read as `Buffer`. With
 * `safeIntegers` an integer is a `bigint`; without, it is rounded beyond 2^53.
 */
export type SqlValue = null | number | bigint | string | Uint8Array;

/**
 * An array for `?`. For `:name`, `@name` and `$name` an object without the prefixes, which may only have names of the
 * statement. For an object whose type is an `interface`, pass a copy: `{ ...user }`.
 */
export type SqlParams = readonly SqlValue[] | Readonly<Record<string, SqlValue>>;

export type SqlRow = Record<string, SqlValue>;

export interface RunResult {
  /** Rows that the statement inserted, updated or deleted. */
  readonly changes: number;
  /** The rowid of the last INSERT of this connection; a `bigint` with `safeIntegers`. */
  readonly lastInsertRowid: number | bigint;
}

export interface QueryResult<Row = SqlRow> extends RunResult {
  /** Empty if the statement returns none. */
  readonly rows: Row[];
}

export type Priority = 'interactive' | 'normal' | 'background';

export type MaybePromise<T> = T | Promise<T>;

export interface WaitOptions {
  /** Names the work in {@link DatabaseStats}, in events and in errors. Use at most a few dozen different labels. */
  readonly label?: string | undefined;
  /** How long it may wait before it begins, in milliseconds. Default: `busyTimeoutMs` of the database. */
  readonly deadlineMs?: number | undefined;
  /** Ends waiting work, and rolls back running work at its next statement; the promise rejects with ABORTED. */
  readonly signal?: AbortSignal | undefined;
}

export interface QueryOptions extends WaitOptions {
  /**
   * Whether the query runs in a worker thread. Default: if the database has `threads`, queries of `db.read` do. No
   * effect within a snapshot or a transaction, which are one connection.
   */
  readonly thread?: boolean | undefined;
}

export interface WriteOptions extends WaitOptions {
  /** The order in which waiting writes are served; none is starved. Default: 'normal'. */
  readonly priority?: Priority | undefined;
  /**
   * A key for best-effort writes (a "last seen", a progress): while an older write with the same key still waits, this
   * one replaces it, in its place in the queue. All callers get the outcome of the write that ran. A write that gives
   * up (`signal`, deadline) before it ran gives its place back to the one before.
   */
  readonly coalesce?: string | undefined;
}

/** Options of `write.connection(fn)`. `signal` ends the wait, and later the connection: its next statement rejects. */
export interface ConnectionOptions extends WaitOptions {
  readonly priority?: Priority | undefined;
}

export interface BulkOptions extends WaitOptions {
  /** Default: 'background'. */
  readonly priority?: Priority | undefined;
  /**
   * How long a transaction may hold the writer, from BEGIN to COMMIT, in milliseconds: another writer may have to wait
   * for it. The time of a COMMIT is estimated from the previous one. Default: 1000.
   */
  readonly budgetMs?: number | undefined;
  /** Called after each commit, with the number of items committed so far. */
  readonly onCommit?: ((committed: number) => void) | undefined;
}

/**
 * Reads. Queries run at once if their connection is free, and settle their promise at once.
 *
 * Errors: SQLite's own (`code` 'SQLITE_ERROR', …) for a wrong statement; READ_ONLY for a statement that writes on a
 * reader's connection; CLOSED.
 */
export interface ReadConnection {
  /** All rows. The caller chooses the row type; it is not checked. */
  all<Row = SqlRow>(sql: string, params?: SqlParams, options?: QueryOptions): Promise<Row[]>;
  /** The first row. */
  get<Row = SqlRow>(sql: string, params?: SqlParams, options?: QueryOptions): Promise<Row | undefined>;
  /** All rows, each an array of its columns: for query builders, whose columns may have the same name. */
  values(sql: string, params?: SqlParams, options?: QueryOptions): Promise<SqlValue[][]>;
  /** Row by row, for results that are too large for memory. Holds one connection until the loop ends. */
  iterate<Row = SqlRow>(sql: string, params?: SqlParams, options?: QueryOptions): AsyncIterable<Row>;
}

/**
 * An open transaction that has the writer's place. Its statements see what it wrote. It ends with its function; used
 * later, it throws TX_ENDED. Refuses BEGIN, COMMIT, ROLLBACK, SAVEPOINT and RELEASE as SQL with TRANSACTION_CONTROL.
 */
export interface WriteTransaction extends ReadConnection {
  run(sql: string, params?: SqlParams): Promise<RunResult>;
  /** Several statements, separated by semicolons. */
  exec(sql: string): Promise<void>;
  /** Any statement, whether it returns rows or not; for query builders. */
  execute<Row = SqlRow>(sql: string, params?: SqlParams): Promise<QueryResult<Row>>;
  /**
   * A transaction within the transaction: if `fn` throws, only what `fn` wrote is undone, and the error is passed on.
   * While it is open, this transaction's own methods are refused with NESTED_WRITE: use the inner `tx`.
   */
  savepoint<T>(fn: (tx: WriteTransaction) => MaybePromise<T>): Promise<T>;
}

/**
 * The connection that writes, held for one function. No other write of this process comes between two statements, so
 * the state that SQLite keeps for each connection is there: `last_insert_rowid()`, `changes()`, temp tables, attached
 * databases, PRAGMAs. Each statement commits by itself. Used after its function has ended, it throws TX_ENDED.
 */
export interface WriteConnection extends ReadConnection {
  run(sql: string, params?: SqlParams, options?: WaitOptions): Promise<RunResult>;
  /** Several statements, separated by semicolons, in one transaction. */
  exec(sql: string, options?: WaitOptions): Promise<void>;
  /** Any statement, whether it returns rows or not; for query builders. */
  execute<Row = SqlRow>(sql: string, params?: SqlParams, options?: WaitOptions): Promise<QueryResult<Row>>;
  /** As in {@link WritePool}. Until it has ended, other statements of the connection wait for it. */
  transaction<T>(fn: (tx: WriteTransaction) => MaybePromise<T>, options?: WaitOptions): Promise<T>;
}

/** The readers' connections. Writers cannot use them up, and readers never wait for a writer. */
export interface ReadPool extends ReadConnection {
  /**
   * Runs `fn` with one connection that sees one state of the database, even if others write meanwhile. Keep it short:
   * the WAL cannot be emptied while it lasts. Errors: READ_TIMEOUT if no connection became free in time.
   */
  snapshot<T>(fn: (r: ReadConnection) => MaybePromise<T>, options?: WaitOptions): Promise<T>;
}

/**
 * The one connection that writes, and the queue for it.
 *
 * Callers never see SQLITE_BUSY: a write that is refused as busy is tried again until its deadline, without blocking
 * the event loop. Then it rejects with BUSY_TIMEOUT, which names the holder of the writer: the label of a call of this
 * pool, or on Linux the process. Other errors: ABORTED, CLOSED, NESTED_WRITE for a call from within a transaction of the same pool, and SQLite's own.
 */
export interface WritePool {
  /** One statement, committed when the promise resolves. */
  run(sql: string, params?: SqlParams, options?: WriteOptions): Promise<RunResult>;
  /** One statement that returns rows, as `INSERT … RETURNING`. */
  all<Row = SqlRow>(sql: string, params?: SqlParams, options?: WriteOptions): Promise<Row[]>;
  get<Row = SqlRow>(sql: string, params?: SqlParams, options?: WriteOptions): Promise<Row | undefined>;
  /** Any statement; each row is an array of its columns. Empty if it returns no rows. */
  values(sql: string, params?: SqlParams, options?: WriteOptions): Promise<SqlValue[][]>;
  /** One statement, whether it returns rows or not; for query builders. */
  execute<Row = SqlRow>(sql: string, params?: SqlParams, options?: WriteOptions): Promise<QueryResult<Row>>;
  /** Several statements, separated by semicolons, in one transaction. */
  exec(sql: string, options?: WriteOptions): Promise<void>;
  /**
   * BEGIN IMMEDIATE, `fn`, COMMIT; ROLLBACK if `fn` throws. If SQLite refuses a statement or the commit as busy, the
   * whole transaction runs again. So `fn` may run more than once, and what it does outside the database must allow
   * that.
   */
  transaction<T>(fn: (tx: WriteTransaction) => MaybePromise<T>, options?: WriteOptions): Promise<T>;
  /**
   * Holds the connection that writes while `fn` runs. All other writes of this process wait; those of other processes
   * may come between two statements. If `fn` never ends, the others reject with BUSY_TIMEOUT, which names it by its
   * `label`.
   */
  connection<T>(
    fn: (connection: WriteConnection) => MaybePromise<T>,
    options?: ConnectionOptions,
  ): Promise<T>;
  /**
   * A transaction in which SQLite neither checks foreign keys nor deletes or changes rows by them (ON DELETE, ON UPDATE):
   * for a table that is built anew and takes the place of the old one. Before the commit all foreign keys are checked,
   * which takes time; if more rows than before refer to nothing, it is rolled back, with SQLITE_CONSTRAINT_FOREIGNKEY.
   * All other writes of this process wait meanwhile.
   */
  changeSchema<T>(fn: (tx: WriteTransaction) => MaybePromise<T>, options?: ConnectionOptions): Promise<T>;
  /**
   * Calls `fn` for each item, with as many items in a transaction as fit the budget. Between two transactions other
   * writes have their turn. `fn` may run again for an item whose transaction was refused as busy. If an item fails, its
   * transaction is rolled back, and the error is BULK_INTERRUPTED, with `committed` (this many items are committed: an
   * import resumes there) and the `cause`. ABORTED and CLOSED are reported in the same way.
   */
  bulk<Item>(
    items: Iterable<Item> | AsyncIterable<Item>,
    fn: (tx: WriteTransaction, item: Item) => MaybePromise<unknown>,
    options?: BulkOptions,
  ): Promise<{ committed: number }>;
}

/** As in better-sqlite3. */
export interface FunctionOptions {
  /** Whether it returns the same for the same arguments, as an index on it needs. Default: false. */
  readonly deterministic?: boolean | undefined;
  /** Whether to refuse it to views, triggers and everything else in the schema. Default: false. */
  readonly directOnly?: boolean | undefined;
  /** Whether it takes any number of arguments. Default: false, as many as its function has parameters. */
  readonly varargs?: boolean | undefined;
}

/** Returns a value for SQL at once; undefined is NULL. An error that it throws is that of the statement. */
export type SqlFunction = (...values: never[]) => SqlValue | undefined;

/** As in better-sqlite3. */
export interface AggregateOptions<State = unknown> extends FunctionOptions {
  /** The state before the first row of each group, or a function that makes it. Default: null. */
  readonly start?: State | (() => State) | undefined;
  /** Gets the state and the values of a row. Returns the next state; with undefined it stays. */
  readonly step: (state: State, ...values: never[]) => State | undefined | void;
  /** Undoes a step, for window functions. */
  readonly inverse?: ((state: State, ...values: never[]) => State | undefined | void) | undefined;
  /** Turns the last state into a value. Default: it is the value. */
  readonly result?: ((state: State) => SqlValue | undefined) | undefined;
}

/** What {@link Database.backup} did. */
export interface BackupResult {
  readonly outcome: 'committed' | 'unchanged';
  readonly pageSize: number;
  readonly pageCount: number;
  readonly pagesChanged: number;
}

export interface Database extends AsyncDisposable {
  /** Absolute. */
  readonly path: string;
  readonly read: ReadPool;
  readonly write: WritePool;
  /**
   * Defines a function for SQL on the connections of this database. Threads lack it: a query that needs one runs in the
   * caller's thread. Errors: USAGE for a wrong argument, or while a result is being read; CLOSED.
   */
  function(name: string, fn: SqlFunction): void;
  function(name: string, options: FunctionOptions, fn: SqlFunction): void;
  /** Defines an aggregate, as {@link function} does; with `inverse` it is a window function too. */
  aggregate<State>(name: string, options: AggregateOptions<State>): void;
  /**
   * Makes the file at `path` an exact copy of the database, or brings the copy there up to date, in a child process as
   * `sync()` does. `close()` waits for it. Errors: those of `sync()`, such as REPLICA_NOT_MARKED for a file that is no
   * copy, and USAGE for a place on another host.
   * @param path Path of the file, or its `file:` URL.
   */
  backup(path: string | URL): Promise<BackupResult>;
  stats(): DatabaseStats;
  /**
   * What `sqlsync doctor` finds about this database, with the labels of this process. It runs in a child process and
   * takes some tenths of a second; it takes no lock. Errors: SYSTEM_ERROR.
   */
  inspect(): Promise<Inspection>;
  /**
   * Refuses new work, finishes what runs and what waits, and closes all connections. A second call waits too. It waits
   * for every snapshot, iteration and transaction, for ever if they never end: `stats()` lists them. Do not await it
   * within a transaction, snapshot or iteration: it waits for their end.
   */
  close(): Promise<void>;
}

/** What `sqlsync doctor` finds, and who waits and holds in this process. */
export interface Inspection {
  readonly facts: Facts;
  /** What is wrong, worst first. */
  readonly findings: readonly Finding[];
  /** The process that holds the writer's lock; `label` names the work if that is in this pool. */
  readonly writer: { readonly pid: number; readonly command?: string; readonly label?: string } | undefined;
  readonly write: { readonly holder: WriteActivity | undefined; readonly waiting: readonly WriteActivity[] };
  readonly read: { readonly holders: readonly Activity[]; readonly waiting: readonly Activity[] };
}

export interface DatabaseOptions {
  /**
   * How long a write may wait for its turn and for SQLite's lock until BUSY_TIMEOUT, and a read for a connection until
   * READ_TIMEOUT, in milliseconds. Default: 5000.
   */
  readonly busyTimeoutMs?: number | undefined;
  /** The most read connections; each is opened when needed. Default: 4. */
  readonly readers?: number | undefined;
  /**
   * Worker threads for queries, each with its own connection. Default: 0, so that queries run in the caller's thread.
   */
  readonly threads?: number | undefined;
  /**
   * 'cooperative': processes that use sqlsync on this database queue for the writer's place, first come, first served.
   * 'none': they collide and retry, as with other programs. Default: 'cooperative'.
   */
  readonly admission?: 'cooperative' | 'none' | undefined;
  /** Empties the WAL file when it is larger, at a moment when no call waits. Default: 64 MiB. */
  readonly walLimitBytes?: number | undefined;
  /** Whether to create a database that does not exist. Default: true. */
  readonly create?: boolean | undefined;
  /**
   * Whether to open a database on a network file system too, where WAL damages it as soon as another machine opens it.
   * Default: false, which throws DATABASE_UNUSABLE.
   */
  readonly allowNetworkFileSystem?: boolean | undefined;
  /** Whether to read integers as `bigint`, so that none beyond 2^53 is rounded. Default: false. */
  readonly safeIntegers?: boolean | undefined;
  /** How many prepared statements each connection keeps. Default: 200. */
  readonly statementCacheSize?: number | undefined;
}

/** Times since the database was opened. Quantiles come from a histogram whose buckets are 12.5 % wide. */
export interface TimeStats {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export interface LabelStats {
  /** From the call to the beginning. */
  readonly wait: TimeStats;
  /** From the beginning to the end: for writes, BEGIN to COMMIT. */
  readonly hold: TimeStats;
}

/** A call that waits or holds now. */
export interface Activity {
  readonly label: string;
  /** How long it has waited or held. */
  readonly forMs: number;
}

export interface WriteActivity extends Activity {
  readonly priority: Priority;
}

export interface DatabaseStats {
  readonly write: {
    readonly commits: number;
    readonly rollbacks: number;
    /** Writes that a later one with the same key replaced. */
    readonly coalesced: number;
    /** Attempts that SQLite refused, by its code: SQLITE_BUSY, SQLITE_BUSY_SNAPSHOT, SQLITE_BUSY_RECOVERY. */
    readonly retries: Readonly<Record<string, number>>;
    readonly timeouts: number;
    /** Calls that rejected, including statements of a held connection. */
    readonly failed: number;
    /** The same by the code of the error, or by its name if it has no code: SQLITE_CONSTRAINT_UNIQUE, ABORTED, … */
    readonly failures: Readonly<Record<string, number>>;
    readonly queueLength: number;
    readonly holder: WriteActivity | undefined;
    /** The first 100, in the order in which they came. */
    readonly waiting: readonly WriteActivity[];
    readonly labels: Readonly<Record<string, LabelStats>>;
  };
  readonly read: ReadStats;
  readonly wal: {
    /** 0 if there is no file. */
    readonly bytes: number;
    /** How often the WAL was emptied because it had passed its limit. */
    readonly truncations: number;
    /** How often that was refused because a connection was reading or writing. */
    readonly truncationsBusy: number;
  };
}

export interface ReadStats {
  /** Open connections of the caller's thread, and how many of them are in use. */
  readonly connections: number;
  readonly inUse: number;
  readonly threads: number;
  readonly timeouts: number;
  readonly workersLost: number;
  /** Calls that rejected, and iterations that ended with an error. */
  readonly failed: number;
  /** The same by the code of the error, or by its name if it has no code. */
  readonly failures: Readonly<Record<string, number>>;
  readonly queueLength: number;
  readonly holders: readonly Activity[];
  readonly waiting: readonly Activity[];
  readonly labels: Readonly<Record<string, LabelStats>>;
}
