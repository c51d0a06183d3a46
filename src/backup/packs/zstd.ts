import { constants, zstdCompress, zstdDecompressSync } from 'node:zlib';
import { promisify } from 'node:util';

/** As on the wire: level 3 gains nothing over level 1 on pages and block deltas. */
const PARAMETERS = { [constants.ZSTD_c_compressionLevel]: 1, [constants.ZSTD_c_minMatch]: 6 };

/** With less spare room, zlib would begin another piece to see that nothing follows. */
const SPARE_BYTES = 1024;

const compress = promisify(zstdCompress);

/**
 * Compresses the body of a frame in another thread, in one piece: joining pieces of 64 KiB at the end costs as much.
 */
export function compressBody(body: Uint8Array): Promise<Uint8Array> {
  return compress(body, { params: PARAMETERS, chunkSize: body.length + SPARE_BYTES });
}

/** Decompresses into new memory. Throws zlib's errors, and a RangeError for more than `rawBytes`. */
export function decompressBody(bytes: Uint8Array, rawBytes: number): Uint8Array {
  const room = rawBytes + SPARE_BYTES;
  const memory = zstdDecompressSync(bytes, { maxOutputLength: room, chunkSize: room });
  // A plain array: making views of a Buffer takes several times as long.
  return new Uint8Array(memory.buffer, memory.byteOffset, memory.length);
}
