import { encodeFrame } from './wire.ts';
import type { Frame } from './wire.ts';

/** A double holds an integer of six bytes exactly. */
const PIECE_BYTES = 6;

/** The text of a member that says more is cut off, and then means nothing. */
const MAX_TEXT_BYTES = 4096;

/** Frames of one text: each has six bytes of it as an integer in the place of the time, and the last one the flag. */
export function encodeText(code: number, number: number, text: string): Buffer {
  const bytes = Buffer.from(text).subarray(0, MAX_TEXT_BYTES);
  const count = Math.max(1, Math.ceil(bytes.length / PIECE_BYTES));
  const padded = Buffer.alloc(count * PIECE_BYTES);
  bytes.copy(padded);
  const frames = Array.from({ length: count }, (_, i) =>
    encodeFrame(code, number, i === count - 1, padded.readUIntLE(i * PIECE_BYTES, PIECE_BYTES)),
  );
  return Buffer.concat(frames);
}

/** Puts the frames of one text together. */
export class TextReader {
  readonly #pieces: Buffer[] = [];

  /** The text, once its last frame has come. Throws RangeError for a text that is too long, or a piece that is none. */
  take({ flag, timeUs }: Frame<string>): string | undefined {
    const piece = Buffer.alloc(PIECE_BYTES);
    piece.writeUIntLE(timeUs, 0, PIECE_BYTES);
    if (this.#pieces.push(piece) * PIECE_BYTES > MAX_TEXT_BYTES + PIECE_BYTES)
      throw new RangeError('too long');
    return flag ? Buffer.concat(this.#pieces).toString('utf8').replace(/\0+$/, '') : undefined;
  }
}
