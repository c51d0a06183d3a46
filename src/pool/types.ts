/**
 * What an application holds in its hands. The split is in the types: a {@link ReadConnection} has no method that
 * writes, so a function that declares one cannot write, whichever connection it is given.
 *
 *     ReadConnection       db.read, a snapshot's `r`, a transaction's `tx`
 *     WriteTransaction     a transaction's `tx`, a savepoint's `tx`
 *     Database             both pools
 */

/**
 * A value of SQLite in JavaScript. There are no booleans, dates or `undefined`. Blobs are read as `Buffer`; an integer
 * is a `bigint` only with `safeIntegers`, and rounded beyond 2^53 without.
 */
export type SqlValue = null | number | bigint | string | Uint8Array;

/**
 * For `?` an array, for `:name`, `@name` and `$name` an object without the prefixes, which may have no other names
 * than the statement. Of an object whose type is an `interface`, pass a copy: `{ ...user }`.
 */
export type SqlParams = readonly SqlValue[] | Readonly<Record<string, SqlValue>>;

export type SqlRow = Record<string, SqlValue>;

export interface RunResult {
  /** Rows that the statement inserted, updated or deleted. */
  readonly changes: number;
  /** Of the last INSERT of this connection; a `bigint` with `safeIntegers`. */
  readonly lastInsertRowid: number | bigint;
}

export interface QueryResult<Row = SqlRow> extends RunResult {
  /** Empty if the statement returns none. */
  readonly rows: Row[];
}

export type Priority = 'interactive' | 'normal' | 'background';

export type MaybePromise<T> = T | Promise<T>;

export interface WaitOptions {
  /** Names the work in {@link DatabaseStats}, in events and in errors. A few dozen different ones at most. */
  readonly label?: string | undefined;
  /** How long it may wait until it begins, in milliseconds. Default: `busyTimeoutMs` of the database. */
  readonly deadlineMs?: number | undefined;
  /** Ends what waits, and rolls back what runs at its next statement; the promise rejects with ABORTED. */
  readonly signal?: AbortSignal | undefined;
}

export interface QueryOptions extends WaitOptions {
  /**
   * Whether the query runs in a worker thread. Default: where the database has `threads`, those of `db.read` do.
   * Within a snapshot or a transaction it has no effect: they are one connection.
   */
  readonly thread?: boolean | undefined;
}

export interface WriteOptions extends WaitOptions {
  /** Who is served first among those who wait; the others are not starved. Default: 'normal'. */
  readonly priority?: Priority | undefined;
  /**
   * A key for best-effort writes (a "last seen", a progress): while an older write with the same key still waits,
   * this one replaces it, in its place in the queue. All callers get the outcome of the one that ran.
   * One that gives up (`signal`, deadline) before it ran gives its place back to the one before.
   */
  readonly coalesce?: string | undefined;
}

/** Of `write.connection(fn)`. `signal` ends the wait, and later the connection: its next statement rejects. */
export interface ConnectionOptions extends WaitOptions {
  readonly priority?: Priority | undefined;
}

export interface BulkOptions extends WaitOptions {
  /** Default: 'background'. */
  readonly priority?: Priority | undefined;
  /**
   * For how long a transaction may hold the writer, BEGIN to COMMIT, in milliseconds: what another writer may have to
   * wait. The time of a COMMIT is estimated from the one before. Default: 1000.
   */
  readonly budgetMs?: number | undefined;
  /** After each commit, with the number of items that are safe by now. */
  readonly onCommit?: ((committed: number) => void) | undefined;
}

/**
 * Reads. Queries run at once, where their connection is free, and settle their promise at once.
 *
 * Errors: SQLite's own (`code` 'SQLITE_ERROR', …) for a wrong statement; READ_ONLY for one that writes, where the
 * connection is a reader's; CLOSED.
 */
export interface ReadConnection {
  /** All rows. The row type is the caller's word: nothing checks it. */
  all<Row = SqlRow>(sql: string, params?: SqlParams, options?: QueryOptions): Promise<Row[]>;
  /** The first row. */
  get<Row = SqlRow>(sql: string, params?: SqlParams, options?: QueryOptions): Promise<Row | undefined>;
  /** All rows, each an array of its columns: for query builders, whose columns may have the same name. */
  values(sql: string, params?: SqlParams, options?: QueryOptions): Promise<SqlValue[][]>;
  /** Row by row, for results that are too large for memory. Holds one connection until the loop ends. */
  iterate<Row = SqlRow>(sql: string, params?: SqlParams, options?: QueryOptions): AsyncIterable<Row>;
}

