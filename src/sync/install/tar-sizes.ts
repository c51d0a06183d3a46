const BLOCK_BYTES = 512;
const NAME_BYTES = 100;

/** Sums up the files of a tar archive while it streams by. */
export class TarSizes {
  /** The name of the first entry; '' before it came. */
  firstName = '';
  entryCount = 0;
  /** The sizes of all plain files. */
  contentBytes = 0;
  /** True once the block of zeros came that ends an archive. */
  isWhole = false;
  #rest: Buffer = Buffer.alloc(0);
  /** Bytes of the present entry that are still to come. */
  #skipBytes = 0;

  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length && !this.isWhole) {
      if (this.#skipBytes > 0) {
        const skipped = Math.min(this.#skipBytes, chunk.length - at);
        this.#skipBytes -= skipped;
        at += skipped;
        continue;
      }
      const end = at + BLOCK_BYTES - this.#rest.length;
      this.#rest = Buffer.concat([this.#rest, chunk.subarray(at, end)]);
      at = Math.min(end, chunk.length);
      if (this.#rest.length < BLOCK_BYTES) return;
      this.#header(this.#rest);
      this.#rest = Buffer.alloc(0);
    }
  }

  /** The fields of a header are text: the size in octal digits at 124, the type at 156. */
  #header(header: Buffer): void {
    if (header[0] === 0) {
      this.isWhole = true;
      return;
    }
    const size = Number.parseInt(header.toString('latin1', 124, 136), 8) || 0;
    const type = header.toString('latin1', 156, 157);
    this.#skipBytes = Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES;
    // Long names (L, K) and further attributes (x, g) are entries of their own, and no files.
    if (/[LKxg]/.test(type)) return;
    if (this.entryCount++ === 0)
      this.firstName = header.toString('utf8', 0, header.subarray(0, NAME_BYTES).indexOf(0));
    if (type === '0' || type === '\0') this.contentBytes += size;
  }
}
