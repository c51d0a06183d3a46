import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { DatabaseInternals } from '../../src/pool/database.ts';
import { openWith } from '../../src/pool/database.ts';
import type { Database, DatabaseOptions } from '../../src/pool/types.ts';
import { tempDir } from '../support/compare.ts';

/** A database with the empty table `t (id INTEGER PRIMARY KEY, x)`; it is closed when the test ends. */
export async function openTemporary(
  t: TestContext,
  options: DatabaseOptions & Partial<DatabaseInternals> = {},
): Promise<Database> {
  const { begin = 'BEGIN IMMEDIATE', ...rest } = options;
  const path = join(tempDir(t), 'a.db');
  const db = await openWith(path, { admission: 'none', ...rest }, { begin });
  t.after(() => db.close());
  await db.write.run('CREATE TABLE t (id INTEGER PRIMARY KEY, x)');
  return db;
}

/** The rows of `t`, in the order of their ids. */
export async function valuesOf(db: Database): Promise<unknown[]> {
  const rows = await db.write.all<{ x: unknown }>('SELECT x FROM t ORDER BY id');
  return rows.map(({ x }) => x);
}

/** A transaction that holds the writer until `release` is called. */
export function hold(db: Database, label = 'holder'): { release: () => void; done: Promise<void> } {
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = db.write.transaction(() => promise, { label });
  return { release: resolve, done };
}