/**
 * An open transaction that has the writer's place. Its statements see what it wrote. It ends with the function that
 * it was given to; used later, it throws TX_ENDED. BEGIN, COMMIT, ROLLBACK, SAVEPOINT and RELEASE as SQL are refused
 * with TRANSACTION_CONTROL.
 */
export interface WriteTransaction extends ReadConnection {
  run(sql: string, params?: SqlParams): Promise<RunResult>;
  /** Several statements, separated by semicolons. */
  exec(sql: string): Promise<void>;
  /** Any statement, whether it returns rows or not; for query builders. */
  execute<Row = SqlRow>(sql: string, params?: SqlParams): Promise<QueryResult<Row>>;
  /**
   * A transaction within: when `fn` throws, only what `fn` wrote is undone, and the error is handed on. While it is
   * open, this transaction's own methods are refused with NESTED_WRITE: use the inner `tx`.
   */
  savepoint<T>(fn: (tx: WriteTransaction) => MaybePromise<T>): Promise<T>;
}

/**
 * The connection that writes, held for one function: no other write of this process comes between two statements, so
 * that what SQLite keeps for each connection is there: `last_insert_rowid()`, `changes()`, temp tables, attached
 * databases, PRAGMAs. Each statement commits on its own. Used after its function has ended, it throws TX_ENDED.
 */
export interface WriteConnection extends ReadConnection {
  run(sql: string, params?: SqlParams, options?: WaitOptions): Promise<RunResult>;
  /** Several statements, separated by semicolons, in one transaction. */
  exec(sql: string, options?: WaitOptions): Promise<void>;
  /** Any statement, whether it returns rows or not; for query builders. */
  execute<Row = SqlRow>(sql: string, params?: SqlParams, options?: WaitOptions): Promise<QueryResult<Row>>;
  /** As that of {@link WritePool}. Until it has ended, other statements of the connection wait for it. */
  transaction<T>(fn: (tx: WriteTransaction) => MaybePromise<T>, options?: WaitOptions): Promise<T>;
}

/** The readers' connections. Writers cannot use them up, and readers never wait for a writer. */
export interface ReadPool extends ReadConnection {
  /**
   * Runs `fn` with one connection that sees one state of the database, whatever is written meanwhile. Keep it short:
   * the WAL cannot be emptied while it lasts. Errors: READ_TIMEOUT where no connection became free in time.
   */
  snapshot<T>(fn: (r: ReadConnection) => MaybePromise<T>, options?: WaitOptions): Promise<T>;
}

/**
 * The one connection that writes, and the queue for it.
 *
 * Nobody sees SQLITE_BUSY: a write that is refused as busy is tried again until its deadline, without blocking the
 * event loop, and then rejects with BUSY_TIMEOUT, which names who has the writer where that is this pool. Other errors:
 * ABORTED, CLOSED, NESTED_WRITE for a call from within a transaction of the same pool, and SQLite's own.
 */
export interface WritePool {
  /** One statement, committed when the promise resolves. */
  run(sql: string, params?: SqlParams, options?: WriteOptions): Promise<RunResult>;
  /** One statement that returns rows, as `INSERT … RETURNING`. */
  all<Row = SqlRow>(sql: string, params?: SqlParams, options?: WriteOptions): Promise<Row[]>;
  get<Row = SqlRow>(sql: string, params?: SqlParams, options?: WriteOptions): Promise<Row | undefined>;
  /** Any statement; its rows each an array of its columns, and none where it returns none. */
  values(sql: string, params?: SqlParams, options?: WriteOptions): Promise<SqlValue[][]>;
  /** One statement, whether it returns rows or not; for query builders. */
  execute<Row = SqlRow>(sql: string, params?: SqlParams, options?: WriteOptions): Promise<QueryResult<Row>>;
  /** Several statements, separated by semicolons, in one transaction. */
  exec(sql: string, options?: WriteOptions): Promise<void>;
  /**
   * BEGIN IMMEDIATE, `fn`, COMMIT; ROLLBACK when `fn` throws. Where SQLite refuses a statement or the commit as busy,
   * the whole of it runs again, so `fn` may run more than once: what it does beside the database has to bear that.
   */
  transaction<T>(fn: (tx: WriteTransaction) => MaybePromise<T>, options?: WriteOptions): Promise<T>;
  /**
   * Holds the connection that writes while `fn` runs, and all other writes of this process wait; those of other
   * processes may come between two statements. Where `fn` never ends, the others reject with BUSY_TIMEOUT, which
   * names it by its `label`.
   */
  connection<T>(
    fn: (connection: WriteConnection) => MaybePromise<T>,
    options?: ConnectionOptions,
  ): Promise<T>;
  /**
   * Calls `fn` for each item, with as many items in a transaction as fit the budget. Between two transactions
   * others have their turn. `fn` may run again for an item whose transaction was refused as busy.
   * When an item fails, its transaction is rolled back and the error is BULK_INTERRUPTED, with `committed` (the first
   * so many items are safe: an import resumes there) and the `cause`. ABORTED and CLOSED come the same way.
   */
  bulk<Item>(
    items: Iterable<Item> | AsyncIterable<Item>,
    fn: (tx: WriteTransaction, item: Item) => MaybePromise<unknown>,
    options?: BulkOptions,
  ): Promise<{ committed: number }>;
}

