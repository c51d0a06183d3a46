/**
 * Drizzle on the pools, through its own proxy driver; nothing of Drizzle is imported.
 *
 *     import { drizzle } from 'drizzle-orm/sqlite-proxy';
 *     import { drizzleProxy } from 'sqlsync/drizzle';
 *     const orm = drizzle(drizzleProxy(db));
 *
 * Drizzle's proxy cannot say which transaction a statement belongs to, so `orm.transaction()` is refused with
 * TRANSACTION_CONTROL. A transaction has a proxy of its own:
 *
 *     await db.write.transaction(async (tx) => { const orm = drizzle(drizzleProxy(tx)); … });
 */
import { SqlsyncError } from './errors.ts';
import type { Database, SqlParams, SqlRow, SqlValue, WriteTransaction } from './pool/types.ts';

/** `run` wants no rows, `get` the first one, `all` and `values` all. */
export type DrizzleMethod = 'run' | 'all' | 'values' | 'get';

/** `rows`: each an array of its columns; for `get`, the first of them, or undefined where there is none. */
export type DrizzleProxy = (
  sql: string,
  params: SqlValue[],
  method: DrizzleMethod,
) => Promise<{ rows: SqlValue[] | SqlValue[][] }>;

const QUERY = /^\s*select\b/i;

/**
 * The callback that `drizzle()` of drizzle-orm/sqlite-proxy takes. SELECTs run on the read pool, and everything else on
 * the write pool; of a transaction, all of it in the transaction.
 *
 * Errors: those of the pools. USAGE where a statement that writes, or a query of a transaction, returns two columns of
 * the same name (a join of tables that both have an `id`): name one of them with `.as()`.
 */
export function drizzleProxy(connection: Database | WriteTransaction): DrizzleProxy {
  return async (sql, params, method) => {
    const rows = await rowsOf(connection, sql, params);
    // Drizzle takes no row as undefined, which its type does not say.
    return { rows: method === 'get' ? (rows[0] as SqlValue[]) : rows };
  };
}

async function rowsOf(
  connection: Database | WriteTransaction,
  sql: string,
  params: SqlParams,
): Promise<SqlValue[][]> {
  if (!('read' in connection)) return inColumns(sql, (await connection.execute(sql, params)).rows);
  if (QUERY.test(sql)) return connection.read.values(sql, params);
  // Within a transaction, so that what cannot be told is not written.
  return connection.write.transaction(async (tx) => inColumns(sql, (await tx.execute(sql, params)).rows));
}

/** The values of each row in the order of the columns, which an object keeps only for distinct names. */
function inColumns(sql: string, rows: readonly SqlRow[]): SqlValue[][] {
  const [first] = rows;
  if (first === undefined) return [];
  const names = Object.keys(first);
  const expected = columnCount(sql) ?? names.length;
  // JavaScript moves keys that look like an index to the front.
  if (names.length !== expected || names.some((name) => /^\d+$/.test(name))) {
    throw new SqlsyncError(
      'USAGE',
      `rows with the names ${names.join(', ')} for ${expected} columns, where each column needs a name of its own`,
      { hint: 'Name one of them with .as().' },
    );
  }
  return rows.map((row) => Object.values(row));
}

/** Quoted names and texts, words, and what separates columns. */
const TOKEN = /'(?:[^']|'')*'|"(?:[^"]|"")*"|[(),*]|\w+/g;

/** How many columns a statement of Drizzle returns; undefined where its text does not tell (`select *`). */
function columnCount(sql: string): number | undefined {
  let count: number | undefined;
  let isList = false;
  let depth = 0;
  for (const [token] of sql.matchAll(TOKEN)) {
    const word = token.toLowerCase();
    if (word === '(') depth += 1;
    else if (word === ')') depth -= 1;
    if (depth > 0) continue;
    if (word === 'select' || word === 'returning') {
      isList = true;
      count = 1;
    } else if (word === 'from') isList = false;
    else if (isList && word === '*') return undefined;
    else if (isList && word === ',') count = (count ?? 0) + 1;
  }
  return count;
}
