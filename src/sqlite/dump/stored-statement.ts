import { isUtf8 } from 'node:buffer';
import { quoteText } from './literals.ts';
import { isBlank, sqlTokens } from './sql-tokens.ts';
import type { SqlToken } from './sql-tokens.ts';

export type SchemaKind = 'table' | 'virtual-table' | 'index' | 'view' | 'trigger';

/** The one statement that SQLite sees in the SQL of a schema entry. */
export interface StoredStatement {
  readonly kind: SchemaKind;
  /** The statement without what follows its last token. */
  readonly sql: string;
  /** The statement as the dump writes it, without its semicolon. */
  readonly dumped: string;
  /** Whether it has the keyword AUTOINCREMENT. */
  readonly hasAutoincrement: boolean;
  /** Whether more SQL follows, which SQLite ignores. */
  readonly hasMore: boolean;
  /** The module of a virtual table. */
  readonly module: string | undefined;
}

/** Why a stored text cannot be dumped. */
export interface Undumpable {
  readonly why: string;
}

/**
 * Reads the SQL of a schema entry from `bytes` in UTF-8, which may come from anyone. Like SQLite it takes the first
 * statement and ignores what follows: more statements, dot commands, an unclosed comment.
 *
 * Not only SQLite reads the dump, but also the `sqlite3` shell and programs that open it as text, which look at lines
 * first. So a statement whose lines mean something to one of them is laid out anew, without its comments.
 */
export function readStoredStatement(bytes: Buffer): StoredStatement | Undumpable {
  const end = bytes.indexOf(0);
  const all = [...sqlTokens((end < 0 ? bytes : bytes.subarray(0, end)).toString('latin1'))];
  const tokens = firstStatement(all);
  const lastToken = tokens.findLastIndex((token) => !isBlank(token));
  const statement = tokens.slice(0, lastToken + 1);
  const kind = kindOf(statement);
  if (kind === undefined) return { why: 'its SQL is no statement that creates it' };
  if (statement.some((token, index) => isRefused(token, statement[index + 1], kind)))
    return { why: 'SQLite cannot parse its SQL' };
  if (statement.some((token) => !isBlank(token) && !isUtf8(bytesOf(token.text))))
    return { why: 'its SQL has a name or a text that is not valid UTF-8' };
  if (
    statement.some(({ kind: of, text }) => of === 'quoted' && !text.startsWith("'") && text.includes('\r\n'))
  )
    return { why: 'it has a name with a line break of Windows, which the shell of SQLite would change' };
  const dumped = hasTellingLines(statement)
    ? statement.map(laidOut).join('')
    : decode([...statement, ...trailing(tokens.slice(lastToken + 1))].map(({ text }) => text).join(''));
  return {
    kind,
    sql: decode(statement.map(({ text }) => text).join('')),
    dumped,
    hasAutoincrement: statement.some(({ kind: of, text }) => of === 'word' && /^autoincrement$/i.test(text)),
    hasMore: all.slice(tokens.length + 1).some((token) => !isBlank(token)) || end >= 0,
    module: kind === 'virtual-table' ? moduleOf(statement) : undefined,
  };
}

/** The tokens up to the semicolon that ends the statement; semicolons in the body of a trigger do not end it. */
function firstStatement(tokens: readonly SqlToken[]): readonly SqlToken[] {
  const kind = kindOf(tokens);
  let depth = 0;
  let last: SqlToken | undefined;
  let lastButOne: SqlToken | undefined;
  for (const [index, token] of tokens.entries()) {
    if (isBlank(token)) continue;
    if (token.text === '(') depth++;
    else if (token.text === ')') depth--;
    else if (token.kind === 'semicolon') {
      const isInside =
        kind === 'trigger'
          ? !(isWord(last, 'end') && lastButOne?.kind === 'semicolon')
          : kind === 'virtual-table' && depth > 0;
      if (!isInside) return tokens.slice(0, index);
    }
    lastButOne = last;
    last = token;
  }
  return tokens;
}

