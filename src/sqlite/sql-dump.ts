import { isUtf8 } from 'node:buffer';
import { SqlsyncError, sanitizeText } from '../errors.ts';
import type { RawDatabase } from './binding.ts';
import { openRaw } from './binding.ts';
import { databaseUri } from './database-uri.ts';

type Encoding = 'UTF-8' | 'UTF-16le' | 'UTF-16be';

interface SchemaRow {
  readonly type: string;
  readonly name: string;
  readonly tbl_name: string;
  readonly sql: string | null;
}

/**
 * The statements that make a database anew, one after another, as the shell's `.dump` has them: a database that nobody
 * changes (`path` is absolute), or of it `tables` with their indexes and triggers. Other than the shell's it also gives back
 * text that is not valid in its encoding or has a NUL, rowids that are not 1, 2, 3 …, the encoding, and the numbers of the header.
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
    const wanted = schema.filter(({ tbl_name: owner }) => tables.length === 0 || tables.includes(owner));
    const wantedTables = wanted.filter(({ type }) => type === 'table');
    const hasVirtual = wantedTables.some(isVirtual);
    const encoding = database.pragma('encoding', { simple: true }) as Encoding;
    if (hasVirtual) yield '/* This needs a shell that is not in defensive mode: .dbconfig defensive off */';
    if (tables.length === 0) yield* encodingOf(encoding);
    yield 'PRAGMA foreign_keys=OFF;';
    yield 'BEGIN TRANSACTION;';
    if (tables.length === 0) yield* numbers(database);
    if (hasVirtual) yield 'PRAGMA writable_schema=ON;';
    for (const row of wantedTables)
      yield* isVirtual(row) ? virtualTable(row) : table(database, row, encoding);
    if (hasVirtual) yield 'PRAGMA writable_schema=OFF;';
    if (schema.some(({ name }) => name === 'sqlite_sequence')) yield* sequences(database, wantedTables);
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
    const known = `It has ${names.slice(0, 20).join(', ')}${names.length > 20 ? ', …' : ''}.`;
    throw new SqlsyncError('USAGE', `The snapshot has no table ${sanitizeText(name, 100)}`, {
      hint: names.length === 0 ? 'It has no tables.' : known,
    });
  }
}

function isVirtual({ sql }: SchemaRow): boolean {
  return /^CREATE\s+VIRTUAL\s+TABLE/i.test(sql ?? '');
}

