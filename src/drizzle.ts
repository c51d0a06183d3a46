/**
 * Drizzle on the pools, through its own proxy driver; this file imports nothing of Drizzle.
 *
 *     import { drizzle } from 'drizzle-orm/sqlite-proxy';
 *     import { drizzleProxy } from 'sqlsync-db/drizzle';
 *     const orm = drizzle(drizzleProxy(db));
 *
 * Drizzle's proxy cannot say which transaction a statement belongs to, so `orm.transaction()` is refused with
 * TRANSACTION_CONTROL. A transaction has its own proxy:
 *
 *     await db.write.transaction(async (tx) => { const orm = drizzle(drizzleProxy(tx)); … });
 *
 * Nor can it say which connection: `last_insert_rowid()`, temp tables and PRAGMAs need a fixed one, which also has its
 * own proxy:
 *
 *     await db.write.connection(async (connection) => { const orm = drizzle(drizzleProxy(connection)); … });
 */
import { isReaderQuery } from './pool/sql/reader-query.ts';
import type { Database, ReadConnection, SqlParams, SqlValue } from './pool/types.ts';

/** `run` wants no rows, `get` the first one, `all` and `values` all. */
export type DrizzleMethod = 'run' | 'all' | 'values' | 'get';

/** `rows`: each an array of its columns; for `get` the first row, or undefined without a row. */
export type DrizzleProxy = (
  sql: string,
  params: SqlValue[],
  method: DrizzleMethod,
) => Promise<{ rows: SqlValue[] | SqlValue[][] }>;

/**
 * The callback that `drizzle()` of drizzle-orm/sqlite-proxy takes. SELECTs run on the read pool, and everything else on
 * the write pool. For a transaction, a held connection or a snapshot, everything runs there.
 *
 * Errors: those of the pools.
 */
export function drizzleProxy(connection: Database | ReadConnection): DrizzleProxy {
  return async (sql, params, method) => {
    const rows = await rowsOf(connection, sql, params);
    // Drizzle takes undefined for "no row", although its type does not allow it.
    return { rows: method === 'get' ? (rows[0] as SqlValue[]) : rows };
  };
}

function rowsOf(
  connection: Database | ReadConnection,
  sql: string,
  params: SqlParams,
): Promise<SqlValue[][]> {
  if (!('read' in connection)) return connection.values(sql, params);
  return isReaderQuery(sql) ? connection.read.values(sql, params) : connection.write.values(sql, params);
}
