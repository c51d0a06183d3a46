import { systemErrorCode } from '../../errors.ts';
import type { RawDatabase } from '../binding.ts';
import { identifier } from '../dump/literals.ts';

/** A table or an index, and what it takes of the file. */
export interface DatabasePart {
  readonly name: string;
  /** The table of an index; a table's own name. */
  readonly table: string;
  readonly pages: number;
  readonly bytes: number;
  /** Bytes in these pages that hold nothing. */
  readonly unusedBytes: number;
}

/** Rows of `table` whose foreign keys lead to no row of `parent`. */
export interface BrokenReference {
  readonly table: string;
  readonly parent: string;
  readonly rows: number;
}

export interface DatabaseParts {
  /** The largest first. */
  readonly sizes: readonly DatabasePart[];
  readonly brokenReferences: readonly BrokenReference[];
  /** What could not be measured or followed, and why, one sentence each. */
  readonly unmeasured: readonly string[];
}

/** Measures each table and index, and follows all foreign keys. Throws SQLite's errors, except about single tables. */
export function measureParts(database: RawDatabase): DatabaseParts {
  const unmeasured: string[] = [];
  const attempt = <T>(what: string, work: () => T, otherwise: T): T => {
    try {
      return work();
    } catch (error) {
      if (systemErrorCode(error)?.startsWith('SQLITE_') !== true) throw error;
      unmeasured.push(`${what}: ${error instanceof Error ? error.message : String(error)}`);
      return otherwise;
    }
  };
  const objects = attempt('the schema', () => objectsOf(database), []);
  const sizes = objects.flatMap((object) => attempt(object.name, () => [sizeOf(database, object)], []));
  const tables = objects.filter(({ type }) => type === 'table').map(({ name }) => name);
  const brokenReferences = tables.flatMap((name) =>
    attempt(`the foreign keys of ${name}`, () => brokenReferencesOf(database, name), []),
  );
  return { sizes: sizes.sort((a, b) => b.bytes - a.bytes), brokenReferences, unmeasured };
}

interface SchemaObject {
  readonly name: string;
  readonly table: string;
  readonly type: string;
}

function objectsOf(database: RawDatabase): SchemaObject[] {
  return database
    .prepare(
      `SELECT name, tbl_name AS "table", type FROM sqlite_schema
       WHERE type IN ('table', 'index') AND rootpage > 0 AND typeof(name) = 'text'
       UNION ALL SELECT 'sqlite_schema', 'sqlite_schema', 'schema'`,
    )
    .all() as SchemaObject[];
}

function sizeOf(database: RawDatabase, { name, table }: SchemaObject): DatabasePart {
  const row = database
    .prepare(
      `SELECT count(*) AS pages, ifnull(sum(pgsize), 0) AS bytes, ifnull(sum(unused), 0) AS unusedBytes
       FROM dbstat WHERE name = ?`,
    )
    .get(name) as Omit<DatabasePart, 'name' | 'table'>;
  return { name, table, ...row };
}

function brokenReferencesOf(database: RawDatabase, table: string): BrokenReference[] {
  const rows = database.prepare(`PRAGMA foreign_key_check(${identifier(table)})`).iterate();
  const counts = new Map<string, number>();
  for (const row of rows as IterableIterator<{ parent: string }>)
    counts.set(row.parent, (counts.get(row.parent) ?? 0) + 1);
  return [...counts].map(([parent, count]) => ({ table, parent, rows: count }));
}
