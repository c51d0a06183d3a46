import { createHash } from 'node:crypto';
import { damaged } from '../store-error.ts';

/** A record with a field `sha256` over the JSON of its other fields, so that it can be checked by itself. */
export function encodeChecked(record: object): Uint8Array {
  const sha256 = createHash('sha256').update(JSON.stringify(record)).digest('hex');
  return Buffer.from(`${JSON.stringify({ ...record, sha256 }, undefined, 2)}\n`);
}

/** Decodes such a record, without `sha256`. Throws STORE_DAMAGED for `file` if a single byte differs. */
export function decodeChecked(bytes: Uint8Array, file: string): Readonly<Record<string, unknown>> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw damaged(file, 'cannot be read', error);
  }
  const { sha256: _, ...record } = Object(parsed) as Record<string, unknown>;
  if (!Buffer.from(encodeChecked(record)).equals(bytes))
    throw damaged(file, 'was changed since it was written');
  return record;
}
