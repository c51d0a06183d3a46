import { sanitizeText } from '../errors.ts';

export interface Column<Row> {
  readonly title: string;
  readonly isRight?: boolean;
  readonly cell: (row: Row) => string;
}

/** Rows in columns as wide as their widest cell, with a line of titles; columns without any content are left out. */
export function formatTable<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const cells = rows.map((row) =>
    columns.map((column) => sanitizeText(column.cell(row), 1000).replaceAll('\n', ' ')),
  );
  const used = columns.flatMap((column, i) => (cells.some((line) => line[i] !== '') ? [{ column, i }] : []));
  const widths = used.map(({ column, i }) =>
    Math.max(column.title.length, ...cells.map((line) => line[i]?.length ?? 0)),
  );
  const format = (line: readonly string[]): string =>
    used
      .map(({ column }, at) => {
        const cell = line[at] ?? '';
        const width = widths[at] ?? 0;
        return column.isRight === true ? cell.padStart(width) : cell.padEnd(width);
      })
      .join('  ')
      .trimEnd();
  return [
    format(used.map(({ column }) => column.title)),
    ...cells.map((line) => format(used.map(({ i }) => line[i] ?? ''))),
  ].join('\n');
}
