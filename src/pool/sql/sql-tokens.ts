/** A letter, digit or other character of a name: for SQLite, all characters beyond ASCII are name characters. */
const NAME = String.raw`\w$\u0080-\uffff`;

/**
 * The tokens of SQLite's tokenizer, in its order: white space; comments; texts and quoted names; variables, which may
 * have a suffix in parentheses (`$a(;')`); numbers with all that follows without a break; names and keywords; any other
 * character. Two differences, which hide no token: `1.2.3` is one number, and a text with a doubled quote counts as
 * two, since a repeated group overflows the stack at some megabytes.
 */
const TOKEN = [
  String.raw`[ \t-\r\ufeff]+|--[^\n]*|/\*[^]*?(?:\*/|$)`,
  String.raw`'[^']*(?:'|$)|"[^"]*(?:"|$)|${'`[^`]*(?:`|$)'}|\[[^\]]*(?:\]|$)`,
  String.raw`\?\d*|[$@#:](?:::)*(?:[${NAME}]+(?:::|[${NAME}]+)*(?:\([^ \t-\r)]*\)?)?)?`,
  String.raw`\.?\d(?:[${NAME}.]|(?<=[eE])[+-](?=\d))*`,
  String.raw`[A-Za-z_\u0080-\uffff][${NAME}]*|[^]`,
].join('|');

const SKIPPED = /^(?:[ \t-\r\ufeff]|--|\/\*)/;

/** The tokens of a text as SQLite reads it, without white space and comments. */
export function* sqlTokens(sql: string): Generator<string, void, undefined> {
  for (const [token] of sql.matchAll(new RegExp(TOKEN, 'gy'))) {
    if (!SKIPPED.test(token)) yield token;
  }
}
