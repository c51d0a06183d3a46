import type { ByteRange, LocalFiles } from '../backends/backend.ts';

/** The files of a store, one of which is in memory: what is read of that costs no second read of the store. */
export class HeldPack implements LocalFiles {
  readonly #files: LocalFiles;
  #held: { readonly name: string; readonly bytes: Uint8Array } | undefined;

  constructor(files: LocalFiles) {
    this.#files = files;
  }

  /** Serves the file from these bytes while `work` runs. */
  async during(name: string, bytes: Uint8Array, work: () => Promise<void>): Promise<void> {
    this.#held = { name, bytes };
    try {
      await work();
    } finally {
      this.#held = undefined;
    }
  }

  getNow(name: string, range?: ByteRange): Uint8Array {
    if (this.#held?.name !== name) return this.#files.getNow(name, range);
    const { bytes } = this.#held;
    const { offset, length } = range ?? { offset: 0, length: bytes.length };
    // The caller owns what it gets; `slice` of a Buffer would be a view of it.
    return new Uint8Array(bytes.subarray(offset, offset + length));
  }
}
