import { sanitizeText } from '../../errors.ts';
import { columnsOf, padToColumns } from './wrap.ts';

export interface Column<Row> {
  readonly title: string;
  readonly isRight?: boolean;
  readonly cell: (row: Row) => string;
}

/** Rows in columns as wide as their widest cell, with a line of titles; leaves out columns without content. */
export function formatTable<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const cells = rows.map((row) =>
    columns.map((column) => sanitizeText(column.cell(row), 1000).replaceAll('\n', ' ')),
  );
  const used = columns.flatMap((column, i) => (cells.some((line) => line[i] !== '') ? [{ column, i }] : []));
  const widths = used.map(({ column, i }) =>
    Math.max(columnsOf(column.title), ...cells.map((line) => columnsOf(line[i] ?? ''))),
  );
  const format = (line: readonly string[]): string =>
    used
      .map(({ column }, at) => {
        const cell = line[at] ?? '';
        return padToColumns(cell, widths[at] ?? 0, column.isRight);
      })
      .join('  ')
      .trimEnd();
  return [
    format(used.map(({ column }) => column.title)),
    ...cells.map((line) => format(used.map(({ i }) => line[i] ?? ''))),
  ].join('\n');
}
