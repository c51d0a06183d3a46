import { closeSync, openSync } from 'node:fs';
import { systemErrorCode } from '../errors.ts';
import { readFully } from '../files/read-fully.ts';

/** Sizes in a WAL file (https://www.sqlite.org/fileformat2.html#the_write_ahead_log). */
const WAL_HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;

/** Frames whose headers are read at once, with their pages: few system calls for little memory. */
const CHUNK_BYTES = 1024 * 1024;

/**
 * Which pages of a database have a frame in its WAL, as a bit for each page; undefined where none has.
 *
 * Call it while a read transaction is open. All frames count whose salts are those of the WAL's header, also those
 * that were written after the snapshot or were copied into the file already: a page too many only means that SQLite is
 * asked for it. None can be missing: a WAL from which the snapshot reads cannot be started again, and one from which
 * it does not read holds nothing that the snapshot needs.
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
      // Frames of one generation stand together at the start; behind them lie those of an older one.
      if (chunk.compare(salts, 0, 8, at + 8, at + 16) !== 0) return found ? pages : undefined;
      const page = chunk.readUInt32BE(at);
      if (page > pageCount) continue;
      pages[page >>> 3] = (pages[page >>> 3] ?? 0) | (1 << (page & 7));
      found = true;
    }
    if (read < chunk.length) return found ? pages : undefined;
  }
}
