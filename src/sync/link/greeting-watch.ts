import { FRAME_HEADER_BYTES } from '../../../protocol/limits.ts';
import { PREAMBLE } from '../../../protocol/version.ts';

const START_BYTES = PREAMBLE.length + FRAME_HEADER_BYTES;

/**
 * Tells when the peer's greeting, the preamble and one frame, has come: by its bytes, since it is decoded only when
 * somebody asks for a message. Whether it is right is seen then.
 */
export class GreetingWatch {
  readonly #start = Buffer.alloc(START_BYTES);
  #bytes = 0;

  /** True from when all of the greeting has come. */
  add(bytes: Uint8Array): boolean {
    if (this.#bytes < START_BYTES) this.#start.set(bytes.subarray(0, START_BYTES - this.#bytes), this.#bytes);
    this.#bytes += bytes.length;
    return (
      this.#bytes >= START_BYTES && this.#bytes >= START_BYTES + this.#start.readUInt32LE(PREAMBLE.length)
    );
  }

  /** How it begins, as far as it has come. */
  get received(): Uint8Array {
    return this.#start.subarray(0, Math.min(this.#bytes, START_BYTES));
  }
}
