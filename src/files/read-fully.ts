import { readSync } from 'node:fs';

/**
 * Fills `into` with the bytes of a file from `offset` on. Returns the number of bytes read, which is smaller only at
 * the end of the file. The system may return fewer bytes than requested at any time, and that must not look like the
 * end: WAL frames that were not seen would be pages of an older state. Throws the system's errors.
 */
export function readFully(descriptor: number, into: Uint8Array, offset: number): number {
  let filled = 0;
  while (filled < into.length) {
    const read = readSync(descriptor, into, filled, into.length - filled, offset + filled);
    if (read === 0) break;
    filled += read;
  }
  return filled;
}
