import { FRAME_HEADER_BYTES } from '../../../protocol/limits.ts';
import { PREAMBLE } from '../../../protocol/version.ts';

const START_BYTES = PREAMBLE.length + FRAME_HEADER_BYTES;

/**
 * Reports when the peer's greeting, the preamble and one frame, has come. It counts bytes, since decoding waits until a
 * message is wanted; the decoder then checks the content.
 */
export class GreetingWatch {
  readonly #start = Buffer.alloc(START_BYTES);
  #bytes = 0;

  /** True once the whole greeting has come. */
  add(bytes: Uint8Array): boolean {
    if (this.#bytes < START_BYTES) this.#start.set(bytes.subarray(0, START_BYTES - this.#bytes), this.#bytes);
    this.#bytes += bytes.length;
    return (
      this.#bytes >= START_BYTES && this.#bytes >= START_BYTES + this.#start.readUInt32LE(PREAMBLE.length)
    );
  }

  /** The start of the greeting, as far as it has come. */
  get received(): Uint8Array {
    return this.#start.subarray(0, Math.min(this.#bytes, START_BYTES));
  }
}
