import { closeSync, openSync } from 'node:fs';
import { readFully } from '../files/read-fully.ts';
import { frameChecksum, frameCount, saltsOf } from './wal-index.ts';
import { FRAME_HEADER_BYTES, WAL_HEADER_BYTES } from './wal-pages.ts';

/** What is noted of a database in WAL mode when a snapshot begins, to find out later which pages changed since. */
export interface WalLook {
  /** A hash of all about the file that a write to it changes; hexadecimal, as what follows. */
  readonly file: string;
  /** Frames of the WAL that the snapshot contains; it may contain a few more. */
  readonly frames: number;
  readonly salts: string;
  /** The checksum of the last of these frames, which covers all of them. */
  readonly checksum: string;
}

/**
 * The look of a snapshot that began between two looks at the wal-index; undefined if the WAL began anew meanwhile, so
 * that frames cannot be counted.
 */
export function lookOf(file: string, before: Buffer, now: Buffer): WalLook | undefined {
  if (!saltsOf(before).equals(saltsOf(now))) return undefined;
  return {
    file,
    frames: frameCount(before),
    salts: saltsOf(before).toString('hex'),
    checksum: frameChecksum(before).toString('hex'),
  };
}

/** With more frames than this a page of the database it is as cheap to hash all pages. */
const MAX_FRAMES_PER_PAGE = 0.125;

/** Frames that are read without a sign of life to the other side: some seconds. */
const MAX_FRAMES = 2 ** 20;

/**
 * The pages of the frames that were added since `look`, if `header` is that of the wal-index now; undefined if these
 * may not be all that changed. The caller then has to see that the WAL has not begun anew meanwhile. Throws the
 * system's errors.
 *
 *     WAL      frame 1 … look.frames │ … frameCount(header)
 *     salts    the same in all       │
 *     checksum          as noted ────┘      as in the header
 */
export function pagesSince(
  look: WalLook,
  header: Buffer,
  {
    path,
    pageSize,
    pageCount,
  }: { readonly path: string; readonly pageSize: number; readonly pageCount: number },
): number[] | undefined {
  const end = frameCount(header);
  const added = end - look.frames;
  if (look.salts !== saltsOf(header).toString('hex') || added < 0) return undefined;
  if (added > Math.min(pageCount * MAX_FRAMES_PER_PAGE, MAX_FRAMES)) return undefined;
  if (end === 0) return [];
  // The -wal file carries no POSIX locks, so it may be opened and closed at will.
  const descriptor = openSync(`${path}-wal`, 'r');
  try {
    const frame = Buffer.alloc(FRAME_HEADER_BYTES);
    const pages = new Set<number>();
    for (let number = Math.max(1, look.frames); number <= end; number++) {
      const at = WAL_HEADER_BYTES + (number - 1) * (FRAME_HEADER_BYTES + pageSize);
      if (readFully(descriptor, frame, at) < FRAME_HEADER_BYTES) return undefined;
      if (!frame.subarray(8, 16).equals(saltsOf(header))) return undefined;
      const checksum = frame.subarray(16, 24);
      if (number === look.frames && checksum.toString('hex') !== look.checksum) return undefined;
      if (number === end && !checksum.equals(frameChecksum(header))) return undefined;
      if (number > look.frames) pages.add(frame.readUInt32BE(0));
    }
    return [...pages];
  } finally {
    closeSync(descriptor);
  }
}
