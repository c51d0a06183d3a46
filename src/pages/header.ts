import type { PageSize } from './page-types.ts';
import { pageSize } from './page-types.ts';

/** Bytes of the database header at the start of page 1. */
export const HEADER_BYTES = 100;

const MAGIC = 'SQLite format 3\0';

/**
 * Bytes of page 1 that belong to each file and not to its content, as [first, end). Every hash takes them as zero.
 *
 * - 18–19 journal mode: a header that says "rollback" beside live WAL frames loses data.
 * - 24–27 change counter, 92–95 version-valid-for and 96–99 SQLite's version: SQLite rewrites them at each commit.
 * - 40–43 schema cookie: with the origin's cookie, a reader that cached a schema of the same cookie would read the
 *   wrong table's rows.
 */
export const OWN_HEADER_RANGES: readonly (readonly [number, number])[] = [
  [18, 20],
  [24, 28],
  [40, 44],
  [92, 100],
];

/** The fields of a database header that matter here (https://www.sqlite.org/fileformat2.html#the_database_header). */
export interface DatabaseHeader {
  readonly pageSize: PageSize;
  /** True for journal mode WAL (read version 2). */
  readonly wal: boolean;
  /**
   * The format version that a program must know to read and to write the file: 1, or 2 for WAL. SQLite has no larger
   * one.
   */
  readonly formatVersion: number;
  readonly reservedBytes: number;
  /** Size of the database in pages, from the header; undefined if that number is not valid. */
  readonly pageCount: number | undefined;
  readonly schemaCookie: number;
  readonly textEncoding: 'UTF-8' | 'UTF-16le' | 'UTF-16be';
  /** The SQLite version number of the last writer, such as 3054001. */
  readonly sqliteVersion: number;
}

/** Parses the header at the start of `page`; undefined if it is not an SQLite header. */
export function parseHeader(page: Uint8Array): DatabaseHeader | undefined {
  if (page.length < HEADER_BYTES) return undefined;
  for (let i = 0; i < MAGIC.length; i++) if (page[i] !== MAGIC.charCodeAt(i)) return undefined;
  const view = new DataView(page.buffer, page.byteOffset, HEADER_BYTES);
  const stored = view.getUint16(16);
  const size = pageSize(stored === 1 ? 65536 : stored);
  if (size === undefined) return undefined;
  const encoding = view.getUint32(56);
  return {
    pageSize: size,
    wal: view.getUint8(19) === 2,
    formatVersion: Math.max(view.getUint8(18), view.getUint8(19)),
    reservedBytes: view.getUint8(20),
    pageCount: view.getUint32(24) === view.getUint32(92) ? view.getUint32(28) : undefined,
    schemaCookie: view.getUint32(40),
    textEncoding: encoding === 2 ? 'UTF-16le' : encoding === 3 ? 'UTF-16be' : 'UTF-8',
    sqliteVersion: view.getUint32(96),
  };
}

/** The largest format version that SQLite knows. */
const MAX_FORMAT_VERSION = 2;

/** Says why SQLite refuses the format version of a database; undefined if it does not. */
export function unknownFormat(header: DatabaseHeader | undefined): string | undefined {
  if (header === undefined || header.formatVersion <= MAX_FORMAT_VERSION) return undefined;
  const which = header.formatVersion === 3 ? ', as the WAL2 mode of another branch of SQLite writes it' : '';
  return `is a database of format version ${header.formatVersion}${which}; SQLite knows up to ${MAX_FORMAT_VERSION}`;
}

/**
 * A copy of page 1 with the file's own header bytes as zero; the hash of page 1 is taken of it. (Buffer.slice would be
 * a view.)
 */
export function maskedFirstPage(page: Uint8Array): Uint8Array {
  const masked = new Uint8Array(page);
  for (const [first, end] of OWN_HEADER_RANGES) masked.fill(0, first, end);
  return masked;
}

/**
 * The origin's page 1 for an existing replica. It keeps the replica's journal mode and counters, which SQLite rewrites,
 * and its schema cookie, which goes up after all pages are written.
 */
export function firstPageForReplica(originPage: Uint8Array, replicaPage: Uint8Array): Uint8Array {
  const page = new Uint8Array(originPage);
  for (const [first, end] of OWN_HEADER_RANGES) page.set(replicaPage.subarray(first, end), first);
  return page;
}

/**
 * True if page 1 carries the checksum of SQLite's checksum VFS in its 8 reserved bytes
 * (https://www.sqlite.org/cksumvfs.html). Such a database becomes unreadable when header counters change without
 * their checksum; 8 reserved bytes of any other use verify only by a chance of 2^-64.
 */
export function hasChecksumVfs(page: Uint8Array): boolean {
  if (page[20] !== 8) return false;
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  const end = page.length - 8;
  let s1 = 0;
  let s2 = 0;
  for (let at = 0; at < end; at += 8) {
    s1 = (s1 + view.getUint32(at, true) + s2) >>> 0;
    s2 = (s2 + view.getUint32(at + 4, true) + s1) >>> 0;
  }
  return view.getUint32(end, true) === s1 && view.getUint32(end + 4, true) === s2;
}
