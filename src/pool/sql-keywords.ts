/**
 * White space, comments, quoted text and names, words, and any other character, as SQLite's tokenizer has them; but a
 * text with a doubled quote in it counts as two, since a repeated group overflows the stack at some megabytes.
 */
const TOKEN =
  /\s+|--[^\n]*|\/\*[^]*?(?:\*\/|$)|'[^']*(?:'|$)|"[^"]*(?:"|$)|`[^`]*(?:`|$)|\[[^\]]*(?:\]|$)|[\p{ID_Start}_$@:?#][\p{ID_Continue}$]*|[^]/uy;

const SKIPPED = /^(?:\s|--|\/\*)/;

/**
 * The first keyword of each statement of `sql`, in capitals: `SELECT 1; commit` has SELECT and COMMIT. A statement
 * that begins with something else (a parenthesis) counts as ''. The body of CREATE TRIGGER belongs to its statement.
 */
export function leadingKeywords(sql: string): string[] {
  const keywords: string[] = [];
  let head: string[] = [];
  let isTriggerBody = false;
  let afterSemicolon = false;
  for (const token of tokens(sql)) {
    if (token === ';') {
      afterSemicolon = true;
      if (!isTriggerBody) head = [];
      continue;
    }
    const word = token.toUpperCase();
    // In a trigger's body `END` after a semicolon ends it; elsewhere END closes a CASE.
    if (isTriggerBody && afterSemicolon && word === 'END') isTriggerBody = false;
    afterSemicolon = false;
    if (head.length >= 3) continue;
    if (head.length === 0) keywords.push(/^\w/.test(word) ? word : '');
    head.push(word);
    if (isCreateTrigger(head)) isTriggerBody = true;
  }
  return keywords;
}

/** The PRAGMAs of `sql` that are given a value, in small letters: `PRAGMA main.Busy_Timeout(9)` is busy_timeout, 9. */
export function pragmaValues(sql: string): { name: string; value: string }[] {
  const found: { name: string; value: string }[] = [];
  let before = '';
  let name: string | undefined;
  let isPragma = false;
  let isHead = true;
  for (const token of tokens(sql)) {
    const word = token.replace(/^["'`[]|["'`\]]$/g, '').toLowerCase();
    if (name !== undefined) found.push({ name, value: word });
    name = isPragma && (token === '=' || token === '(') ? before : undefined;
    if (token === ';') isPragma = false;
    else if (isHead && word === 'pragma') isPragma = true;
    isHead = token === ';' || (isHead && /^(?:explain|query|plan)$/.test(word));
    before = word;
  }
  return found;
}

function* tokens(sql: string): Generator<string> {
  TOKEN.lastIndex = 0;
  // Its own copy of the position: another call may come between two tokens.
  for (const match of sql.matchAll(new RegExp(TOKEN, 'guy'))) {
    const token = match[0];
    if (!SKIPPED.test(token)) yield token;
  }
}

/** CREATE TRIGGER, CREATE TEMP TRIGGER, CREATE TEMPORARY TRIGGER. */
function isCreateTrigger(head: readonly string[]): boolean {
  if (head[0] !== 'CREATE') return false;
  return head[1] === 'TRIGGER' || (head[2] === 'TRIGGER' && /^TEMP(ORARY)?$/.test(head[1] ?? ''));
}
