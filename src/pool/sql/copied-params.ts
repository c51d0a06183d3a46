import type { SqlParams } from '../types.ts';

/**
 * The parameters as they are now, for a statement that runs after its call has returned: by then the caller may have
 * filled the same buffer, array or object anew. What SQLite cannot take stays what it is, so that its error does too.
 */
export function copyParams(params: SqlParams | undefined): SqlParams | undefined {
  if (Array.isArray(params)) return Array.from(params as readonly unknown[], copyValue) as SqlParams;
  return isPlainObject(params) ? copyNamed(params) : params;
}

/** A parameter as it is now. better-sqlite3 takes the bytes of any typed array, but of no DataView. */
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
