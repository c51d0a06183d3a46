import { sqlTokens } from './sql-tokens.ts';

const SELECT = /^\s*select\b/i;

/** What may follow the common table expressions of a WITH. */
const VERBS = new Set(['SELECT', 'VALUES', 'INSERT', 'REPLACE', 'UPDATE', 'DELETE']);

/** State that SQLite keeps for each connection: a reader has none of the writer's. */
const OF_A_CONNECTION =
  /\b(?:(?:total_)?changes|last_insert_rowid)\s*\(|\btemp\s*["'`\]]?\s*\.|\bsqlite_temp_/i;

/**
 * True for a text that any connection answers alike. For query builders, whose statements do not say what they are. The
 * read pool refuses statements that only look like queries.
 */
export function isReaderQuery(sql: string): boolean {
  return (SELECT.test(sql) || verbOf(sql) === 'SELECT') && !needsWriter(sql);
}

/** True if a SELECT reads the state of the writing connection. */
export function needsWriter(sql: string): boolean {
  return OF_A_CONNECTION.test(sql);
}

/** The keyword that says what a statement does: behind comments and common table expressions. */
function verbOf(sql: string): string {
  let depth = 0;
  let isWith = false;
  for (const token of sqlTokens(sql)) {
    const word = token.toUpperCase();
    if (!isWith && word !== 'WITH') return word;
    isWith = true;
    if (token === '(') depth += 1;
    else if (token === ')') depth -= 1;
    else if (depth === 0 && VERBS.has(word)) return word;
  }
  return '';
}
