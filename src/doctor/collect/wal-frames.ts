import { pageSize } from '../../pages/page-types.ts';
import { FRAME_HEADER_BYTES, WAL_HEADER_BYTES } from '../../pages/wal-pages.ts';
import { startBeside } from './files.ts';

/** https://www.sqlite.org/fileformat2.html#the_write_ahead_log; the last bit is 1 for checksums of big-endian words. */
const MAGIC = 0x377f0682;
const FORMAT_VERSION = 3_007_000;
const HEADER_SUMMED_BYTES = 24;
const FRAME_SUMMED_BYTES = 8;
const SALTS_AT = 16;

/**
 * True if the -wal at `path` begins with a frame that SQLite would take for one of its database: it ignores a file whose
 * first checksums or salts are wrong. A frame that was never committed counts, too. Throws the system's errors.
 */
export function beginsWithFrame(path: string): boolean {
  const header = startBeside(path, WAL_HEADER_BYTES);
  if (header === undefined || header.length < WAL_HEADER_BYTES) return false;
  const magic = header.readUInt32BE(0);
  const size = pageSize(header.readUInt32BE(8));
  if (magic >>> 1 !== MAGIC >>> 1 || header.readUInt32BE(4) !== FORMAT_VERSION || size === undefined)
    return false;
  const isBigEndian = (magic & 1) === 1;
  const ofHeader = checksum([0, 0], header.subarray(0, HEADER_SUMMED_BYTES), isBigEndian);
  if (!isSum(ofHeader, header, HEADER_SUMMED_BYTES)) return false;
  const bytes = WAL_HEADER_BYTES + FRAME_HEADER_BYTES + size;
  const frame = startBeside(path, bytes)?.subarray(WAL_HEADER_BYTES);
  if (frame === undefined || frame.length < FRAME_HEADER_BYTES + size || frame.readUInt32BE(0) === 0)
    return false;
  if (!frame.subarray(8, 16).equals(header.subarray(SALTS_AT, SALTS_AT + 8))) return false;
  const ofNumbers = checksum(ofHeader, frame.subarray(0, FRAME_SUMMED_BYTES), isBigEndian);
  return isSum(checksum(ofNumbers, frame.subarray(FRAME_HEADER_BYTES), isBigEndian), frame, 16);
}

type Sum = readonly [number, number];

/** `walChecksumBytes` of SQLite. */
function checksum(from: Sum, bytes: Buffer, isBigEndian: boolean): Sum {
  let [s0, s1] = from;
  const word = (at: number): number => (isBigEndian ? bytes.readUInt32BE(at) : bytes.readUInt32LE(at));
  for (let at = 0; at < bytes.length; at += 8) {
    s0 = (s0 + word(at) + s1) >>> 0;
    s1 = (s1 + word(at + 4) + s0) >>> 0;
  }
  return [s0, s1];
}

/** True if the file has this sum at `offset`; sums are big-endian in any WAL. */
function isSum([s0, s1]: Sum, bytes: Buffer, offset: number): boolean {
  return bytes.readUInt32BE(offset) === s0 && bytes.readUInt32BE(offset + 4) === s1;
}
