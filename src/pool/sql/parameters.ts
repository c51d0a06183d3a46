import { types } from 'node:util';
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
 * misspelt one, or options in the place of parameters. Throws TypeError for a value that SQLite does not have.
 * better-sqlite3 counts the values of arrays.
 */
export function checkParams(statement: Parameterized, params: SqlParams): void {
  if (Array.isArray(params)) {
    const values = params as readonly unknown[];
    for (let i = 0; i < values.length; i += 1) if (!isValue(values[i])) throw unlikeSqlite(i + 1, values[i]);
    return;
  }
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
    if (!statement.parameters.has(name)) {
      throw new SqlsyncError('USAGE', `the statement has no parameter :${sanitizeText(name, 100)}`, {
        hint: 'Options are the third argument: pass [] as the second for a statement without parameters.',
      });
    }
    const value: unknown = (params as Readonly<Record<string, unknown>>)[name];
    if (!isValue(value)) throw unlikeSqlite(`:${name}`, value);
  }
}

/** False for what better-sqlite3 would refuse without saying which parameter it is; it takes undefined for NULL. */
function isValue(value: unknown): boolean {
  if (typeof value === 'object')
    return value === null || (ArrayBuffer.isView(value) && !(value instanceof DataView));
  return typeof value !== 'boolean' && typeof value !== 'function' && typeof value !== 'symbol';
}

/**
 * The error for a parameter that SQLite has no type for. Nothing is converted: what was stored as a number or a text
 * would come back as one, and another program may store the same thing otherwise.
 */
function unlikeSqlite(parameter: number | string, value: unknown): TypeError {
  const [what, instead] =
    typeof value === 'boolean'
      ? [`the boolean ${value}`, `pass ${value ? 1 : 0}`]
      : types.isDate(value)
        ? ['a Date', 'pass its toISOString() or getTime()']
        : [valueInWords(value), 'pass a number, a bigint, a string, a Uint8Array or null'];
  return new TypeError(`parameter ${parameter} is ${what}, which SQLite does not have: ${instead}`);
}
