/**
 * Frees the memory behind `bytes` at once; do not use it, or any view of it, afterwards. The garbage collector would
 * let decompressed frames pile up by tens of megabytes, and every such pile costs a full collection.
 */
export function discard(bytes: Uint8Array): void {
  const { buffer } = bytes;
  // Smaller buffers share Node's pool with others.
  if (buffer instanceof ArrayBuffer && buffer.byteLength > Buffer.poolSize) buffer.transfer(0);
}

/** Memory for copies of small pieces that are all dropped together, and then used again. */
export class Arena {
  #bytes: Uint8Array;
  #used = 0;

  /** `bytes` is the expected size of its content. */
  constructor(bytes: number) {
    this.#bytes = new Uint8Array(bytes);
  }

  /** A copy, valid until `clear`. */
  copy(piece: Uint8Array): Uint8Array {
    if (this.#used + piece.length > this.#bytes.length) {
      // Earlier copies stay in the old memory.
      this.#bytes = new Uint8Array(Math.max(this.#bytes.length, piece.length));
      this.#used = 0;
    }
    const copied = this.#bytes.subarray(this.#used, this.#used + piece.length);
    copied.set(piece);
    this.#used += piece.length;
    return copied;
  }

  clear(): void {
    this.#used = 0;
  }
}
