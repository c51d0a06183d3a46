import { closeSync, openSync } from 'node:fs';
import { systemErrorCode } from '../errors.ts';
import { readFully } from '../files/read-fully.ts';

/** Sizes in a WAL file (https://www.sqlite.org/fileformat2.html#the_write_ahead_log). */
export const WAL_HEADER_BYTES = 32;
export const FRAME_HEADER_BYTES = 24;

/** Bytes of frames, with their pages, that one read takes: few system calls for little memory. */
const CHUNK_BYTES = 1024 * 1024;

/**
 * The set of pages that have a frame in the WAL, one bit per page; undefined if no page has one.
 *
 * Call it while a read transaction is open. It counts every frame whose salts match the WAL's header, including frames
 * written after the snapshot or already copied into the file: one page too many only means that SQLite is asked for it.
 * No frame can be missing: SQLite cannot restart a WAL that the snapshot reads, and any other WAL holds nothing that
 * the snapshot needs.
 */
export function readWalPages(
  databasePath: string,
  pageSize: number,
  pageCount: number,
): Uint8Array | undefined {
  let descriptor: number;
  try {
    // The -wal file carries no POSIX locks, so it may be opened and closed at will.
    descriptor = openSync(`${databasePath}-wal`, 'r');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const header = Buffer.alloc(WAL_HEADER_BYTES);
    if (readFully(descriptor, header, 0) < WAL_HEADER_BYTES) return undefined;
    return scanFrames(descriptor, header.subarray(16, 24), pageSize, pageCount);
  } finally {
    closeSync(descriptor);
  }
}

function scanFrames(
  descriptor: number,
  salts: Buffer,
  pageSize: number,
  pageCount: number,
): Uint8Array | undefined {
  const frameBytes = FRAME_HEADER_BYTES + pageSize;
  const framesPerChunk = Math.max(1, Math.floor(CHUNK_BYTES / frameBytes));
  const chunk = Buffer.alloc(framesPerChunk * frameBytes);
  const pages = new Uint8Array(Math.floor(pageCount / 8) + 1);
  let found = false;
  for (let offset = WAL_HEADER_BYTES; ; offset += chunk.length) {
    const read = readFully(descriptor, chunk, offset);
    for (let at = 0; at + FRAME_HEADER_BYTES <= read; at += frameBytes) {
      // Frames of one generation stand together at the start; frames of an older one follow.
      if (chunk.compare(salts, 0, 8, at + 8, at + 16) !== 0) return found ? pages : undefined;
      const page = chunk.readUInt32BE(at);
      if (page > pageCount) continue;
      pages[page >>> 3] = (pages[page >>> 3] ?? 0) | (1 << (page & 7));
      found = true;
    }
    if (read < chunk.length) return found ? pages : undefined;
  }
}
