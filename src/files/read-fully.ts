import { readSync } from 'node:fs';

/**
 * Fills `into` with the bytes of a file from `offset` on; returns how many there were, fewer only at the end of the
 * file. The system may give fewer than it was asked for at any time, which must never pass for the end: frames of a WAL
 * that were not seen would be pages of an older state. Throws the system's errors.
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
