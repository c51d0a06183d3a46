/**
 * A Drizzle driver on the pools: `const orm = drizzle(db, { schema })`. Drizzle is an optional peer of sqlsync.
 */
import type { BatchItem, BatchResponse } from 'drizzle-orm/batch';
import { NoopCache } from 'drizzle-orm/cache/core';
import { is } from 'drizzle-orm/entity';
import { DrizzleQueryError } from 'drizzle-orm/errors';
import { DefaultLogger, NoopLogger } from 'drizzle-orm/logger';
import type { Logger } from 'drizzle-orm/logger';
import { readMigrationFiles } from 'drizzle-orm/migrator';
import type { MigrationConfig, MigrationMeta } from 'drizzle-orm/migrator';
import { createTableRelationsHelpers, extractTablesRelationalConfig } from 'drizzle-orm/relations';
import type {
  ExtractTablesWithRelations,
  RelationalSchemaConfig,
  TablesRelationalConfig,
} from 'drizzle-orm/relations';
import { BaseSQLiteDatabase } from 'drizzle-orm/sqlite-core/db';
import { SQLiteAsyncDialect } from 'drizzle-orm/sqlite-core/dialect';
import { SQLiteRaw } from 'drizzle-orm/sqlite-core/query-builders/raw';
import { SQLiteSession, SQLiteTransaction } from 'drizzle-orm/sqlite-core/session';
import type { SQLiteExecuteMethod, SQLiteTransactionConfig } from 'drizzle-orm/sqlite-core/session';
import { RemotePreparedQuery } from 'drizzle-orm/sqlite-proxy/session';
import type { SQL } from 'drizzle-orm/sql';
import type { DrizzleConfig } from 'drizzle-orm/utils';
import { npmVersion } from 'drizzle-orm/version';
import { SqlsyncError } from './errors.ts';
import { copyParams } from './pool/sql/copied-params.ts';
import { isReaderQuery } from './pool/sql/reader-query.ts';
import type {
  Database,
  ReadConnection,
  RunResult,
  SqlParams,
  SqlValue,
  WriteConnection,
  WriteTransaction,
} from './pool/types.ts';

/**
 * The driver stands on parts of Drizzle that change between versions. package.json allows any, because npm would refuse
 * to install sqlsync into an application that has another one and does not use the driver.
 */
const DRIZZLE_VERSIONS = /^0\.45\./;

export interface SqlsyncDrizzleConfig<Schema extends Record<string, unknown>> extends Omit<
  DrizzleConfig<Schema>,
  'cache'
> {
  /** Names Drizzle's work in `database.stats()` and in errors. Default: 'drizzle'. */
  readonly label?: string;
}

/** What a driver may be made for. A transaction is one only in its own. */
export type DrizzleConnection = Database | ReadConnection | WriteConnection | WriteTransaction;

type Tables = TablesRelationalConfig;
type Session = SQLiteSession<'async', RunResult, Record<string, unknown>, Tables>;

/** Drizzle's database. `batch` runs its queries in one transaction that writes. */
export class SqlsyncDrizzle<
  Schema extends Record<string, unknown> = Record<string, never>,
> extends BaseSQLiteDatabase<'async', RunResult, Schema> {
  readonly #session: PoolSession<Schema, ExtractTablesWithRelations<Schema>>;

  constructor(
    dialect: SQLiteAsyncDialect,
    session: PoolSession<Schema, ExtractTablesWithRelations<Schema>>,
    schema: RelationalSchemaConfig<ExtractTablesWithRelations<Schema>> | undefined,
  ) {
    super('async', dialect, session, schema);
    this.#session = session;
  }

  batch<First extends BatchItem<'sqlite'>, All extends Readonly<[First, ...First[]]>>(
    queries: All,
  ): Promise<BatchResponse<All>> {
    return this.#session.batch(queries) as Promise<BatchResponse<All>>;
  }

  migrate(migrations: MigrationMeta[], config: MigrationConfig): Promise<void> {
    return this.#session.migrate(migrations, config);
  }
}

/**
 * Drizzle on the pools. SELECTs run on the read pool, and everything else on the write pool. `orm.transaction(fn)` is
 * `write.transaction(fn)`: `fn` may run more than once. For a transaction, a held connection or a snapshot of the pools,
 * everything runs there.
 *
 * Errors: those of the pools, as `cause` of Drizzle's DrizzleQueryError; USAGE for another version of Drizzle than 0.45.
 */
export function drizzle<Schema extends Record<string, unknown> = Record<string, never>>(
  connection: DrizzleConnection,
  config: SqlsyncDrizzleConfig<Schema> = {},
): SqlsyncDrizzle<Schema> {
  if (!DRIZZLE_VERSIONS.test(npmVersion)) {
    throw new SqlsyncError('USAGE', `drizzle-orm ${npmVersion} is installed; sqlsync needs 0.45`, {
      hint: 'npm install drizzle-orm@0.45',
    });
  }
  const { logger, schema, casing, label = 'drizzle' } = config;
  const dialect = new SQLiteAsyncDialect(casing === undefined ? {} : { casing });
  const tables = schema === undefined ? undefined : relationsOf(schema);
  const session = new PoolSession<Schema, ExtractTablesWithRelations<Schema>>(connection, dialect, tables, {
    label,
    logger: logger === true ? new DefaultLogger() : logger || new NoopLogger(),
  });
  return new SqlsyncDrizzle<Schema>(dialect, session, tables);
}

