import { sanitizeLine, systemErrorCode } from '../../errors.ts';
import type { RawDatabase } from '../binding.ts';
import { foldName, validText } from './literals.ts';
import type { TextEncoding } from './literals.ts';
import { SchemaJudge } from './schema-judge.ts';
import type { SchemaEntry } from './schema-judge.ts';
import { readStoredStatement } from './stored-statement.ts';
import type { StoredStatement } from './stored-statement.ts';

/** An entry of the schema whose statement SQLite accepts as the one that creates it. */
export interface DumpedEntry {
  readonly type: string;
  readonly name: string;
  readonly owner: string;
  readonly statement: StoredStatement;
}

export interface StoredSchema {
  readonly entries: readonly DumpedEntry[];
  /** The tables of SQLite itself that a dump fills: the last ids and the statistics. */
  readonly internal: ReadonlySet<string>;
}

export interface SchemaReport {
  /** The dump leaves out `object`. */
  onOmission(object: string, why: string): void;
  /** The dump contains `object`, with a remark on it. */
  onRemark(object: string, remark: string): void;
}

/** A row of `sqlite_schema`, with its text as bytes. */
type RawRow = readonly [type: Buffer | null, name: Buffer | null, owner: Buffer | null, sql: Buffer | null];

/**
 * Reads and judges the schema, or the part of it that `isWanted` accepts; an index or a trigger goes with its table.
 */
export function readStoredSchema(
  database: RawDatabase,
  encoding: TextEncoding,
  isWanted: (name: string) => boolean,
  report: SchemaReport,
): StoredSchema {
  const judge = new SchemaJudge();
  try {
    return new SchemaReader(judge, encoding, isWanted, report).read(rawRows(database, report));
  } finally {
    judge.close();
  }
}

function rawRows(database: RawDatabase, report: SchemaReport): RawRow[] {
  const rows: RawRow[] = [];
  const columns = ['type', 'name', 'tbl_name', 'sql'].map((column) => `CAST(${column} AS BLOB)`);
  try {
    const query = database.prepare(`SELECT ${columns.join(',')} FROM sqlite_schema`).raw(true);
    for (const row of query.iterate()) rows.push(row as RawRow);
  } catch (error) {
    if (systemErrorCode(error)?.startsWith('SQLITE_') !== true) throw error;
    report.onOmission(
      'the schema',
      `its entries after the first ${rows.length}: ${(error as Error).message}`,
    );
  }
  return rows;
}

/** Tables first, because SQLite needs them to judge the others; then in the order in which a dump creates them. */
const ORDER = ['table', 'index', 'view', 'trigger'];

class SchemaReader {
  readonly #judge: SchemaJudge;
  readonly #encoding: TextEncoding;
  readonly #isWanted: (name: string) => boolean;
  readonly #report: SchemaReport;
  /** Accepted entries, by name as SQLite compares names. */
  readonly #accepted = new Map<string, DumpedEntry>();
  readonly #refused = new Set<string>();

  constructor(
    judge: SchemaJudge,
    encoding: TextEncoding,
    isWanted: (name: string) => boolean,
    report: SchemaReport,
  ) {
    this.#judge = judge;
    this.#encoding = encoding;
    this.#isWanted = isWanted;
    this.#report = report;
  }

  read(rows: readonly RawRow[]): StoredSchema {
    const internal = new Set<string>();
    const texts = rows.map((row) => ({
      row,
      type: this.#text(row[0]) ?? '',
      name: this.#text(row[1]),
      owner: this.#text(row[2]),
    }));
    for (const type of [...ORDER, undefined]) {
      for (const { row, name, owner, ...entry } of texts) {
        if (type === undefined ? ORDER.includes(entry.type) : entry.type !== type) continue;
        const shown = `${entry.type || 'entry'} ${sanitizeLine(name ?? row[1]?.toString() ?? '', 100)}`;
        if (name !== undefined && isInternal(name)) internal.add(name);
        else if (!this.#isWanted(owner ?? '')) continue;
        else if (row[3] === null && entry.type === 'index')
          continue; // of a constraint: made with its table
        else if (type === undefined || name === undefined || owner === undefined || name.includes('\0'))
          this.#refuse(shown, name, 'its entry in the schema is none that SQLite makes');
        else this.#take({ type, name, owner }, row[3], shown);
      }
    }
    return { entries: [...this.#accepted.values()], internal };
  }

  #take(
    entry: { readonly type: string; readonly name: string; readonly owner: string },
    sql: Buffer | null,
    shown: string,
  ): void {
    const { type, name } = entry;
    // Reported with its table.
    if ((type === 'index' || type === 'trigger') && this.#refused.has(foldName(entry.owner))) return;
    const statement = readStoredStatement(this.#utf8(sql) ?? Buffer.alloc(0));
    if ('why' in statement) return this.#refuse(shown, name, statement.why);
    if (this.#accepted.has(foldName(name)))
      return this.#refuse(shown, undefined, 'the schema has another entry of that name');
    const judged = asJudged({ ...entry, statement });
    const owner = this.#accepted.get(foldName(entry.owner));
    const judgedOwner = type === 'index' || type === 'trigger' ? owner && asJudged(owner) : undefined;
    const refusal = this.#judge.refusal(judged, judgedOwner);
    if (refusal !== undefined) return this.#refuse(shown, name, refusal);
    this.#accepted.set(foldName(name), { ...entry, statement });
    const feature = this.#judge.missing(judged, judgedOwner);
    if (feature !== undefined)
      this.#report.onRemark(shown, `to restore it takes ${feature}, which this SQLite does not have`);
    if (statement.hasMore)
      this.#report.onRemark(
        shown,
        'more text follows its SQL in the schema; SQLite ignores it, and the dump is without it',
      );
  }

  #refuse(shown: string, name: string | undefined, why: string): void {
    if (name !== undefined) this.#refused.add(foldName(name));
    this.#report.onOmission(shown, why);
  }

  #text(bytes: Buffer | null): string | undefined {
    return bytes === null ? undefined : validText(bytes, this.#encoding);
  }

  /** SQL in UTF-8. Bytes that are not valid UTF-8 stay as they are, since they may be in a comment. */
  #utf8(bytes: Buffer | null): Buffer | null {
    if (bytes === null || this.#encoding === 'UTF-8') return bytes;
    const even = bytes.subarray(0, bytes.length & ~1);
    return Buffer.from(
      (this.#encoding === 'UTF-16le' ? even : Buffer.from(even).swap16()).toString('utf16le'),
    );
  }
}

function asJudged({ type, name, owner, statement }: DumpedEntry): SchemaEntry {
  return { type, name, owner, sql: statement.dumped, isVirtual: statement.kind === 'virtual-table' };
}

/** Names that SQLite reserves for itself. */
export function isInternal(name: string): boolean {
  return /^sqlite_(?:sequence|stat\d|autoindex_)/i.test(name);
}
