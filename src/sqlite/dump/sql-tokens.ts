/**
 * What SQLite's tokenizer makes of a run of characters. `illegal` is what it refuses, and parameters, which no schema
 * has.
 */
export type SqlTokenKind =
  'space' | 'line-comment' | 'block-comment' | 'quoted' | 'word' | 'semicolon' | 'other' | 'illegal';

export interface SqlToken {
  readonly kind: SqlTokenKind;
  readonly text: string;
  /** Where it begins in the SQL. */
  readonly start: number;
}

const PATTERNS: readonly (readonly [SqlTokenKind, RegExp])[] = [
  ['space', /[\t\n\f\r ][\t-\r ]*/y],
  ['line-comment', /--[^\n]*/y],
  // SQLite closes a comment at the end of the text, and takes a `/*` that ends the text for two operators.
  ['block-comment', /\/\*(?=[^])(?:[^]*?\*\/|[^]*$)/y],
  ['quoted', /'[^']*(?:''[^']*)*'|"[^"]*(?:""[^"]*)*"|`[^`]*(?:``[^`]*)*`|\[[^\]]*\]/y],
  // What is not closed goes on to the end.
  ['illegal', /['"`[][^]*/y],
  ['word', /[A-Za-z0-9_\u0080-\u00ff][A-Za-z0-9_$\u0080-\u00ff]*/y],
  ['illegal', /[$@:#?][A-Za-z0-9_$:\u0080-\u00ff]*/y],
  ['semicolon', /;/y],
  ['other', /[^]/y],
];

/**
 * The tokens of `sql`, which has one character a byte (latin1), as SQLite's own tokenizer (`sqlite3GetToken`) separates
 * them. Every character with a meaning is ASCII, so bytes that are no valid UTF-8 move no border.
 */
export function* sqlTokens(sql: string): Generator<SqlToken> {
  for (let start = 0; start < sql.length;) {
    const token = tokenAt(sql, start);
    yield token;
    start += token.text.length;
  }
}

function tokenAt(sql: string, start: number): SqlToken {
  for (const [kind, pattern] of PATTERNS) {
    pattern.lastIndex = start;
    const text = pattern.exec(sql)?.[0];
    if (text !== undefined) return { kind, text, start };
  }
  throw new Error('every character is a token');
}

/** Whether SQLite ignores it. */
export function isBlank({ kind }: SqlToken): boolean {
  return kind === 'space' || kind === 'line-comment' || kind === 'block-comment';
}