/** A new database has no encoding yet; one that has content keeps its own. */
function* encodingOf(encoding: Encoding): Generator<string> {
  if (encoding !== 'UTF-8') yield `PRAGMA encoding='${encoding}';`;
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

/** The last ids of tables with AUTOINCREMENT, which SQLite counts in a table of its own that comes with the first of them. */
function* sequences(database: RawDatabase, tables: readonly SchemaRow[]): Generator<string> {
  const rows = database.prepare('SELECT name, seq FROM sqlite_sequence').raw(true).safeIntegers(true).all();
  for (const [name, last] of rows as [unknown, unknown][]) {
    if (typeof name !== 'string' || !tables.some((row) => row.name === name)) continue;
    yield `DELETE FROM sqlite_sequence WHERE name=${quote(name)};`;
    yield `INSERT INTO sqlite_sequence VALUES(${quote(name)},${literal(last)});`;
  }
}

function* table(database: RawDatabase, { name, sql }: SchemaRow, encoding: Encoding): Generator<string> {
  // Of the statistics sqlite_stat1 alone: not every SQLite can have the others, and ANALYZE makes them.
  if (name === 'sqlite_stat1') yield 'ANALYZE sqlite_schema;';
  else if (name.startsWith('sqlite_')) return;
  else yield `${sql ?? ''};`;
  const info = database.prepare(`SELECT name, hidden FROM pragma_table_xinfo(?)`).all(name) as {
    name: string;
    hidden: number;
  }[];
  const stored = info.filter(({ hidden }) => hidden === 0).map((column) => identifier(column.name));
  const rowid = rowidToKeep(database, name);
  const columns = rowid === undefined ? stored : [rowid, ...stored];
  const list = rowid === undefined && stored.length === info.length ? '' : `(${columns.join(',')})`;
  const insert = `INSERT INTO ${identifier(name)}${list} VALUES`;
  for (const values of rowsOf(database, name, columns, encoding)) yield `${insert}(${values.join(',')});`;
}

/**
 * The rows as SQL. The driver gives text as strings, with replacement characters for what is not valid, and SQLite makes other
 * text of invalid UTF-16: from where that can be on, text is read as its bytes, which takes more than twice the time.
 */
function* rowsOf(
  database: RawDatabase,
  name: string,
  columns: readonly string[],
  encoding: Encoding,
): Generator<string[]> {
  // In the order of the rowids, which an index would not give; qualified, since a name in quotes that is no column is text.
  const from = `FROM ${identifier(name)} AS t NOT INDEXED`;
  const select = (values: readonly string[], after: number): Iterable<unknown[]> =>
    database
      .prepare(`SELECT ${values.join(',')} ${from} LIMIT -1 OFFSET ${after}`)
      .raw(true)
      .safeIntegers(true)
      .iterate() as Iterable<unknown[]>;
  let done = 0;
  if (encoding === 'UTF-8') {
    let isDoubtful = false;
    for (const row of select(
      columns.map((column) => `t.${column}`),
      0,
    )) {
      isDoubtful = row.some((value) => typeof value === 'string' && value.includes('\ufffd'));
      if (isDoubtful) break;
      yield row.map(literal);
      done++;
    }
    if (!isDoubtful) return;
  }
  const exact = columns.flatMap((column) => [
    `CASE typeof(t.${column}) WHEN 'text' THEN CAST(t.${column} AS BLOB) ELSE t.${column} END`,
    `typeof(t.${column})='text'`,
  ]);
  for (const row of select(exact, done)) yield exactLiterals(row, encoding);
}

/**
 * The name of the rowid, where rows that are inserted one after another would not get the ones that they have: those of a table
 * without an INTEGER PRIMARY KEY that are not 1, 2, 3 … An FTS5 index with external content refers to them.
 */
function rowidToKeep(database: RawDatabase, owner: string): string | undefined {
  if (owner.startsWith('sqlite_')) return undefined;
  const { wr: hasNone } = database
    .prepare(`SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?`)
    .get(owner) as { wr: number };
  const columns = database.prepare('SELECT name, pk FROM pragma_table_xinfo(?)').all(owner) as {
    name: string;
    pk: number;
  }[];
  const indexes = database
    .prepare(`SELECT count(*) FROM pragma_index_list(?) WHERE origin = 'pk'`)
    .pluck()
    .get(owner);
  // A primary key without an index is the rowid.
  const isNamed = columns.some(({ pk }) => pk > 0) && indexes === 0;
  const taken = new Set(columns.map(({ name }) => name.toLowerCase()));
  const rowid = ['rowid', '_rowid_', 'oid'].find((name) => !taken.has(name));
  if (hasNone === 1 || isNamed || rowid === undefined) return undefined;
  const { first, last, count } = database
    .prepare(
      `SELECT min(${rowid}) AS first, max(${rowid}) AS last, count(*) AS count FROM ${identifier(owner)} NOT INDEXED`,
    )
    .safeIntegers(true)
    .get() as { first: bigint | null; last: bigint | null; count: bigint };
  return first === null || (first === 1n && last === count) ? undefined : rowid;
}

function identifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Of values that come in pairs: the value, text as its bytes, and whether it is text. */
function exactLiterals(row: readonly unknown[], encoding: Encoding): string[] {
  const values: string[] = [];
  for (let i = 0; i < row.length; i += 2) {
    const value = row[i];
    values.push(row[i + 1] === 1n ? textLiteral(value as Buffer | null, encoding) : literal(value));
  }
  return values;
}

/** A value as SQL that gives it back, with its type. */
function literal(value: unknown): string {
  if (value === null) return 'NULL';
  if (typeof value === 'bigint') return String(value);
  if (typeof value === 'number') return real(value);
  if (typeof value === 'string') return quote(value);
  return `X'${(value as Buffer).toString('hex')}'`;
}

/** `bytes` as the database holds them. */
function textLiteral(bytes: Buffer | null, encoding: Encoding): string {
  const text = validText(bytes ?? Buffer.alloc(0), encoding);
  return text === undefined ? `CAST(${literal(bytes)} AS TEXT)` : quote(text);
}

/** undefined where SQL, which is UTF-8, cannot have it. */
function validText(bytes: Buffer, encoding: Encoding): string | undefined {
  if (encoding === 'UTF-8') return isUtf8(bytes) ? bytes.toString() : undefined;
  if (bytes.length % 2 !== 0) return undefined;
  const text = (encoding === 'UTF-16le' ? bytes : Buffer.from(bytes).swap16()).toString('utf16le');
  // SQLite takes the two that are no characters for faults as it makes UTF-16 of them.
  return text.isWellFormed() && !/[\ufffe\uffff]/.test(text) ? text : undefined;
}

/** Shortest form that reads back as the same number; with a point, so that it is no integer. */
function real(value: number): string {
  if (value === Infinity) return '9e999';
  if (value === -Infinity) return '-9e999';
  const text = Object.is(value, -0) ? '-0' : String(value);
  return /[.e]/.test(text) ? text : `${text}.0`;
}

/** SQL ends at a NUL, and the shell drops a carriage return at the end of a line: they are written as others, and put back. */
function quote(text: string): string {
  let quoted = `'${text.replaceAll("'", "''")}'`;
  for (const [character, name] of [
    ['\0', '0'],
    ['\r', 'r'],
  ] as const) {
    if (!text.includes(character)) continue;
    const stand = standIn(text, name);
    quoted = `replace(${quoted.replaceAll(character, stand)},'${stand}',char(${character.charCodeAt(0)}))`;
  }
  return quoted;
}

/** What the text does not have; as it begins with the only backslash that it has, it cannot arise between two of them. */
function standIn(text: string, name: string): string {
  for (let i = 0; ; i++) {
    const stand = `\\${name}${i === 0 ? '' : `${i};`}`;
    if (!text.includes(stand)) return stand;
  }
}