/** Runs the migrations that `drizzle-kit generate` has made and that are not in the database yet, in one transaction. */
export async function migrate<Schema extends Record<string, unknown>>(
  orm: SqlsyncDrizzle<Schema>,
  config: MigrationConfig,
): Promise<void> {
  await orm.migrate(readMigrationFiles(config), config);
}

function relationsOf<Schema extends Record<string, unknown>>(
  schema: Schema,
): RelationalSchemaConfig<ExtractTablesWithRelations<Schema>> {
  const { tables, tableNamesMap } = extractTablesRelationalConfig<ExtractTablesWithRelations<Schema>>(
    schema,
    createTableRelationsHelpers,
  );
  return { fullSchema: schema, schema: tables, tableNamesMap };
}

/** The migrations that the database does not have yet. */
async function missingOf(
  migrations: readonly MigrationMeta[],
  { read }: Database,
  { migrationsTable = '__drizzle_migrations' }: MigrationConfig,
): Promise<MigrationMeta[]> {
  const isThere = await read.get('SELECT 1 FROM sqlite_schema WHERE name = ?', [migrationsTable]);
  if (isThere === undefined) return [...migrations];
  const name = `"${migrationsTable.replaceAll('"', '""')}"`;
  const [[last] = []] = await read.values(`SELECT max(created_at) FROM ${name}`);
  return migrations.filter(({ folderMillis }) => typeof last !== 'number' || folderMillis > last);
}

/**
 * What drizzle-kit writes around a table that it builds anew. Within a transaction SQLite ignores it, so the whole
 * migration runs with foreign keys off.
 */
const SWITCH = /^\s*PRAGMA\s+foreign_keys\s*=\s*\w+\s*;?\s*$/i;

function switchesForeignKeys({ sql }: MigrationMeta): boolean {
  return sql.some((statement) => SWITCH.test(statement));
}

function withoutSwitches(migration: MigrationMeta): MigrationMeta {
  return { ...migration, sql: migration.sql.filter((statement) => !SWITCH.test(statement)) };
}

interface SessionOptions {
  readonly label: string;
  readonly logger: Logger;
}

/** One of Drizzle's sessions: the database, or one transaction or savepoint in it. */
class PoolSession<Schema extends Record<string, unknown>, T extends Tables> extends SQLiteSession<
  'async',
  RunResult,
  Schema,
  T
