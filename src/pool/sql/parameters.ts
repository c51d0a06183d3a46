import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { valueInWords } from '../call-options.ts';
import type { SqlParams } from '../types.ts';

/**
 * Anything that SQLite could take for a parameter. One within a text or comment matches too, which does no harm here.
 */
const PARAMETER = /[:@$?]([\w$\u0080-\uffff]+)/g;

/** A statement whose parameters have names. */
export interface Parameterized {
  readonly sql: string;
  /** The names of its parameters, after the first request for them. */
  parameters: Set<string> | undefined;
}

/**
 * Throws USAGE for parameters that are neither an array nor an object, and for a name that the statement lacks: a
 * misspelt one, or options in the place of parameters. better-sqlite3 counts the values of arrays.
 */
export function checkParams(statement: Parameterized, params: SqlParams): void {
  if (Array.isArray(params)) return;
  if (typeof params !== 'object' || params === null || params instanceof Uint8Array) {
    throw new SqlsyncError(
      'USAGE',
      `the parameters are ${valueInWords(params)}; expected an array or an object`,
    );
  }
  for (const name of Object.keys(params)) {
    statement.parameters ??= new Set(
      [...statement.sql.matchAll(PARAMETER)].map(([, found]) => found as string),
    );
    if (statement.parameters.has(name)) continue;
    throw new SqlsyncError('USAGE', `the statement has no parameter :${sanitizeText(name, 100)}`, {
      hint: 'Options are the third argument: pass [] as the second for a statement without parameters.',
    });
  }
}
