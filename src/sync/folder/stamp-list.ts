import { SqlsyncError } from '../../errors.ts';
import { STAMP_BYTES } from '../../pages/database-stamp.ts';

/** The most databases that one message with stamps is about: the other side has something to do meanwhile. */
export const BATCH = 200;

const NO_STAMP = new Uint8Array(0);

/** Stamps in one byte string, as the protocol has it. */
export function packStamps(stamps: readonly (Uint8Array | undefined)[]): Uint8Array {
  const packed = new Uint8Array(stamps.length * STAMP_BYTES);
  for (const [i, stamp] of stamps.entries()) packed.set(stamp ?? NO_STAMP, i * STAMP_BYTES);
  return packed;
}

/** The stamps of so many databases; one without a stamp has 0 bytes. Throws SqlsyncError PROTOCOL. */
export function unpackStamps(packed: Uint8Array, count: number): Uint8Array[] {
  if (packed.length !== count * STAMP_BYTES)
    throw new SqlsyncError(
      'PROTOCOL',
      `The other side sent ${packed.length} bytes of stamps for ${count} databases of ${STAMP_BYTES} each`,
    );
  return Array.from({ length: count }, (_, i) => {
    const stamp = packed.subarray(i * STAMP_BYTES, (i + 1) * STAMP_BYTES);
    return stamp.some((byte) => byte !== 0) ? stamp : NO_STAMP;
  });
}
