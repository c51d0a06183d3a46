import { systemErrorCode } from '../../errors.ts';
import type { RawDatabase } from '../binding.ts';
import { foldName } from './literals.ts';
import { readStoredStatement } from './stored-statement.ts';

/** A table or a view of the schema. */
export interface NamedEntry {
  readonly type: string;
  readonly name: string;
  readonly sql: string | null;
}

/** The tables and views that can be read even if the schema is damaged. */
export function namedEntries(database: RawDatabase): NamedEntry[] {
  const query = database.prepare(
    `SELECT type, CAST(name AS TEXT) AS name, CAST(sql AS TEXT) AS sql FROM sqlite_schema
     WHERE type IN ('table', 'view') AND name NOT NULL`,
  );
  const entries: NamedEntry[] = [];
  try {
    for (const entry of query.iterate()) entries.push(entry as NamedEntry);
  } catch (error) {
    if (systemErrorCode(error)?.startsWith('SQLITE_') !== true) throw error;
  }
  return entries;
}

/** `names`, and the tables in which virtual tables among them keep their content, as SQLite compares names. */
export function withShadowTables(
  database: RawDatabase,
  entries: readonly NamedEntry[],
  names: readonly string[],
): ReadonlySet<string> {
  const wanted = new Set(names.map(foldName));
  const tables = entries.filter(({ type }) => type === 'table');
  const virtual = new Map<string, boolean>();
  for (const { name, sql } of tables) {
    const statement = readStoredStatement(Buffer.from(sql ?? ''));
    if ('why' in statement || statement.kind !== 'virtual-table') continue;
    virtual.set(foldName(name), isModuleKnown(database, statement.module ?? ''));
  }
  const shadows = new Set(
    database.prepare(`SELECT name FROM pragma_table_list WHERE type = 'shadow'`).pluck().all() as string[],
  );
  for (const { name } of tables) {
    const owner = ownerOf(foldName(name), virtual, shadows.has(name));
    if (owner !== undefined && wanted.has(owner)) wanted.add(foldName(name));
  }
  return wanted;
}

/**
 * The virtual table whose shadow table has this name: SQLite takes the name up to the last underscore. For a module
 * that this SQLite lacks, the tables are unknown; their names begin with the table's own (`NAME_chunks00`).
 */
function ownerOf(name: string, virtual: ReadonlyMap<string, boolean>, isShadow: boolean): string | undefined {
  if (virtual.has(name)) return undefined;
  if (isShadow) return name.slice(0, Math.max(0, name.lastIndexOf('_')));
  const owners = [...virtual.keys()].filter((owner) => name.startsWith(`${owner}_`));
  const nearest = owners.sort((a, b) => b.length - a.length)[0];
  return nearest !== undefined && virtual.get(nearest) === false ? nearest : undefined;
}

function isModuleKnown(database: RawDatabase, module: string): boolean {
  return (
    database.prepare('SELECT 1 FROM pragma_module_list WHERE name = ? COLLATE NOCASE').get(module) !==
    undefined
  );
}
