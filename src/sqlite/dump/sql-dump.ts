import { SqlsyncError, sanitizeLine, sanitizeText, systemErrorCode } from '../../errors.ts';
import type { RawDatabase } from '../binding.ts';
import { openRaw } from '../binding.ts';
import { databaseUri } from '../database-uri.ts';
import { foldName, literal, quoteText } from './literals.ts';
import type { TextEncoding } from './literals.ts';
import type { TableShape } from './row-scan.ts';
import { readStoredSchema } from './stored-schema.ts';
import type { DumpedEntry, StoredSchema } from './stored-schema.ts';
import { insertsOf } from './table-rows.ts';
import { tableShape } from './table-shape.ts';
import { namedEntries, withShadowTables } from './shadow-tables.ts';
import type { NamedEntry } from './shadow-tables.ts';

/** SQLite accepts a billion bytes of SQL, and a string here has half a billion characters. */
const PIECE_BYTES = 16 * 1024 * 1024;

export interface DumpReport {
  /** Called with what the dump lacks, and why. */
  onOmission(omission: string): void;
  /**
   * Called with a remark on what the dump contains, such as an application's function that it needs when it is read
   * back.
   */
  onRemark(remark: string): void;
}

/**
 * The statements that recreate a database, one per line, as the shell's `.dump` writes them. No program may change the
 * database meanwhile; `path` is absolute. `tables` limits the dump to these tables, with their indexes and triggers and
 * with what belongs to a virtual table. Unlike the shell's dump it also restores text that is not valid in its encoding
 * or contains a NUL, rowids that are not 1, 2, 3 …, the encoding, and the numbers of the header.
 *
 * The database may come from anyone. Every line of the dump is a statement, a comment, or the continuation of a quoted
 * name or text. The dump leaves out what cannot be read and what is no statement of the schema; the report and a
 * comment in the dump say so.
 *
 * Throws SqlsyncError USAGE for an unknown table, ORIGIN_UNREADABLE if SQLite cannot read the file at all.
 */
export function* dumpSql(
  path: string,
  tables: readonly string[],
  report: DumpReport,
  pieceBytes: number = PIECE_BYTES,
): Generator<string> {
  const database = openRaw(databaseUri(path, { mode: 'ro', immutable: true }), {
    readonly: true,
    fileMustExist: true,
  });
  try {
    yield* new SqlDump(database, tables, report, pieceBytes).statements();
  } finally {
    database.close();
  }
}

class SqlDump {
  readonly #database: RawDatabase;
  readonly #tables: readonly string[];
  readonly #report: DumpReport;
  readonly #pieceBytes: number;
  /** Remarks since the last statement. */
  #comments: string[] = [];

  constructor(database: RawDatabase, tables: readonly string[], report: DumpReport, pieceBytes: number) {
    this.#pieceBytes = pieceBytes;
    this.#database = database;
    this.#tables = tables;
    this.#report = report;
  }

  *statements(): Generator<string> {
    const encoding = this.#prepare();
    const schema = this.#schema(encoding);
    const tables = schema.entries.filter(({ type }) => type === 'table');
    const virtual = tables.filter(({ statement }) => statement.kind === 'virtual-table');
    const ordinary = tables.filter((entry) => !virtual.includes(entry));
    if (virtual.length > 0)
      yield '/* This needs a shell that is not in defensive mode: .dbconfig defensive off */';
    yield* this.#takeComments();
    if (this.#isWhole && encoding !== 'UTF-8') yield `PRAGMA encoding='${encoding}';`;
    yield 'PRAGMA foreign_keys=OFF;';
    // Rows may be older than a CHECK, and valid for an application that defines its functions in another way.
    yield 'PRAGMA ignore_check_constraints=ON;';
    yield 'BEGIN TRANSACTION;';
    if (this.#isWhole) yield* numbers(this.#database);
    for (const entry of ordinary) yield* this.#table(entry, encoding);
    if (this.#isWhole && schema.internal.has('sqlite_stat1')) yield* this.#statistics(encoding);
    if (schema.internal.has('sqlite_sequence')) yield* this.#sequences(ordinary);
    for (const { type, statement } of schema.entries) if (type !== 'table') yield `${statement.dumped};`;
    yield* virtualTables(virtual);
    yield 'COMMIT;';
    yield 'PRAGMA ignore_check_constraints=OFF;';
    if (virtual.length > 0) yield 'PRAGMA writable_schema=RESET;';
  }

  get #isWhole(): boolean {
    return this.#tables.length === 0;
  }

  /** Lets SQLite read as much as it can of a schema with errors, and returns the encoding. */
  #prepare(): TextEncoding {
    const database = this.#database;
    try {
      database.unsafeMode(true);
      database.pragma('writable_schema = ON');
      database.pragma('trusted_schema = OFF');
      database.pragma('cell_size_check = ON');
      return database.pragma('encoding', { simple: true }) as TextEncoding;
    } catch (error) {
      if (systemErrorCode(error)?.startsWith('SQLITE_') !== true) throw error;
      throw new SqlsyncError(
        'ORIGIN_UNREADABLE',
        `SQLite cannot read the database of this snapshot: ${(error as Error).message}`,
        {
          hint: 'Restore it to a file, and try `sqlite3 FILE .recover`; or dump an older snapshot.',
          cause: error,
        },
      );
    }
  }

  #schema(encoding: TextEncoding): StoredSchema {
    let wanted: ReadonlySet<string> | undefined;
    if (!this.#isWhole) {
      const known = namedEntries(this.#database);
      requireTables(known, this.#tables);
      wanted = withShadowTables(this.#database, known, this.#tables);
    }
    return readStoredSchema(this.#database, encoding, (name) => wanted?.has(foldName(name)) ?? true, {
      onOmission: (object, why) => this.#omit(object, why),
      onRemark: (object, remark) => {
        const text = sanitizeLine(`${object}: ${remark}`, 500);
        this.#comments.push(`-- ${text}`);
        this.#report.onRemark(text);
      },
    });
  }

  #omit(object: string, why: string): void {
    const text = sanitizeLine(`${object}: ${why}`, 500);
    this.#comments.push(`-- Left out: ${text}`);
    this.#report.onOmission(text);
  }

  *#takeComments(): Generator<string> {
    yield* this.#comments;
    this.#comments = [];
  }

