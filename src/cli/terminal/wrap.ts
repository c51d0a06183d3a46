import { createRequire } from 'node:module';

/** On a narrower terminal wrapping does not help. */
const MIN_COLUMNS = 30;

/** A line with a larger indent is a command to copy. */
const MAX_INDENT = 8;

// oxlint-disable-next-line no-control-regex -- colours take no columns
const COLOUR = /\u001b\[[\d;]*m/g;

let stringWidth: ((text: string) => number) | undefined;

/**
 * How many columns of a terminal `text` takes. Only text beyond ASCII loads the tables for that, which takes a while.
 */
export function columnsOf(text: string): number {
  const plain = text.replace(COLOUR, '');
  if (/^[ -~]*$/.test(plain)) return plain.length;
  const load = createRequire(import.meta.url);
  stringWidth ??= (load('string-width') as { default: (text: string) => number }).default;
  return stringWidth(plain);
}

/**
 * Breaks lines wider than `columns` between words. The continuation is indented by `indent`, or below the text of a
 * line that begins with a name and a gap. Rows of tables stay as they are. So do commands, in backquotes or on separate
 * lines, since a line that the terminal breaks can still be copied as one. Pure.
 */
export function wrapText(text: string, columns: number, indent: number = 0): string {
  if (columns < MIN_COLUMNS) return text;
  return text
    .split('\n')
    .map((line) => (columnsOf(line) > columns ? wrapLine(line, columns, indent) : line))
    .join('\n');
}

function wrapLine(line: string, columns: number, indent: number): string {
  const lead = /^ */.exec(line)?.[0] ?? '';
  const gaps = line.trimStart().match(/\S {2,}(?=\S)/g)?.length ?? 0;
  if (gaps > 1 || (lead.length > MAX_INDENT && lead.length > indent)) return line;
  const name = gaps === 1 ? (/^\S+ {2,}/.exec(line.slice(lead.length))?.[0] ?? '') : '';
  const hanging = ' '.repeat(Math.max(indent, lead.length + columnsOf(name)));
  const words = line.slice(lead.length + name.length).match(/(?:`[^`]*`|\S)+/g) ?? [];
  const lines: string[] = [];
  let current = lead + name;
  let isEmpty = true;
  for (const word of words) {
    const next = isEmpty ? current + word : `${current} ${word}`;
    if (!isEmpty && columnsOf(next) > columns) {
      lines.push(current);
      current = hanging + word;
    } else current = next;
    isEmpty = false;
  }
  return [...lines, current].join('\n');
}

/** The beginning of `text` that fits into this many columns. Pure. */
export function cutToColumns(text: string, columns: number): string {
  let cut = '';
  let width = 0;
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    width += columnsOf(segment);
    if (width > columns) break;
    cut += segment;
  }
  return cut;
}

/** `text` with spaces up to this many columns. Pure. */
export function padToColumns(text: string, columns: number, isRight: boolean = false): string {
  const padding = ' '.repeat(Math.max(0, columns - columnsOf(text)));
  return isRight ? padding + text : text + padding;
}
