import { constraintError } from '../../sqlite/pool-connection.ts';
import type { MaybePromise, WriteConnection, WriteTransaction } from '../types.ts';
import type { Writer } from './writer.ts';

/**
 * Runs `fn` in a transaction of a held connection while SQLite neither checks foreign keys nor deletes or changes rows
 * by them: the procedure of https://www.sqlite.org/lang_altertable.html#otheralter. SQLite ignores the setting within a
 * transaction, so it is made before and undone after.
 */
export async function withoutForeignKeys<T>(
  writer: Writer,
  connection: WriteConnection,
  fn: (tx: WriteTransaction) => MaybePromise<T>,
): Promise<T> {
  writer.control('PRAGMA foreign_keys = OFF');
  try {
    return await connection.transaction(async (tx) => {
      const before = await danglingRows(tx);
      const result = await fn(tx);
      refuseNew(before, await danglingRows(tx));
      return result;
    });
  } finally {
    // A rollback that failed would leave the transaction open.
    writer.rollback();
    writer.control('PRAGMA foreign_keys = ON');
  }
}

/** The number of rows that refer to a row that is not there, by their table and the one that they refer to. */
async function danglingRows(tx: WriteTransaction): Promise<ReadonlyMap<string, number>> {
  const counts = new Map<string, number>();
  for await (const { table, parent } of tx.iterate<{ table: string; parent: string }>(
    'PRAGMA foreign_key_check',
  )) {
    const key = JSON.stringify([table, parent]);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return counts;
}

/** Rows that referred to nothing before may go on so. */
function refuseNew(before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>): void {
  for (const [key, count] of after) {
    if (count <= (before.get(key) ?? 0)) continue;
    const [table, parent] = JSON.parse(key) as [string, string];
    throw constraintError(
      `FOREIGN KEY constraint failed: ${count} rows of ${table} refer to rows that ${parent} does not have`,
      'SQLITE_CONSTRAINT_FOREIGNKEY',
    );
  }
}
