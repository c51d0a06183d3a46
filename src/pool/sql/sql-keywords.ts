import { sqlTokens } from './sql-tokens.ts';

/**
 * The first keyword of each statement of `sql`, in capitals: `SELECT 1; commit` has SELECT and COMMIT. A statement that
 * begins with something else (a parenthesis) yields ''. The body of CREATE TRIGGER belongs to its statement.
 */
export function leadingKeywords(sql: string): string[] {
  const keywords: string[] = [];
  let head: string[] = [];
  let isTriggerBody = false;
  let afterSemicolon = false;
  for (const token of sqlTokens(sql)) {
    if (token === ';') {
      afterSemicolon = true;
      if (!isTriggerBody) head = [];
      continue;
    }
    const word = token.toUpperCase();
    // In a trigger's body an `END` after a semicolon ends the body; elsewhere END closes a CASE.
    if (isTriggerBody && afterSemicolon && word === 'END') isTriggerBody = false;
    afterSemicolon = false;
    if (head.length >= 3) continue;
    if (head.length === 0) keywords.push(/^\w/.test(word) ? word : '');
    head.push(word);
    if (isCreateTrigger(head)) isTriggerBody = true;
  }
  return keywords;
}

/** A PRAGMA that sets a value. */
export interface PragmaSetting {
  /** In small letters, without a schema and without quotes. */
  readonly name: string;
  /** As written, without one pair of quotes; its tokens are separated by spaces. */
  readonly value: string;
}

/** The PRAGMAs of `sql` that set a value: `PRAGMA main.Busy_Timeout(0x9)` is busy_timeout, 0x9. */
export function pragmaSettings(sql: string): PragmaSetting[] {
  const found: PragmaSetting[] = [];
  /** The tokens of the statement after PRAGMA. */
  let pragma: string[] | undefined;
  let isHead = true;
  const end = (): void => {
    const setting = pragma === undefined ? undefined : settingOf(pragma);
    if (setting !== undefined) found.push(setting);
    pragma = undefined;
  };
  for (const token of sqlTokens(sql)) {
    if (token === ';') {
      end();
      isHead = true;
      continue;
    }
    const word = token.toLowerCase();
    if (pragma !== undefined) pragma.push(token);
    else if (isHead && word === 'pragma') pragma = [];
    isHead &&= /^(?:explain|query|plan)$/.test(word);
  }
  end();
  return found;
}

/** `name = value`, `name (value)`; undefined without a value. */
function settingOf(tokens: readonly string[]): PragmaSetting | undefined {
  const at = tokens.findIndex((token) => token === '=' || token === '(');
  if (at < 1) return undefined;
  const value = tokens
    .slice(at + 1)
    .filter((token, index, { length }) => token !== ')' || index < length - 1);
  return {
    name: unquoted(tokens[at - 1] as string).toLowerCase(),
    value: value.length === 1 ? unquoted(value[0] as string) : value.join(' '),
  };
}

function unquoted(token: string): string {
  return /^["'`[]/.test(token) ? token.slice(1, -1) : token;
}

/** CREATE TRIGGER, CREATE TEMP TRIGGER, CREATE TEMPORARY TRIGGER. */
function isCreateTrigger(head: readonly string[]): boolean {
  if (head[0] !== 'CREATE') return false;
  return head[1] === 'TRIGGER' || (head[2] === 'TRIGGER' && /^TEMP(ORARY)?$/.test(head[1] ?? ''));
}
