/**
 * How SQLite's tokenizer classifies a run of characters. `illegal` is text that it refuses, and parameters, which no
 * schema has.
 */
export type SqlTokenKind =
  'space' | 'line-comment' | 'block-comment' | 'quoted' | 'word' | 'semicolon' | 'other' | 'illegal';

export interface SqlToken {
  readonly kind: SqlTokenKind;
  readonly text: string;
  /** Where the token begins in the SQL. */
  readonly start: number;
}

const PATTERNS: readonly (readonly [SqlTokenKind, RegExp])[] = [
  ['space', /[\t\n\f\r ][\t-\r ]*/y],
  ['line-comment', /--[^\n]*/y],
  // SQLite closes a comment at the end of the text, and takes a `/*` that ends the text for two operators.
  ['block-comment', /\/\*(?=[^])(?:[^]*?\*\/|[^]*$)/y],
  ['quoted', /'[^']*(?:''[^']*)*'|"[^"]*(?:""[^"]*)*"|`[^`]*(?:``[^`]*)*`|\[[^\]]*\]/y],
  // An unclosed quote goes on to the end.
  ['illegal', /['"`[][^]*/y],
  ['word', /[A-Za-z0-9_\u0080-\u00ff][A-Za-z0-9_$\u0080-\u00ff]*/y],
  ['illegal', /[$@:#?][A-Za-z0-9_$:\u0080-\u00ff]*/y],
  ['semicolon', /;/y],
  ['other', /[^]/y],
];

/**
 * The tokens of `sql`, which has one character per byte (latin1), as SQLite's own tokenizer (`sqlite3GetToken`)
 * separates them. Every character with a meaning is ASCII, so bytes that are not valid UTF-8 move no token's border.
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

/** True if SQLite ignores the token. */
export function isBlank({ kind }: SqlToken): boolean {
  return kind === 'space' || kind === 'line-comment' || kind === 'block-comment';
}
