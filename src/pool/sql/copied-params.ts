import type { SqlParams } from '../types.ts';

/**
 * A copy of the parameters, for a statement that runs after its call has returned: by then the caller may have refilled
 * the same buffer, array or object. A value that SQLite cannot take stays as it is, so that its error does too.
 */
export function copyParams(params: SqlParams | undefined): SqlParams | undefined {
  if (Array.isArray(params)) return Array.from(params as readonly unknown[], copyValue) as SqlParams;
  return isPlainObject(params) ? copyNamed(params) : params;
}

/** A copy of a parameter. better-sqlite3 takes the bytes of any typed array, but not of a DataView. */
export function copyValue(value: unknown): unknown {
  if (!ArrayBuffer.isView(value) || value instanceof DataView) return value;
  return Buffer.from(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
}

/** What better-sqlite3 takes for named parameters; it looks at own properties, enumerable or not. */
export function isPlainObject(value: unknown): value is Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function copyNamed(params: Readonly<Record<string, unknown>>): SqlParams {
  const copy: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
  for (const name of Object.getOwnPropertyNames(params)) copy[name] = copyValue(params[name]);
  return copy as SqlParams;
}
