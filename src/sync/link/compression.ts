import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { ProtocolViolation } from '../../../protocol/decode.ts';
import { BATCH_ENCODINGS } from '../../../protocol/messages.ts';
import type { MessageOf } from '../../../protocol/messages.ts';
import { SqlsyncError } from '../../errors.ts';

/** Measured: level 3 gains nothing over level 1 on pages and block deltas. */
const ZSTD_PARAMETERS = {
  [constants.ZSTD_c_compressionLevel]: 1,
  // Shorter repetitions cost more than they save in block deltas; slightly better and faster than level 1's default.
  [constants.ZSTD_c_minMatch]: 6,
};

/** A batch that compression shrinks by less is sent as it is, so that the other side need not decompress it. */
const MIN_SAVING = 0.03;

export type EncodedBatch = Pick<MessageOf<'pages'>, 'encoding' | 'rawBytes' | 'data'>;

/** Room for all output in one piece: smaller pieces would be joined at the end. Zlib wants a spare byte. */
function roomFor(bytes: number): number {
  return bytes + 64;
}

/** A page batch in its encoding for the wire. */
export function encodeBatchBytes(batch: Uint8Array, mode: 'zstd' | 'none'): EncodedBatch {
  const raw = { encoding: BATCH_ENCODINGS.raw, rawBytes: batch.length, data: batch };
  if (mode === 'none' || batch.length === 0) return raw;
  const data = zstdCompressSync(batch, { params: ZSTD_PARAMETERS, chunkSize: roomFor(batch.length) });
  if (data.length > batch.length * (1 - MIN_SAVING)) return raw;
  return { encoding: BATCH_ENCODINGS.zstd, rawBytes: batch.length, data };
}

/**
 * Decodes a batch. Never takes more memory than `maxBytes`, whatever the peer declares. Throws SqlsyncError PROTOCOL.
 */
export function decodeBatchBytes(pages: EncodedBatch, maxBytes: number): Uint8Array {
  if (pages.rawBytes > maxBytes)
    throw violation(`a page batch of ${pages.rawBytes} bytes, at most ${maxBytes} are possible`);
  let batch = pages.data;
  if (pages.encoding === BATCH_ENCODINGS.zstd) {
    try {
      batch = zstdDecompressSync(pages.data, {
        maxOutputLength: Math.max(1, pages.rawBytes),
        chunkSize: roomFor(pages.rawBytes),
      });
    } catch (error) {
      throw violation('a page batch that cannot be decompressed', error);
    }
  } else if (pages.encoding !== BATCH_ENCODINGS.raw) {
    throw violation(`a page batch of unknown encoding ${pages.encoding}`);
  }
  if (batch.length !== pages.rawBytes) {
    throw violation(`a page batch of ${batch.length} bytes that declares ${pages.rawBytes}`);
  }
  return batch;
}

function violation(what: string, cause?: unknown): SqlsyncError {
  return new SqlsyncError('PROTOCOL', `The other side sent ${what}`, {
    cause: cause ?? new ProtocolViolation(what),
  });
}
