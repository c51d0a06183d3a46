import { SqlsyncError, sanitizeText } from '../errors.ts';
import type { RawDatabase } from './binding.ts';
import { openRaw } from './binding.ts';
import { databaseUri } from './database-uri.ts';

interface SchemaRow {
  readonly type: string;
  readonly name: string;
  readonly tbl_name: string;
  readonly sql: string | null;
}

/**
 * The statements that make a database anew, one after another, as the shell's `.dump` has them: a database that nobody
 * changes (`path` is absolute), or of it `tables` with their indexes and triggers. Text that is not valid in the
 * database's encoding comes out with replacement characters.
 *
 * Throws SqlsyncError USAGE for a table that is not there.
 */
export function* dumpSql(path: string, tables: readonly string[]): Generator<string> {
  const database = openRaw(databaseUri(path, { mode: 'ro', immutable: true }), {
    readonly: true,
    fileMustExist: true,
  });
  try {
    // A schema with a fault is to be seen, not refused.
    database.unsafeMode(true);
    database.pragma('writable_schema = ON');
    const schema = database
      .prepare('SELECT type, name, tbl_name, sql FROM sqlite_schema')
      .all() as SchemaRow[];
    requireTables(schema, tables);
    const isWanted = ({ tbl_name: owner }: SchemaRow): boolean =>
      tables.length === 0 || tables.includes(owner);
    const wanted = schema.filter(isWanted);
    yield 'PRAGMA foreign_keys=OFF;';
    yield 'BEGIN TRANSACTION;';
    if (tables.length === 0) yield* numbers(database);
    let hasVirtual = false;
    for (const row of wanted.filter(({ type }) => type === 'table')) {
      const isVirtual = /^CREATE\s+VIRTUAL\s+TABLE/i.test(row.sql ?? '');
      if (isVirtual && !hasVirtual) yield 'PRAGMA writable_schema=ON;';
      hasVirtual ||= isVirtual;
      yield* isVirtual ? virtualTable(row) : table(database, row);
    }
    if (hasVirtual) yield 'PRAGMA writable_schema=OFF;';
    for (const { type, sql } of wanted) if (type !== 'table' && sql !== null) yield `${sql};`;
    yield 'COMMIT;';
  } finally {
    database.close();
  }
}

function requireTables(schema: readonly SchemaRow[], tables: readonly string[]): void {
  for (const name of tables) {
    if (schema.some((row) => row.name === name && (row.type === 'table' || row.type === 'view'))) continue;
    const names = schema.filter(({ type }) => type === 'table').map((row) => sanitizeText(row.name, 60));
    throw new SqlsyncError('USAGE', `The snapshot has no table ${sanitizeText(name, 100)}`, {
      hint: `It has ${names.slice(0, 20).join(', ')}${names.length > 20 ? ', …' : ''}.`,
    });
  }
}

/** What an application may have put into the header. */
function* numbers(database: RawDatabase): Generator<string> {
  for (const name of ['application_id', 'user_version']) {
    const value = database.pragma(name, { simple: true });
    if (value !== 0) yield `PRAGMA ${name}=${String(value)};`;
  }
}

/** Its module may be missing here, and its content is in tables of its own: only the schema's row is made. */
function* virtualTable({ name, tbl_name: owner, sql }: SchemaRow): Generator<string> {
  const values = ['table', name, owner].map(quote).join(',');
  yield `INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql) VALUES(${values},0,${quote(sql ?? '')});`;
}

function* table(database: RawDatabase, { name, sql }: SchemaRow): Generator<string> {
  if (name === 'sqlite_sequence') yield 'DELETE FROM sqlite_sequence;';
  else if (name.startsWith('sqlite_stat')) yield 'ANALYZE sqlite_schema;';
  else if (name.startsWith('sqlite_')) return;
  else yield `${(sql ?? '').replace(/^CREATE TABLE ("sqlite_)/, 'CREATE TABLE IF NOT EXISTS $1')};`;
  const info = database.prepare(`SELECT name, hidden FROM pragma_table_xinfo(?)`).all(name) as {
    name: string;
    hidden: number;
  }[];
  const columns = info.filter(({ hidden }) => hidden === 0).map((column) => identifier(column.name));
  const list = columns.length === info.length ? '' : `(${columns.join(',')})`;
  const rows = database
    .prepare(`SELECT ${columns.join(',')} FROM ${identifier(name)}`)
    .raw(true)
    .safeIntegers(true);
  for (const row of rows.iterate() as Iterable<unknown[]>) {
    yield `INSERT INTO ${identifier(name)}${list} VALUES(${row.map(literal).join(',')});`;
  }
}

function identifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A value as SQL that gives it back, with its type. */
function literal(value: unknown): string {
  if (value === null) return 'NULL';
  if (typeof value === 'bigint') return String(value);
  if (typeof value === 'number') return real(value);
  if (typeof value === 'string') return quote(value);
  return `X'${(value as Buffer).toString('hex')}'`;
}

/** Shortest form that reads back as the same number; with a point, so that it is no integer. */
function real(value: number): string {
  if (value === Infinity) return '9e999';
  if (value === -Infinity) return '-9e999';
  const text = Object.is(value, -0) ? '-0' : String(value);
  return /[.e]/.test(text) ? text : `${text}.0`;
}

/** SQL ends at a NUL, so text with one is put together. */
function quote(text: string): string {
  const parts = text.split('\0').map((part) => `'${part.replaceAll("'", "''")}'`);
  return parts.length === 1 ? (parts[0] as string) : `(${parts.join('||char(0)||')})`;
}
