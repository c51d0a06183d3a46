import { systemErrorCode } from '../../errors.ts';
import type { RawDatabase } from '../binding.ts';
import { identifier } from './literals.ts';
import type { TableShape } from './row-scan.ts';

interface Column {
  readonly name: string;
  readonly pk: number;
  readonly hidden: number;
}

/** How to read and insert the rows of a table; undefined if SQLite has no such table. */
export function tableShape(database: RawDatabase, name: string): TableShape | undefined {
  const table = database.prepare(`SELECT wr FROM pragma_table_list(?) WHERE schema = 'main'`).get(name) as
    { wr: number } | undefined;
  const columns = database
    .prepare('SELECT name, pk, hidden FROM pragma_table_xinfo(?)')
    .all(name) as Column[];
  if (table === undefined || columns.length === 0) return undefined;
  const stored = columns.filter(({ hidden }) => hidden === 0).map((column) => identifier(column.name));
  const taken = new Set(columns.map((column) => column.name.toLowerCase()));
  const rowid = table.wr === 1 ? undefined : ['rowid', '_rowid_', 'oid'].find((each) => !taken.has(each));
  const isKept = rowid !== undefined && keepsRowid(database, name, rowid, columns);
  const list = isKept ? [rowid, ...stored] : stored;
  const names = isKept || stored.length < columns.length ? `(${list.join(',')})` : '';
  return { name, rowid, columns: list, insert: `INSERT INTO ${identifier(name)}${names} VALUES` };
}

/**
 * True if rows inserted one after another would not get their own rowids again: in a table without an INTEGER PRIMARY
 * KEY, rowids other than 1, 2, 3 … An FTS5 index with external content refers to them.
 */
function keepsRowid(database: RawDatabase, name: string, rowid: string, columns: readonly Column[]): boolean {
  if (name.toLowerCase().startsWith('sqlite_')) return false;
  const indexes = database
    .prepare(`SELECT count(*) FROM pragma_index_list(?) WHERE origin = 'pk'`)
    .pluck()
    .get(name);
  // A primary key without an index is the rowid.
  if (columns.some(({ pk }) => pk > 0) && indexes === 0) return false;
  const numbers = `min(${rowid}) AS first, max(${rowid}) AS last, count(*) AS count`;
  try {
    const { first, last, count } = database
      .prepare(`SELECT ${numbers} FROM ${identifier(name)} NOT INDEXED`)
      .safeIntegers(true)
      .get() as { first: bigint | null; last: bigint | null; count: bigint };
    return first !== null && (first !== 1n || last !== count);
  } catch (error) {
    if (systemErrorCode(error)?.startsWith('SQLITE_') !== true) throw error;
    return true;
  }
}
