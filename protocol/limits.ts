/** All bounds of the protocol. A declared size is checked against them before memory is taken. */

/** Bytes of a frame's header. */
export const FRAME_HEADER_BYTES: number = 16;

/** Unit of a delta, in bytes. Measured: 64, 256 and 512 all cost more bytes on real changes. */
export const BLOCK_BYTES: number = 128;

/**
 * Bits of a block hash. Short on purpose: a changed block looks unchanged once in 4,096 times. The hash of the rebuilt
 * page shows that, and the page is then fetched whole. Measured on an UPDATE of 1 %: four more bits would cost 20 times
 * as much, in the largest part of what a replica sends.
 */
export const BLOCK_HASH_BITS: number = 12;

/** Pages whose last version an origin agent remembers for a replica that follows it. */
export const MAX_SENT_PAGES: number = 16_384;

/**
 * Bytes of a node or page hash in the answer to `getChildren`: the start of the full hash. A difference that hides
 * behind an equal prefix (2^-40 each) changes the root hash, which is compared in full.
 */
export const CHILD_HASH_BYTES: number = 5;

/** Children of a node in the hash tree. */
export const TREE_FANOUT: number = 16;

/** The most nodes that the first pass over the tree asks for; it decides at which level the pass starts. */
export const MAX_TOP_NODES: number = 4096;

/** The lowest level at which the first pass may start: 256 pages per node. */
export const MIN_TOP_LEVEL: number = 2;

/** Page sizes that SQLite supports. */
export const MIN_PAGE_SIZE: number = 512;
export const MAX_PAGE_SIZE: number = 65536;

/** SQLite's own limit is 2^32 - 2 pages; `sqlite_dbpage` numbers are signed 32-bit. */
export const MAX_PAGE_COUNT: number = 2 ** 31 - 1;

/** Page bytes that one `getPages` may request, so that the answer fits one frame. */
export const MAX_PAGES_REQUEST_BYTES: number = 1024 * 1024;

/** Node hashes that one message may carry or request. */
export const MAX_HASHES_PER_MESSAGE: number = 16384;

/** Bytes of the largest body (`pages`, `getPages`, `hashes`). */
export const MAX_BODY_BYTES: number = 2 * 1024 * 1024;

/** Bytes of the body of a message that holds only numbers and texts. */
export const MAX_SMALL_BODY_BYTES: number = 64 * 1024;

/** UTF-8 bytes of one text (a path, a name, an error message). */
export const MAX_TEXT_BYTES: number = 16 * 1024;

/** Entries of a list of texts (warnings, names of tables). */
export const MAX_TEXTS: number = 4096;

/** Page bytes that a replica agent may have requested and not yet received. */
export const MAX_OUTSTANDING_PAGE_BYTES: number = 8 * 1024 * 1024;

/** Bytes of one `filePart`. */
export const MAX_FILE_PART_BYTES: number = 1024 * 1024;

/** Bytes of a file of a store: those of the largest pack. */
export const MAX_STORE_FILE_BYTES: number = 2 ** 31;

/** The level at which the first pass over a database of `pageCount` pages starts; both sides use this rule. */
export function topLevel(pageCount: number): number {
  let level = MIN_TOP_LEVEL;
  while (pageCount > MAX_TOP_NODES * TREE_FANOUT ** level) level++;
  return level;
}
