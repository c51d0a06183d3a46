/** What a packet of SSH has beside its data: the fields of its message, and padding. */
const PACKET_FRAME_BYTES = 512;

/** Smaller buffers are left to the garbage collector. */
const FREED_MIN_BYTES = 4096;

/**
 * Frees the memory of a buffer that nobody else uses; do not use `bytes`, or any view of them, afterwards. Left to the
 * garbage collector, buffers pile up by tens of megabytes, each time at the cost of a full collection and of new memory
 * from the system: a quarter of the processor time of a copy over SSH.
 */
export function freeMemory({ buffer, byteLength }: Uint8Array): void {
  const isPooled = buffer.byteLength === Buffer.poolSize && byteLength <= Buffer.poolSize / 2;
  if (!isPooled && buffer.byteLength >= FREED_MIN_BYTES && buffer instanceof ArrayBuffer) buffer.transfer(0);
}

/** As `freeMemory`, for a chunk that was received. It does nothing if the chunk is a part of a larger buffer. */
export function freeChunk(chunk: Uint8Array): void {
  if (chunk.buffer.byteLength - chunk.byteLength <= PACKET_FRAME_BYTES) freeMemory(chunk);
}