  *#table(entry: DumpedEntry, encoding: TextEncoding): Generator<string> {
    yield `${entry.statement.dumped};`;
    yield* this.#rows(entry.name, encoding);
  }

  *#rows(name: string, encoding: TextEncoding): Generator<string> {
    const shown = `table ${sanitizeLine(name, 100)}`;
    const shape: TableShape | undefined = tableShape(this.#database, name);
    if (shape === undefined) this.#omit(shown, 'its rows: SQLite cannot find it by its entry in the schema');
    else {
      const onUnreadable = (what: string): void => this.#omit(shown, what);
      const pieceBytes = this.#pieceBytes;
      yield* insertsOf({ database: this.#database, table: shape, encoding, pieceBytes, onUnreadable });
    }
    yield* this.#takeComments();
  }

  /** Only the rows of sqlite_stat1: not every SQLite has the other tables, and ANALYZE makes them. */
  *#statistics(encoding: TextEncoding): Generator<string> {
    yield 'ANALYZE sqlite_master;';
    yield* this.#rows('sqlite_stat1', encoding);
  }

  /** The last ids of AUTOINCREMENT tables. SQLite keeps them in a table that it makes with the first such table. */
  *#sequences(tables: readonly DumpedEntry[]): Generator<string> {
    const counted = new Set(
      tables.filter(({ statement }) => statement.hasAutoincrement).map(({ name }) => foldName(name)),
    );
    try {
      const query = this.#database.prepare('SELECT name, seq FROM sqlite_sequence');
      for (const [name, last] of query.raw(true).safeIntegers(true).all() as [unknown, unknown][]) {
        if (typeof name !== 'string' || !counted.has(foldName(name))) continue;
        yield `DELETE FROM sqlite_sequence WHERE name=${quoteText(name)};`;
        yield `INSERT INTO sqlite_sequence VALUES(${quoteText(name)},${literal(last)});`;
      }
    } catch (error) {
      if (systemErrorCode(error)?.startsWith('SQLITE_') !== true) throw error;
      this.#omit('the last ids of AUTOINCREMENT', (error as Error).message);
      yield* this.#takeComments();
    }
  }
}

function requireTables(known: readonly NamedEntry[], tables: readonly string[]): void {
  for (const name of tables) {
    if (known.some((row) => row.name === name)) continue;
    const names = known.filter(({ type }) => type === 'table').map((row) => sanitizeText(row.name, 60));
    const has = `It has ${names.slice(0, 20).join(', ')}${names.length > 20 ? ', …' : ''}.`;
    throw new SqlsyncError('USAGE', `The snapshot has no table ${sanitizeText(name, 100)}`, {
      hint: names.length === 0 ? 'It has no tables.' : has,
    });
  }
}

/** Header numbers that an application may have set. */
function* numbers(database: RawDatabase): Generator<string> {
  for (const name of ['application_id', 'user_version']) {
    const value = database.pragma(name, { simple: true });
    if (value !== 0) yield `PRAGMA ${name}=${String(value)};`;
  }
}

/**
 * Makes only the schema entries: their modules may be missing where the dump is read, and their content is in other
 * tables. Leaves an existing one as it is, because a second entry would make the whole database unreadable.
 */
function* virtualTables(entries: readonly DumpedEntry[]): Generator<string> {
  if (entries.length === 0) return;
  yield 'PRAGMA writable_schema=ON;';
  for (const { name, owner, statement } of entries) {
    const values = ['table', name, owner].map(quoteText).join(',');
    const isNew = `NOT EXISTS(SELECT 1 FROM sqlite_master WHERE name=${quoteText(name)} COLLATE NOCASE)`;
    yield `INSERT INTO sqlite_master(type,name,tbl_name,rootpage,sql) SELECT ${values},0,${quoteText(statement.sql)} WHERE ${isNew};`;
  }
  yield 'PRAGMA writable_schema=OFF;';
}
