import { createHash, hash } from 'node:crypto';

/** Bytes of an object's id: a SHA-256. */
export const ID_BYTES = 32;

/** Bytes of an id by which a delta names its base. */
export const BASE_ID_BYTES = 16;

/** Stands in a node for the lock-byte page, which is not stored. */
export const NO_PAGE: Uint8Array = new Uint8Array(ID_BYTES);

/** The id of an object, or of a file, with these bytes. */
export function idOf(bytes: Uint8Array): Uint8Array {
  return hash('sha256', bytes, 'buffer');
}

/** The id of a file made of these pieces. */
export function idOfPieces(pieces: readonly Uint8Array[]): Uint8Array {
  const digest = createHash('sha256');
  for (const piece of pieces) digest.update(piece);
  return digest.digest();
}

export function toHex(id: Uint8Array): string {
  return Buffer.from(id.buffer, id.byteOffset, id.length).toString('hex');
}

export function fromHex(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, 'hex'));
}

/** True if `text` is an id in the form of names and JSON. */
export function isHexId(text: unknown): text is string {
  return typeof text === 'string' && /^[0-9a-f]{64}$/.test(text);
}

/** True if `text` can be the id of a store, which names folders on this host. */
export function isStoreId(text: unknown): text is string {
  return typeof text === 'string' && /^[0-9a-f]{32}$/.test(text);
}

/** True if `length` bytes at `aAt` and at `bAt` are the same. */
export function sameBytes(
  a: Uint8Array,
  b: Uint8Array,
  length: number = ID_BYTES,
  aAt: number = 0,
  bAt: number = 0,
): boolean {
  for (let i = 0; i < length; i++) if (a[aAt + i] !== b[bAt + i]) return false;
  return true;
}
