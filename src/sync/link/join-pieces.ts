/** Bytes to be sent. */
export interface OutgoingPiece {
  readonly bytes: Uint8Array;
  /** Runs when nobody needs `bytes` any more. */
  readonly onSent: (() => void) | undefined;
}

/** Pieces of at least this size are written as they are. */
const LARGE_PIECE_BYTES = 32 * 1024;

/** Joins neighbouring small pieces, since every write costs a packet on some transports. */
export function joinSmallPieces(pieces: readonly OutgoingPiece[]): OutgoingPiece[] {
  const joined: OutgoingPiece[] = [];
  let small: OutgoingPiece[] = [];
  const flushSmall = (): void => {
    if (small.length > 0) {
      joined.push({ bytes: Buffer.concat(small.map(({ bytes }) => bytes)), onSent: undefined });
      for (const { onSent } of small) onSent?.();
    }
    small = [];
  };
  for (const piece of pieces) {
    if (piece.bytes.length < LARGE_PIECE_BYTES) small.push(piece);
    else {
      flushSmall();
      joined.push(piece);
    }
  }
  flushSmall();
  return joined;
}