const HEADS: readonly (readonly [SchemaKind, readonly string[]])[] = [
  ['table', ['create', 'table']],
  ['virtual-table', ['create', 'virtual', 'table']],
  ['index', ['create', 'index']],
  ['index', ['create', 'unique', 'index']],
  ['view', ['create', 'view']],
  ['trigger', ['create', 'trigger']],
];

/** Decided by its first words. TEMP is not among them: no file holds temporary objects. */
function kindOf(tokens: readonly SqlToken[]): SchemaKind | undefined {
  const words: SqlToken[] = [];
  for (const token of tokens) {
    if (!isBlank(token)) words.push(token);
    if (words.length === 3) break;
  }
  return HEADS.find(([, head]) => head.every((word, index) => isWord(words[index], word)))?.[0];
}

/** The word after USING, without its quotes. */
function moduleOf(statement: readonly SqlToken[]): string | undefined {
  const words = statement.filter((token) => !isBlank(token));
  const name = words[words.findIndex((token) => isWord(token, 'using')) + 1];
  if (name === undefined) return undefined;
  return decode(name.kind === 'quoted' ? name.text.slice(1, -1) : name.text);
}

/**
 * The arguments of a virtual table are any tokens. A parameter with a parenthesis hides its content from some builds of
 * SQLite.
 */
function isRefused({ kind, text }: SqlToken, next: SqlToken | undefined, of: SchemaKind): boolean {
  if (kind !== 'illegal') return false;
  return of !== 'virtual-table' || !/^[$@:#?]/.test(text) || next?.text === '(';
}

function isWord(token: SqlToken | undefined, word: string): boolean {
  return token?.kind === 'word' && token.text.toLowerCase() === word;
}

/**
 * True if a reader could take lines of the statement for something else. The shell ends a statement at a line that only
 * has `/` or `go`, and does not count a vertical tab as white space. Programs that read text make a line break of a
 * carriage return, which ends a comment, and is another character in a quoted text. Lines that begin with a dot or `#`
 * are commands in the shell, though not within a statement.
 */
function hasTellingLines(statement: readonly SqlToken[]): boolean {
  let outside = '';
  for (const { kind, text } of statement) {
    if (kind === 'quoted') {
      if (text.includes('\r')) return true;
      outside += 'x';
    } else if (kind === 'line-comment' || kind === 'block-comment') {
      if (/\r|[\n\v]\s*[.#]/.test(text.replaceAll('\r\n', '\n')) || !isUtf8(bytesOf(text))) return true;
      outside += ' ';
    } else outside += text;
  }
  return /\v|[\n\r]\s*(?:[.#]|(?:\/|go)\s*(?:[\n\r]|$))/i.test(outside);
}

/** The token on one line, except for quoted texts and names. */
function laidOut(token: SqlToken): string {
  if (isBlank(token)) return ' ';
  const text = decode(token.text);
  if (token.kind !== 'quoted' || !text.startsWith("'") || !text.includes('\r')) return text;
  return `(${quoteText(text.slice(1, -1).replaceAll("''", "'"))})`;
}

/**
 * Comments that follow the statement, which SQLite stores with some statements; closed, so that they do not hide the
 * semicolon.
 */
function trailing(tokens: readonly SqlToken[]): SqlToken[] {
  const comments = tokens.filter(({ kind }) => kind !== 'space');
  const isKept = comments.every(({ kind, text }) => kind === 'line-comment' || /^.{2,}\*\/$/s.test(text));
  if (comments.length === 0 || !isKept || hasTellingLines(tokens)) return [];
  return tokens.at(-1)?.kind === 'line-comment'
    ? [...tokens, { kind: 'space', text: '\n', start: 0 }]
    : [...tokens];
}

function bytesOf(text: string): Buffer {
  return Buffer.from(text, 'latin1');
}

function decode(text: string): string {
  return bytesOf(text).toString();
}
