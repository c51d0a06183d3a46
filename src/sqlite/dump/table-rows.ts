import { systemErrorCode } from '../../errors.ts';
import type { Statement } from 'better-sqlite3';
import { identifier, literal, textLiteral } from './literals.ts';
import type { TextEncoding } from './literals.ts';
import { largeRow } from './large-row.ts';
import type { Place, RowScan } from './row-scan.ts';

/**
 * A row whose SQL has more characters than this many pieces is written in pieces: a string of V8 ends at 512 million.
 */
const ROW_MAX_PIECES = 4;

/**
 * The INSERT statements of all rows that can be read. At damage the scan of a table with rowids continues from its
 * other end, so that only the rows between two damaged places are lost.
 */
export function* insertsOf(scan: RowScan): Generator<string> {
  const forward = new Scan(scan, 'forward');
  const damage = yield* forward.inserts();
  if (damage === undefined) return;
  if (scan.table.rowid === undefined) {
    scan.onUnreadable(`its rows after the first ${forward.place.count}: ${damage}`);
    return;
  }
  const backward = new Scan(scan, 'backward', forward.place.rowid);
  yield* backward.inserts();
  const [first, last] = [forward.place.rowid, backward.place.rowid];
  const after = first === undefined ? '' : ` after rowid ${first}`;
  const before = last === undefined ? '' : `${first === undefined ? '' : ' and'} before rowid ${last}`;
  scan.onUnreadable(`its rows${after}${before}: ${damage}`);
}

class Scan {
  place: Place = { rowid: undefined, count: 0 };
  readonly #scan: RowScan;
  readonly #isBackward: boolean;
  /** The rowid at which a backward scan ends. */
  readonly #floor: bigint | undefined;
  /**
   * True to read text as its bytes, which takes more than twice the time. The driver returns replacement characters for
   * invalid text, and SQLite makes other text of invalid UTF-16.
   */
  #isExact: boolean;

  constructor(scan: RowScan, direction: 'forward' | 'backward', floor?: bigint) {
    this.#scan = scan;
    this.#isBackward = direction === 'backward';
    this.#floor = floor;
    this.#isExact = scan.encoding !== 'UTF-8';
  }

  /** Returns SQLite's report of the damage that ended the scan; undefined without damage. */
  *inserts(): Generator<string, string | undefined> {
    for (;;) {
      try {
        const isAtEnd = yield* this.#insertsAtOnce();
        if (isAtEnd) return undefined;
      } catch (error) {
        const code = systemErrorCode(error);
        if (code?.startsWith('SQLITE_') !== true) throw error;
        const isTooBig = code === 'SQLITE_TOOBIG';
        const next = isTooBig ? this.#nextPlace() : undefined;
        if (next === undefined) return (error as Error).message;
        yield* this.#large(next);
      }
    }
  }

  /** The rows from the place on. Returns false if the rest must be read in another way. */
  *#insertsAtOnce(): Generator<string, boolean> {
    const isExact = this.#isExact;
    const { table, encoding } = this.#scan;
    const hasRowid = table.rowid !== undefined;
    for (const row of this.#select(isExact)) {
      const place = {
        rowid: hasRowid ? (row.shift() as bigint) : undefined,
        count: this.place.count + 1,
      };
      if (!isExact && row.some((value) => typeof value === 'string' && value.includes('\ufffd'))) {
        this.#isExact = true;
        return false;
      }
      if (lengthOf(row) > ROW_MAX_PIECES * this.#scan.pieceBytes) {
        yield* this.#large(place);
        return false;
      }
      const values = isExact ? exactLiterals(row, encoding) : row.map(literal);
      yield `${table.insert}(${values.join(',')});`;
      this.place = place;
    }
    return true;
  }

  *#large(place: Place): Generator<string> {
    this.place = place;
    yield* largeRow(this.#scan, place);
  }

  /**
   * In the order of the rowids, which an index would not give. Names are qualified, because a quoted name that is no
   * column is text.
   */
  #select(isExact: boolean): Iterable<unknown[]> {
    const { table } = this.#scan;
    const columns = table.columns.flatMap((column) =>
      isExact
        ? [
            `CASE typeof(t.${column}) WHEN 'text' THEN CAST(t.${column} AS BLOB) ELSE t.${column} END`,
            `typeof(t.${column})='text'`,
          ]
        : [`t.${column}`],
    );
    if (table.rowid !== undefined) columns.unshift(`t.${table.rowid}`);
    return this.#prepare(columns.join(',')).iterate();
  }

  /** The place of the next row, found without reading the row. */
  #nextPlace(): Place | undefined {
    const { table } = this.#scan;
    const count = this.place.count + 1;
    if (table.rowid === undefined) return { rowid: undefined, count };
    const row = this.#prepare(`t.${table.rowid}`, 1).get() as [bigint] | undefined;
    return row === undefined ? undefined : { rowid: row[0], count };
  }

  #prepare(columns: string, limit = -1): Statement<[], unknown[]> {
    const { database, table } = this.#scan;
    const { rowid } = table;
    const parts = [`SELECT ${columns} FROM ${identifier(table.name)} AS t NOT INDEXED`];
    if (rowid !== undefined) {
      const bounds: string[] = [];
      if (this.place.rowid !== undefined)
        bounds.push(`t.${rowid} ${this.#isBackward ? '<' : '>'} ${this.place.rowid}`);
      if (this.#floor !== undefined) bounds.push(`t.${rowid} > ${this.#floor}`);
      if (bounds.length > 0) parts.push(`WHERE ${bounds.join(' AND ')}`);
      if (this.#isBackward) parts.push(`ORDER BY t.${rowid} DESC`);
    }
    if (limit >= 0 || rowid === undefined) parts.push(`LIMIT ${limit}`);
    if (rowid === undefined) parts.push(`OFFSET ${this.place.count}`);
    return database.prepare<[], unknown[]>(parts.join(' ')).raw(true).safeIntegers(true);
  }
}

/** About how many characters the values take as SQL. */
function lengthOf(row: readonly unknown[]): number {
  let length = 0;
  for (const value of row) {
    if (typeof value === 'string') length += value.length;
    else if (value instanceof Uint8Array) length += 2 * value.length;
  }
  return length;
}

/** For values that come in pairs: the value with text as its bytes, and whether it is text. */
function exactLiterals(row: readonly unknown[], encoding: TextEncoding): string[] {
  const values: string[] = [];
  for (let i = 0; i < row.length; i += 2) {
    const value = row[i];
    values.push(row[i + 1] === 1n ? textLiteral(value as Buffer | null, encoding) : literal(value));
  }
  return values;
}
