import { createHash } from 'node:crypto';
import type { Backend, ByteRange, LocalFiles } from '../backends/backend.ts';
import { discard } from '../packs/frame-memory.ts';

/** Bytes of a pack that one read takes: packs have up to 2 GiB. Elsewhere each read costs a round trip. */
const PIECE_BYTES = { here: 1024 * 1024, elsewhere: 8 * 1024 * 1024 };

export interface PackComparison {
  readonly bytes: number;
  /** True if the pack does not match its name. */
  readonly isChanged: boolean;
}

/**
 * Compares all bytes of a pack with its name; a place that computes hashes is believed. Throws SqlsyncError
 * STORE_FILE_MISSING, STORE_UNAVAILABLE.
 *
 * @param take - gets the bytes, piece by piece, and owns them; then they are read in any case.
 */
export async function comparePack(
  backend: Backend,
  id: string,
  take?: (piece: Uint8Array) => void,
): Promise<PackComparison> {
  const digest = take === undefined ? await backend.digest?.(`packs/${id}`) : undefined;
  if (digest !== undefined) return { bytes: digest.bytes, isChanged: digest.hash !== id };
  const pieceBytes = backend.parallel === undefined ? PIECE_BYTES.here : PIECE_BYTES.elsewhere;
  const comparing = compare(id, pieceBytes, take ?? discard);
  let step = comparing.next();
  while (step.done !== true) step = comparing.next(await backend.get(`packs/${id}`, step.value));
  return step.value;
}

/** As `comparePack`, without giving up control. */
export function comparePackNow(files: LocalFiles, id: string): PackComparison {
  const comparing = compare(id, PIECE_BYTES.here, discard);
  let step = comparing.next();
  while (step.done !== true) step = comparing.next(files.getNow(`packs/${id}`, step.value));
  return step.value;
}

/** Asks for one range of the pack after another. */
function* compare(
  id: string,
  pieceBytes: number,
  take: (piece: Uint8Array) => void,
): Generator<ByteRange, PackComparison, Uint8Array> {
  const digest = createHash('sha256');
  let bytes = 0;
  for (let length = pieceBytes; length === pieceBytes; bytes += length) {
    const piece: Uint8Array = yield { offset: bytes, length: pieceBytes };
    digest.update(piece);
    length = piece.length;
    take(piece);
  }
  return { bytes, isChanged: digest.digest('hex') !== id };
}
