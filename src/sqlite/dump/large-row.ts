import { systemErrorCode } from '../../errors.ts';
import { identifier, literal, textLiteral } from './literals.ts';
import type { Place, RowScan } from './row-scan.ts';

/**
 * A temporary table of the connection that reads the dump. It assembles values, and has no affinity that could change
 * them.
 */
const PIECES = 'temp.sqlsync_pieces';

/**
 * The statements that insert the row at `place`, whose values are too large for one statement: SQLite accepts a billion
 * bytes of SQL, and a string in Node.js has at most half a billion characters.
 */
export function* largeRow(scan: RowScan, place: Place): Generator<string> {
  const { table } = scan;
  const read = reader(scan, place);
  const values: string[] = [];
  yield `CREATE TEMP TABLE sqlsync_pieces(id INTEGER PRIMARY KEY, value);`;
  try {
    for (const [index, column] of table.columns.entries()) {
      const [type, bytes] = read(`typeof(t.${column}), octet_length(t.${column})`) as [string, bigint | null];
      const isText = type === 'text';
      if ((type === 'text' || type === 'blob') && Number(bytes) > scan.pieceBytes) {
        yield* pieces(scan, read, column, index, Number(bytes));
        const whole = `(SELECT value FROM ${PIECES} WHERE id=${index})`;
        values.push(isText ? `CAST(${whole} AS TEXT)` : `substr(${whole},1,${bytes})`);
      } else {
        const [value] = read(isText ? `CAST(t.${column} AS BLOB)` : `t.${column}`);
        values.push(isText ? textLiteral(value as Buffer | null, scan.encoding) : literal(value));
      }
    }
    yield `${table.insert}(${values.join(',')});`;
  } catch (error) {
    const code = systemErrorCode(error);
    if (code?.startsWith('SQLITE_') !== true) throw error;
    const row = place.rowid === undefined ? `row ${place.count}` : `the row with rowid ${place.rowid}`;
    scan.onUnreadable(
      code === 'SQLITE_TOOBIG'
        ? `${row}: one of its values has more than the 512 MB that Node.js can hold; restore the whole database to get it`
        : `${row}: ${(error as Error).message}`,
    );
  }
  yield `DROP TABLE ${PIECES};`;
}

/**
 * SQLite can only append to text, byte by byte, of any value. UTF-16 needs an even number of them, so one is
 * too many.
 */
function* pieces(
  scan: RowScan,
  read: (columns: string) => unknown[],
  column: string,
  index: number,
  bytes: number,
): Generator<string> {
  yield `INSERT INTO ${PIECES} VALUES(${index},X'');`;
  for (let start = 0; start < bytes; start += scan.pieceBytes) {
    const [piece] = read(`substr(CAST(t.${column} AS BLOB), ${start + 1}, ${scan.pieceBytes})`) as [Buffer];
    const even = piece.length % 2 === 0 ? piece : Buffer.concat([piece, Buffer.alloc(1)]);
    const written = scan.encoding === 'UTF-8' ? piece : even;
    yield `UPDATE ${PIECES} SET value=CAST(value||${literal(written)} AS BLOB) WHERE id=${index};`;
  }
}

function reader({ database, table }: RowScan, place: Place): (columns: string) => unknown[] {
  const where =
    table.rowid === undefined
      ? `LIMIT 1 OFFSET ${place.count - 1}`
      : `WHERE t.${table.rowid} = ${place.rowid}`;
  const from = `FROM ${identifier(table.name)} AS t NOT INDEXED ${where}`;
  return (columns) =>
    database.prepare(`SELECT ${columns} ${from}`).raw(true).safeIntegers(true).get() as unknown[];
}
