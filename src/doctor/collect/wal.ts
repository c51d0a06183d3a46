import {
  backfilledFrames,
  commitCount,
  frameCount,
  pagesOf,
  readMarks,
  validHeader,
} from '../../pages/wal-index.ts';
import type { WalFacts, WalState } from '../facts.ts';
import { commitsBetween } from '../watch/commits.ts';
import { fileFacts, readBeside } from './files.ts';
import { beginsWithFrame } from './wal-frames.ts';

export type WalLook = Omit<WalState, 'newFrames' | 'newCommits'>;

/**
 * The wal-index beside the database at `path`; undefined if there is none, or none that is valid. Only for a process
 * without a connection to this database: closing the -shm drops the locks that its process holds there.
 */
export function lookAtIndex(path: string): WalLook | undefined {
  return readBeside(`${path}-shm`, (readSome, index) => {
    const read = (offset: number, length: number): Buffer => {
      const bytes = Buffer.alloc(length);
      readSome(offset, length).copy(bytes);
      return bytes;
    };
    // Before the header, which is not valid any more if a program makes the index anew meanwhile.
    const [checkpointed, marks] = [backfilledFrames(read), readMarks(read)];
    const header = validHeader(read);
    if (header === undefined) return undefined;
    return {
      frames: frameCount(header),
      checkpointed,
      readMarks: marks,
      commits: commitCount(header),
      index,
      pageCount: pagesOf(header),
    };
  });
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
