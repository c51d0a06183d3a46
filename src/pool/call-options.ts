import { SqlsyncError, sanitizeText } from '../errors.ts';
import type {
  AggregateOptions,
  BulkOptions,
  ConnectionOptions,
  FunctionOptions,
  QueryOptions,
  WaitOptions,
  WriteOptions,
} from './types.ts';

/** Returns what was expected if `value` is wrong. */
type Check = (value: unknown) => string | undefined;

type Checks<Options> = Readonly<Record<keyof Options, Check>>;

const PRIORITIES: ReadonlySet<unknown> = new Set(['interactive', 'normal', 'background']);

const text: Check = (value) => (typeof value === 'string' ? undefined : 'a string');
const milliseconds: Check = (value) =>
  typeof value === 'number' && value >= 0 ? undefined : 'a number of milliseconds from 0';
const flag: Check = (value) => (typeof value === 'boolean' ? undefined : 'true or false');
const callback: Check = (value) => (typeof value === 'function' ? undefined : 'a function');
const priority: Check = (value) =>
  PRIORITIES.has(value) ? undefined : `one of 'interactive', 'normal', 'background'`;
/** Not `instanceof`: test frameworks have an AbortSignal of their own. */
const abortSignal: Check = (value) =>
  typeof value === 'object' && value !== null && 'aborted' in value && 'addEventListener' in value
    ? undefined
    : 'an AbortSignal';

const WAIT: Checks<WaitOptions> = { label: text, deadlineMs: milliseconds, signal: abortSignal };

export const SNAPSHOT_OPTIONS: Checks<WaitOptions> = WAIT;
export const QUERY_OPTIONS: Checks<QueryOptions> = { ...WAIT, thread: flag };
export const WRITE_OPTIONS: Checks<WriteOptions> = { ...WAIT, priority, coalesce: text };
export const CONNECTION_OPTIONS: Checks<ConnectionOptions> = { ...WAIT, priority };
/** The caller of a reader may set `thread`, which has no effect there. */
export const CONNECTION_CALL_OPTIONS: Checks<QueryOptions> = QUERY_OPTIONS;
export const BULK_OPTIONS: Checks<BulkOptions> = {
  ...WAIT,
  priority,
  budgetMs: milliseconds,
  onCommit: callback,
};

export const FUNCTION_OPTIONS: Checks<FunctionOptions> = {
  deterministic: flag,
  directOnly: flag,
  varargs: flag,
};
export const AGGREGATE_OPTIONS: Checks<AggregateOptions> = {
  ...FUNCTION_OPTIONS,
  start: () => undefined,
  step: callback,
  inverse: callback,
  result: callback,
};

/**
 * The error USAGE for wrong options of a call, or undefined. Only call it if the caller gave options: most calls have
 * none.
 */
export function optionsFault(what: string, options: object, checks: object): SqlsyncError | undefined {
  if (typeof options !== 'object' || options === null) {
    return new SqlsyncError('USAGE', `${what} got ${valueInWords(options)}; expected an object of options`);
  }
  for (const name in options) {
    const value = (options as Readonly<Record<string, unknown>>)[name];
    if (!Object.hasOwn(checks, name)) return unknownOption(what, name, checks);
    const expected =
      value === undefined ? undefined : (checks as Checks<Record<string, unknown>>)[name]?.(value);
    if (expected === undefined) continue;
    return new SqlsyncError('USAGE', `${what}: ${name} is ${valueInWords(value)}; expected ${expected}`);
  }
  return undefined;
}

/** A copy of the options, for a call that reads them later. Anything but an object stays as it is. */
export function copyOptions<Options extends object>(options: Options): Options {
  if (typeof options !== 'object' || options === null) return options;
  const copy: Record<string, unknown> = {};
  for (const name in options) copy[name] = options[name];
  return copy as Options;
}

/** The USAGE error for an unknown option. */
export function unknownOption(what: string, name: string, known: object): SqlsyncError {
  return new SqlsyncError('USAGE', `${what} has no option ${sanitizeText(name, 100)}`, {
    hint: `The options are ${Object.keys(known).toSorted().join(', ')}.`,
  });
}

/** The USAGE error for an argument that is not a function. */
export function notAFunction(what: string, value: unknown): SqlsyncError {
  return new SqlsyncError('USAGE', `${what} got ${valueInWords(value)}; expected a function`);
}

/** As {@link notAFunction}, if the argument is not one; else undefined. */
export function functionFault(what: string, value: unknown): SqlsyncError | undefined {
  return typeof value === 'function' ? undefined : notAFunction(what, value);
}

/** A wrong value, for messages. */
export function valueInWords(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(sanitizeText(value, 100));
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'symbol') return 'a symbol';
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'an array' : 'an object';
  return String(value);
}
