import { createHash } from 'node:crypto';
import type { Backend } from '../backends/backend.ts';
import { discard } from '../packs/frame-memory.ts';

/** Bytes of a pack that one read takes: packs have up to 2 GiB. */
const PIECE_BYTES = 1024 * 1024;

/** Compares all bytes of a pack with its name. Throws SqlsyncError STORE_FILE_MISSING, STORE_UNAVAILABLE. */
export async function comparePack(
  backend: Backend,
  id: string,
): Promise<{ readonly bytes: number; readonly isChanged: boolean }> {
  const digest = createHash('sha256');
  let bytes = 0;
  for (let length = PIECE_BYTES; length === PIECE_BYTES;) {
    const piece = await backend.get(`packs/${id}`, { offset: bytes, length: PIECE_BYTES });
    digest.update(piece);
    length = piece.length;
    bytes += length;
    discard(piece);
  }
  return { bytes, isChanged: digest.digest('hex') !== id };
}