export interface Database extends AsyncDisposable {
  /** Absolute. */
  readonly path: string;
  readonly read: ReadPool;
  readonly write: WritePool;
  stats(): DatabaseStats;
  /**
   * Takes no more work, finishes what runs and what waits, and closes all connections. A second call waits too. It
   * waits for every snapshot, iteration and transaction, for ever if they never end: `stats()` names them.
   * Not to be awaited within a transaction, snapshot or iteration: it waits for their end.
   */
  close(): Promise<void>;
}

export interface DatabaseOptions {
  /**
   * The one knob: how long a write may wait for its turn and for SQLite's lock until BUSY_TIMEOUT, and a read for a
   * connection until READ_TIMEOUT, in milliseconds. Default: 5000.
   */
  readonly busyTimeoutMs?: number | undefined;
  /** Read connections at most; they are opened as they are needed. Default: 4. */
  readonly readers?: number | undefined;
  /** Worker threads for queries, each with a connection of its own. Default: 0, queries run in the caller's thread. */
  readonly threads?: number | undefined;
  /**
   * 'cooperative': processes that use sqlsync on this database queue for the writer's place, first come, first
   * served. 'none': they collide and retry, as with other programs. Default: 'cooperative'.
   */
  readonly admission?: 'cooperative' | 'none' | undefined;
  /** The WAL file is emptied, at a moment when no one waits, once it is larger. Default: 64 MiB. */
  readonly walLimitBytes?: number | undefined;
  /** Whether a database that does not exist is made. Default: true. */
  readonly create?: boolean | undefined;
  /**
   * Opens a database on a network file system too, where WAL damages it as soon as another machine opens it. Default:
   * false, DATABASE_UNUSABLE.
   */
  readonly allowNetworkFileSystem?: boolean | undefined;
  /** Integers are read as `bigint`, so that none beyond 2^53 is rounded. Default: false. */
  readonly safeIntegers?: boolean | undefined;
  /** Prepared statements that each connection keeps. Default: 200. */
  readonly statementCacheSize?: number | undefined;
}

/** Quantiles are of a histogram whose buckets are 12.5 % wide, since the database was opened. */
export interface TimeStats {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export interface LabelStats {
  /** From the call until it began. */
  readonly wait: TimeStats;
  /** From the beginning to the end: for writes, BEGIN to COMMIT. */
  readonly hold: TimeStats;
}

/** Someone who waits or holds, now. */
export interface Activity {
  readonly label: string;
  /** How long already. */
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
    /** Calls that rejected, a statement of a held connection too. */
    readonly failed: number;
    /** The same by the code of the error, or its name where it has no code: SQLITE_CONSTRAINT_UNIQUE, ABORTED, … */
    readonly failures: Readonly<Record<string, number>>;
    readonly queueLength: number;
    readonly holder: WriteActivity | undefined;
    /** In the order in which they came; the first 100. */
    readonly waiting: readonly WriteActivity[];
    readonly labels: Readonly<Record<string, LabelStats>>;
  };
  readonly read: ReadStats;
  readonly wal: {
    /** 0 where there is no file. */
    readonly bytes: number;
    /** How often the WAL was emptied because it had passed its limit. */
    readonly truncations: number;
    /** How often that was refused, because someone was reading or writing. */
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
  /** The same by the code of the error, or its name where it has no code. */
  readonly failures: Readonly<Record<string, number>>;
  readonly queueLength: number;
  readonly holders: readonly Activity[];
  readonly waiting: readonly Activity[];
  readonly labels: Readonly<Record<string, LabelStats>>;
}
