/** Pieces of at least this size are written as they are. */
const LARGE_PIECE_BYTES = 32 * 1024;

/** Joins neighbouring small pieces, since every write costs a packet on some transports. */
export function joinSmallPieces(pieces: readonly Uint8Array[]): Uint8Array[] {
  const joined: Uint8Array[] = [];
  let small: Uint8Array[] = [];
  const flushSmall = (): void => {
    if (small.length > 0) joined.push(Buffer.concat(small));
    small = [];
  };
  for (const piece of pieces) {
    if (piece.length < LARGE_PIECE_BYTES) small.push(piece);
    else {
      flushSmall();
      joined.push(piece);
    }
  }
  flushSmall();
  return joined;
}
