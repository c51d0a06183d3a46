import { isUtf8 } from 'node:buffer';

/** The encoding of the text of a database. */
export type TextEncoding = 'UTF-8' | 'UTF-16le' | 'UTF-16be';

export function identifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A name as SQLite compares names: it folds upper and lower case of ASCII letters only. */
export function foldName(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase());
}

/** A value as SQL on one line that yields it again, with its type. */
export function literal(value: unknown): string {
  if (value === null) return 'NULL';
  if (typeof value === 'bigint') return String(value);
  if (typeof value === 'number') return real(value);
  if (typeof value === 'string') return quoteText(value);
  return `X'${(value as Buffer).toString('hex')}'`;
}

/** The SQL for a text that the database stores as these bytes. */
export function textLiteral(bytes: Buffer | null, encoding: TextEncoding): string {
  const text = validText(bytes ?? Buffer.alloc(0), encoding);
  return text === undefined ? `CAST(${literal(bytes)} AS TEXT)` : quoteText(text);
}

/** undefined for text that SQL, which is UTF-8, cannot contain. */
export function validText(bytes: Buffer, encoding: TextEncoding): string | undefined {
  if (encoding === 'UTF-8') return isUtf8(bytes) ? bytes.toString() : undefined;
  if (bytes.length % 2 !== 0) return undefined;
  const text = (encoding === 'UTF-16le' ? bytes : Buffer.from(bytes).swap16()).toString('utf16le');
  // SQLite takes these two noncharacters for errors when it makes UTF-16 of them.
  return text.isWellFormed() && !/[\ufffe\uffff]/.test(text) ? text : undefined;
}

/** The shortest form that reads back as the same number; with a point, so that it is no integer. */
function real(value: number): string {
  if (value === Infinity) return '9e999';
  if (value === -Infinity) return '-9e999';
  const text = Object.is(value, -0) ? '-0' : String(value);
  return /[.e]/.test(text) ? text : `${text}.0`;
}

/**
 * Characters that text must not contain literally: SQL ends at a NUL, and line readers change a carriage return or take
 * a line for a command.
 */
const ESCAPED = [
  ['\0', '0'],
  ['\r', 'r'],
  ['\n', 'n'],
] as const;

/** Text in quotes, on one line. Characters that cannot stand there are written as others, and SQLite puts them back. */
export function quoteText(text: string): string {
  let quoted = `'${text.replaceAll("'", "''")}'`;
  for (const [character, name] of ESCAPED) {
    if (!text.includes(character)) continue;
    const stand = standIn(text, name);
    quoted = `replace(${quoted.replaceAll(character, stand)},'${stand}',char(${character.charCodeAt(0)}))`;
  }
  return quoted;
}

/**
 * A text that `text` does not contain. Its only backslash is its first character, so it cannot arise between two of
 * them.
 */
function standIn(text: string, name: string): string {
  for (let i = 0; ; i++) {
    const stand = `\\${name}${i === 0 ? '' : `${i};`}`;
    if (!text.includes(stand)) return stand;
  }
}
