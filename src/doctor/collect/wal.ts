import { endianness } from 'node:os';
import type { WalFacts, WalState } from '../facts.ts';
import { commitsBetween } from '../watch/commits.ts';
import { fileFacts, startBeside } from './files.ts';
import { beginsWithFrame } from './wal-frames.ts';

/** Bytes of the -shm that matter: two copies of the header of 48 bytes, the state of checkpoints and read marks. */
const INDEX_BYTES = 136;
const COPY_BYTES = 48;
const BACKFILL_AT = 96;
const READ_MARKS_AT = 100;
const READ_MARKS = 5;
const UNUSED_MARK = 0xffffffff;
const INDEX_VERSION = 3_007_000;

/** A writer leaves the two copies different for an instant. */
const ATTEMPTS = 5;

export type WalLook = Omit<WalState, 'newFrames' | 'newCommits'>;

/**
 * The wal-index beside the database at `path`; undefined if there is none, or none that is valid. Only for a process
 * without a connection to this database: closing the -shm drops the locks that its process holds there.
 */
export function lookAtIndex(path: string): WalLook | undefined {
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    const start = startBeside(`${path}-shm`, INDEX_BYTES);
    if (start === undefined || start.bytes.length < INDEX_BYTES) return undefined;
    const { bytes, file } = start;
    const copy = bytes.subarray(0, COPY_BYTES);
    const isWhole = copy.equals(bytes.subarray(COPY_BYTES, 2 * COPY_BYTES));
    if (!isWhole || copy[12] !== 1 || numberAt(copy, 0) !== INDEX_VERSION) continue;
    return {
      frames: numberAt(copy, 16),
      checkpointed: numberAt(bytes, BACKFILL_AT),
      readMarks: Array.from({ length: READ_MARKS }, (_, i) => {
        const mark = numberAt(bytes, READ_MARKS_AT + 4 * i);
        return mark === UNUSED_MARK ? null : mark;
      }),
      commits: numberAt(copy, 8),
      index: file,
      pageCount: numberAt(copy, 20),
    };
  }
  return undefined;
}

/** The WAL after several looks, of which `first` was the first and `last` the last. */
export function walFacts(
  path: string,
  { isInUse, first, last }: { isInUse: boolean; first: WalLook | undefined; last: WalLook | undefined },
): WalFacts {
  const [file, index] = [fileFacts(`${path}-wal`), fileFacts(`${path}-shm`)];
  return {
    ...(file === undefined ? {} : { file }),
    ...(index === undefined ? {} : { index }),
    isInUse,
    hasFrames: file !== undefined && file.bytes > 0 && beginsWithFrame(`${path}-wal`),
    ...(isInUse && first !== undefined && last !== undefined ? { state: stateOf(first, last) } : {}),
  };
}

/** After a restart of the WAL its frames count from 0 again, so the growth is at least what is there. */
function stateOf(first: WalLook, last: WalLook): WalState {
  const newCommits = commitsBetween(first, last);
  const grown = last.frames - first.frames;
  return { ...last, newCommits, newFrames: grown >= 0 ? grown : last.frames };
}

function numberAt(bytes: Buffer, offset: number): number {
  return endianness() === 'LE' ? bytes.readUInt32LE(offset) : bytes.readUInt32BE(offset);
}