> {
  readonly #connection: DrizzleConnection;
  readonly #dialect: SQLiteAsyncDialect;
  readonly #schema: RelationalSchemaConfig<T> | undefined;
  readonly #options: SessionOptions;

  constructor(
    connection: DrizzleConnection,
    dialect: SQLiteAsyncDialect,
    schema: RelationalSchemaConfig<T> | undefined,
    options: SessionOptions,
  ) {
    super(dialect);
    this.#connection = connection;
    this.#dialect = dialect;
    this.#schema = schema;
    this.#options = options;
  }

  /** The mapping of rows is that of Drizzle's own driver for remote databases. */
  prepareQuery(...args: Parameters<Session['prepareQuery']>): ReturnType<Session['prepareQuery']> {
    const [query, fields, executeMethod, isInArrayMode, customMapper, metadata, cacheConfig] = args;
    // Without them Drizzle takes rows as they come, and its users expect objects.
    const asObjects = fields === undefined && customMapper === undefined;
    return new RemotePreparedQuery(
      (sql, params, method) =>
        runOn(this.#connection, { sql, params, method }, asObjects, this.#options.label) as Promise<never>,
      query,
      this.#options.logger,
      new NoopCache(),
      metadata,
      cacheConfig,
      fields,
      executeMethod,
      isInArrayMode,
      customMapper,
    );
  }

  async batch(queries: readonly BatchItem<'sqlite'>[]): Promise<unknown[]> {
    const { label, logger } = this.#options;
    const prepared = queries.map(preparedNow);
    return within(this.#connection, label, async (tx) => {
      const results: unknown[] = [];
      for (const { query, statement, asObjects } of prepared) {
        const { sql, params } = statement;
        logger.logQuery(sql, [...params]);
        const result = await runOn(tx, statement, asObjects, label).catch((error: Error) => {
          throw new DrizzleQueryError(sql, [...params], error);
        });
        results.push(query.mapResult(result, true));
      }
      return results;
    });
  }

  /** A number also with `safeIntegers`. */
  override async count(query: SQL): Promise<number> {
    const counted: unknown = await super.count(query);
    return Number(counted);
  }

  /** Looks which migrations are there in the transaction that adds the others: of two programs one waits and finds all. */
  async migrate(migrations: MigrationMeta[], config: MigrationConfig): Promise<void> {
    const { label } = this.#options;
    const run =
      (all: MigrationMeta[]) =>
      (tx: WriteTransaction): Promise<void> => {
        const session = new PoolSession<Schema, T>(tx, this.#dialect, this.#schema, this.#options);
        return this.#dialect.migrate(all, session, config);
      };
    const connection = this.#connection;
    const isRebuild =
      'write' in connection && (await missingOf(migrations, connection, config)).some(switchesForeignKeys);
    if (!isRebuild) return within(connection, label, run(migrations));
    return connection.write.changeSchema(run(migrations.map(withoutSwitches)), { label });
  }

  override transaction<Result>(
    fn: (tx: SQLiteTransaction<'async', RunResult, Schema, T>) => Promise<Result>,
    { behavior = 'immediate' }: SQLiteTransactionConfig = {},
  ): Promise<Result> {
    if (behavior !== 'immediate') {
      const error = new SqlsyncError(
        'USAGE',
        `a transaction with behavior '${behavior}'; all are immediate`,
        {
          hint: 'To read only, use drizzle(r) with the `r` of db.read.snapshot(fn).',
        },
      );
      return Promise.reject(error);
    }
    return within(this.#connection, this.#options.label, (tx) => {
      const session = new PoolSession<Schema, T>(tx, this.#dialect, this.#schema, this.#options);
      return fn(new PoolTransaction('async', this.#dialect, session, this.#schema));
    });
  }

  // What Drizzle takes from the result of a raw query in a batch.
  extractRawAllValueFromBatchResult(result: { readonly rows: unknown }): unknown {
    return result.rows;
  }

  extractRawGetValueFromBatchResult(result: { readonly rows: unknown }): unknown {
    return result.rows;
  }

  extractRawValuesValueFromBatchResult(result: { readonly rows: unknown }): unknown {
    return result.rows;
  }
}

class PoolTransaction<Schema extends Record<string, unknown>, T extends Tables> extends SQLiteTransaction<
  'async',
  RunResult,
  Schema,
  T
> {}

/** A transaction of the database or the held connection, or a savepoint in a transaction. */
function within<Result>(
  connection: DrizzleConnection,
  label: string,
  fn: (tx: WriteTransaction) => Promise<Result>,
): Promise<Result> {
  if ('write' in connection) return connection.write.transaction(fn, { label });
  if ('savepoint' in connection) return connection.savepoint(fn);
  if ('transaction' in connection) return connection.transaction(fn, { label });
  return Promise.reject(
    new SqlsyncError('USAGE', 'a transaction on a connection that only reads', {
      hint: 'Use drizzle(db), or drizzle(tx) with the `tx` of db.write.transaction(fn).',
    }),
  );
}

/** A query of a batch with the parameters of this moment: its turn may come later, and come again. */
function preparedNow(item: BatchItem<'sqlite'>): {
  readonly query: RemotePreparedQuery;
  readonly statement: Statement;
  readonly asObjects: boolean;
} {
  // oxlint-disable-next-line no-underscore-dangle -- Drizzle's name, which its types leave out
  const query = (item as unknown as { _prepare(): RemotePreparedQuery })._prepare();
  const { sql, params, method } = query.getQuery();
  const copied = copyParams(params as SqlParams) as readonly unknown[];
  return { query, statement: { sql, params: copied, method }, asObjects: is(item, SQLiteRaw) };
}

interface Statement {
  readonly sql: string;
  readonly params: readonly unknown[];
  readonly method: SQLiteExecuteMethod | 'values';
}

/** The result as Drizzle's driver for remote databases expects it: for `get` the row, or undefined without a row. */
async function runOn(
  connection: DrizzleConnection,
  statement: Statement,
  asObjects: boolean,
  label: string,
): Promise<{ readonly rows: unknown } | RunResult> {
  const { sql, method } = statement;
  const params = statement.params as SqlParams;
  const target =
    'write' in connection ? (isReaderQuery(sql) ? connection.read : connection.write) : connection;
  const options = { label };
  if (method === 'run' && 'execute' in target) {
    const { changes, lastInsertRowid } = await target.execute(sql, params, options);
    return { changes, lastInsertRowid };
  }
  if (method === 'run') {
    await target.values(sql, params, options);
    return { changes: 0, lastInsertRowid: 0 };
  }
  if (method === 'values') return { rows: await target.values(sql, params, options) };
  if (!asObjects) {
    const rows = (await target.values(sql, params, options)).map(withNumbers);
    return { rows: method === 'get' ? rows[0] : rows };
  }
  return {
    rows: await (method === 'get' ? target.get(sql, params, options) : target.all(sql, params, options)),
  };
}

/** Drizzle's columns make dates and the like of numbers: with `safeIntegers` they get one for each that is exact. */
function withNumbers(row: SqlValue[]): SqlValue[] {
  return row.map((value) =>
    typeof value === 'bigint' && Number.isSafeInteger(Number(value)) ? Number(value) : value,
  );
}
